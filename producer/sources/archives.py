"""Images in `.zip` and `.tar[.gz|.bz2|.xz]` files, read one member at a time, never unpacked."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any, cast

from digitq.producer.sources.documents import is_document_name, page_entries
from digitq.producer.sources.source import (
    Entry,
    Naming,
    Source,
    is_hidden,
    is_image_name,
    read_limited,
    unreadable,
)
from digitq.protocol.asked.values import is_written, tidy
from digitq.protocol.errors import UsageError
from digitq.protocol.formats import UnreadableImageError
from digitq.protocol.settings import settings

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
ZIP_MAGIC = b"PK\3\4"
LABEL_SUFFIX = ".cls"
MAX_LABEL_BYTES = 64  # a larger file is no label
ENCRYPTED_FLAG = 1  # a bit of a zip member's flags
ARCHIVE_ERRORS = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(ValueError, OverflowError),  # a name or a number is damaged
)
EXTENDED_HEADERS = (  # tarfile reads these into memory
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
MAX_HEADER_BYTES = 1 << 20  # a tar with a larger extended header is refused
MAX_XZ_BYTES = 256 << 20  # unpacking .xz may take this much memory; `xz -9` needs 65 MB
MAX_EMPTY_READS = 4  # a tar is broken if tarfile reads more often than this after its end


def archive_source(path: Path, naming: Naming) -> Source:
    """The images of an archive in its own order; an id is the name of a member. A member `x.cls`
    has the label of `x.png`, as in WebDataset's archives: its neighbour in a tar. Raises
    `UsageError` if the file is not an archive or contains no image."""
    count: int | None = None
    has_labels = False  # a tar shows labels only as it is read
    try:
        if path.name.lower().endswith(".zip"):
            archive = _open_zip(path)
            entries = _zip_entries(archive, naming)
            names = [name for name, _ in _zip_members(archive)]
            images = [name for name in names if is_image_name(name)]
            count = None if any(map(is_document_name, images)) else len(images)
            has_labels = not {*map(_stem, images)}.isdisjoint(map(_stem, filter(_is_label, names)))
        else:
            entries = _tar_entries(_decompress(path), naming)
        some = naming.at_least_one(entries, path)
        first = next(some)
    except (*ARCHIVE_ERRORS, NotImplementedError) as error:  # the zip has an unknown version
        raise UsageError(f"can't read the archive {path}: {error}") from None
    has_truth = naming.truth_from_parent or has_labels or first.truth is not None
    return Source(str(path), chain([first], some), has_truth, lambda: count)


def _open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip. Raises `zipfile.BadZipFile`, also if the first member is not at the start: in a
    truncated archive, zipfile may find the directory of an archive inside it."""
    with open(path, "rb") as file:
        is_plain = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC  # if not, it may unpack itself
    archive = zipfile.ZipFile(path)
    if is_plain and min((member.header_offset for member in archive.infolist()), default=0):
        archive.close()
        reason = "it is truncated, is several archives in one file, or lacks its first member"
        raise zipfile.BadZipFile(reason)
    return archive


def _zip_entries(archive: zipfile.ZipFile, naming: Naming) -> Iterator[Entry]:
    labels = {_stem(path): member for path, member in _zip_members(archive) if _is_label(path)}
    used = set()
    for path, member in _zip_members(archive):
        if is_image_name(path):
            truth = None
            if label := labels.get(_stem(path)):
                truth = _read_label(partial(_read_zipped, archive, label), label.file_size)
                used.add(_stem(path))
            read = partial(_read_zipped, archive, member)
            yield from page_entries(naming, member.filename, read, path, truth)
        elif not path.endswith("/") and not _is_label(path):  # `is_dir` fails for an empty name
            naming.skipped.skip(path)
    for stem in labels.keys() - used:
        naming.skipped.skip(stem + LABEL_SUFFIX)


def _zip_members(archive: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    for member in archive.infolist():
        yield member.filename.replace("\\", "/"), member  # some Windows programs write backslashes


def _stem(path: str) -> str:
    """What the names of an image and its label have in common."""
    return path.rpartition(".")[0]


def _is_label(path: str) -> bool:
    return path.endswith(LABEL_SUFFIX) and not is_hidden(path)


def _read_label(read: Callable[[], bytes], size: int) -> str | None:
    """The label in a member of `size` bytes; None if it can't be read or is no number."""
    with suppress(UnreadableImageError, UnicodeDecodeError):
        label = tidy(read().decode()) if size <= MAX_LABEL_BYTES else ""
        return label if is_written(label) else None
    return None


def _read_zipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.flag_bits & ENCRYPTED_FLAG:
        raise UnreadableImageError("encrypted: the archive needs a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile can't limit what it unpacks with other methods
        raise UnreadableImageError("compressed with another method than deflate")
    try:
        with archive.open(member) as file:
            return read_limited(file.read, member.file_size)
    except (*ARCHIVE_ERRORS, RuntimeError) as error:  # the method is unknown
        raise UnreadableImageError(f"can't be read from the archive: {error}") from None


class _Member(tarfile.TarInfo):
    """A tar member whose extended headers have a limited size."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in EXTENDED_HEADERS and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header has {self.size:,} bytes")
        process: Any = super()  # the method is not public
        return cast(tarfile.TarInfo, process._proc_member(archive))


class _EndingStream:
    """A stream that raises `EOFError` if it is read again and again after its end, as tarfile does
    for a member that claims to be huge."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._empty = stream, 0

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self._empty = 0 if block else self._empty + 1
        if self._empty > MAX_EMPTY_READS:
            raise EOFError("it is truncated")
        return block


def _decompress(path: Path) -> IO[bytes]:
    """Open the tar inside any compression. Unlike tarfile's readers, these raise `EOFError` if the
    file is truncated."""
    with open(path, "rb") as file:
        head = file.read(4096)
    for start, opener in OPENERS.items():
        if head.startswith(start):
            if opener is lzma.open:  # `lzma.open` has no memory limit
                lzma.LZMADecompressor(memlimit=MAX_XZ_BYTES).decompress(head, max_length=1)
            return cast(IO[bytes], opener(path))
    return open(path, "rb")


def _tar_entries(stream: IO[bytes], naming: Naming) -> Iterator[Entry]:
    """The images of a tar stream. Those of one stem are held until it is known whether a label
    follows, unless they take more memory than one image may."""
    for _, members in groupby(_tar_members(stream, naming), lambda member: _stem(member[0])):
        held: list[tuple[str, Callable[[], bytes]]] = []
        held_bytes, truth, unused = 0, None, ""
        for name, read, size in members:
            if _is_label(name):
                truth, unused = _read_label(read, size), "" if held else name
                continue
            if held_bytes > settings().image_bytes:
                for image in held:
                    yield from page_entries(naming, *image, image[0], truth)
                held, held_bytes = [], 0
            try:
                content = read()
                held.append((name, partial(bytes, content)))
                held_bytes += len(content)
            except UnreadableImageError as error:
                held.append((name, unreadable(str(error))))
            held_bytes += tarfile.BLOCKSIZE
            unused = ""
        for image in held:
            yield from page_entries(naming, *image, image[0], truth)
        if unused:
            naming.skipped.skip(unused)


def _tar_members(
    stream: IO[bytes], naming: Naming
) -> Iterator[tuple[str, Callable[[], bytes], int]]:
    """The images and labels of a tar stream: name, what reads it before the next, and its size."""
    started = False
    try:
        reader = cast(IO[bytes], _EndingStream(stream))
        with stream, tarfile.open(fileobj=reader, mode="r|", tarinfo=_Member) as archive:
            for member in archive:
                cast(Any, archive).members = []  # tarfile would keep every member
                name = member.name.removeprefix("./")  # `tar cf x.tar .` writes it
                is_image = (member.isfile() or member.islnk()) and is_image_name(name)
                if is_image or (member.isfile() and _is_label(name)):
                    started = started or is_image
                    yield name, partial(_read_tarred, archive, member), member.size
                elif not member.isdir():
                    naming.skipped.skip(name, "" if member.isfile() else "link or device")
            _require_end(archive, stream)
    except ARCHIVE_ERRORS as error:
        if not started:
            raise
        reason = f"the archive is broken from here on: {error}"
        yield "(the rest)", unreadable(reason), 0


def _require_end(archive: tarfile.TarFile, stream: IO[bytes]) -> None:
    """Read the rest. Raises `EOFError` if it is truncated or more members follow, where tarfile
    stops silently."""
    blocks = cast(IO[bytes], archive.fileobj)
    has_end = blocks.tell() > archive.offset  # tarfile has read the block of zeros at the end
    while rest := blocks.read(1 << 20):
        zeros = len(rest) - len(rest.lstrip(b"\0"))
        start = zeros - zeros % tarfile.BLOCKSIZE
        with suppress(tarfile.TarError):  # the block is not a member's header
            tarfile.TarInfo.frombuf(rest[start : start + tarfile.BLOCKSIZE], "utf-8", "replace")
            raise EOFError("more members follow after its end")
    if not has_end:
        cut = stream.tell() % tarfile.BLOCKSIZE
        raise EOFError("it ends in the middle of a block" if cut else "it has no end mark")


def _read_tarred(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.islnk():
        raise UnreadableImageError(f"a hard link: the archive has the image as {member.linkname}")
    try:
        file = archive.extractfile(member)
        content = read_limited(file.read, member.size) if file else b""
    except ARCHIVE_ERRORS as error:
        raise UnreadableImageError(f"can't be read from the archive: {error}") from None
    if len(content) < member.size:
        raise UnreadableImageError("can't be read from the archive: it is truncated")
    return content
