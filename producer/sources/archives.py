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
from pathlib import Path
from typing import IO, Any, cast

from producer.sources.names import SkippedFiles, is_image_name
from producer.sources.source import (
    Entry,
    Source,
    UniqueIds,
    UnreadableImageError,
    at_least_one,
    parent_digit,
    raise_unreadable,
    read_limited,
)
from protocol.errors import UsageError
from protocol.text import printable

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
MEMBER = b"PK\3\4"  # begins one in a zip
ENCRYPTED = 1  # of a member's flags
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    OSError,
    ValueError,  # of odd names and numbers
    OverflowError,
)
HEADERS = (  # which tarfile reads whole
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
HEADER_BYTES = 1 << 20
XZ_BYTES = 256 << 20  # of memory that an archive may ask for; `xz -9` takes 65 MB
MAX_EMPTY = 4  # reads past the end of a stream


def archive_source(
    path: Path, prefix: str, truth_from_parent: bool, skipped: SkippedFiles
) -> Source:
    """The images of an archive in its own order; the id is the member's name.

    Raises `UsageError` where it is no archive, or holds no image.
    """
    try:
        if path.name.lower().endswith(".zip"):
            archive = _open_zip(path)
            entries = _zip_entries(archive, prefix, truth_from_parent, skipped)
            count = sum(is_image_name(_path(member)) for member in archive.infolist())
        else:
            stream = _decompress(path)
            entries, count = _tar_entries(stream, prefix, truth_from_parent, skipped), None
        some = at_least_one(entries, path, skipped)
    except (*BROKEN, NotImplementedError) as error:  # of another version
        raise UsageError(f"can't read the archive {path}: {error}") from None
    return Source(str(path), some, truth_from_parent, lambda: count)


def _open_zip(path: Path) -> zipfile.ZipFile:
    """Raises `zipfile.BadZipFile` also where only what an archive ends with was found: of one that
    is cut, that may be an archive in it."""
    with open(path, "rb") as file:
        begins = file.read(len(MEMBER)) == MEMBER  # else a program that unpacks itself
    archive = zipfile.ZipFile(path)
    if begins and min((member.header_offset for member in archive.infolist()), default=0):
        archive.close()
        raise zipfile.BadZipFile("it breaks off, is several in one, or lacks its first member")
    return archive


def _path(member: zipfile.ZipInfo) -> str:
    """Its name; some programs for Windows part folders by \\."""
    return member.filename.replace("\\", "/")


def _zip_entries(
    archive: zipfile.ZipFile, prefix: str, truth_from_parent: bool, skipped: SkippedFiles
) -> Iterator[Entry]:
    unique = UniqueIds()
    for member in archive.infolist():
        path = _path(member)
        if is_image_name(path):
            yield Entry(
                prefix + unique(printable(member.filename)),
                partial(_read_zipped, archive, member),
                parent_digit(path) if truth_from_parent else None,
            )
        elif not path.endswith("/"):  # a folder's; `is_dir` fails where there is no name
            skipped.skip(path)


def _read_zipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.flag_bits & ENCRYPTED:
        raise UnreadableImageError("encrypted: the archive asks for a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # of these zipfile unpacks all it has read, however large
        raise UnreadableImageError("packed in a way that is not read: deflate is")
    try:
        with archive.open(member) as file:
            return read_limited(file.read, member.file_size)
    except (*BROKEN, RuntimeError) as error:  # of an unknown method
        raise UnreadableImageError(f"can't be read from the archive: {error}") from None


class _Member(tarfile.TarInfo):
    """A member whose long name, or other facts, are of a sane size."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in HEADERS and self.size > HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        process: Any = super()  # it is no public name
        return cast(tarfile.TarInfo, process._proc_member(archive))


class _Ending:
    """A stream that raises `EOFError` where it is read on and on past its end, as tarfile does for
    a member that claims to be huge."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._empty = stream, 0

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self._empty = 0 if block else self._empty + 1
        if self._empty > MAX_EMPTY:
            raise EOFError("it breaks off")
        return block


def _decompress(path: Path) -> IO[bytes]:
    """The tar inside, whatever its compression. Unlike tarfile's own, these readers raise
    `EOFError` where the file breaks off."""
    with open(path, "rb") as file:
        head = file.read(4096)
    for start, opener in OPENERS.items():
        if head.startswith(start):
            if opener is lzma.open:  # it has no limit of its own
                lzma.LZMADecompressor(memlimit=XZ_BYTES).decompress(head, max_length=1)
            return cast(IO[bytes], opener(path))
    return open(path, "rb")


def _tar_entries(
    stream: IO[bytes], prefix: str, truth_from_parent: bool, skipped: SkippedFiles
) -> Iterator[Entry]:
    """A stream can't go back: each entry must be read before the next is asked for."""
    unique = UniqueIds()
    started = False
    try:
        reader = cast(IO[bytes], _Ending(stream))
        with stream, tarfile.open(fileobj=reader, mode="r|", tarinfo=_Member) as archive:
            for member in archive:
                cast(Any, archive).members = []  # else it keeps each one
                name = member.name.removeprefix("./")  # as of `tar cf x.tar .`
                if (member.isfile() or member.islnk()) and is_image_name(name):
                    started = True
                    yield Entry(
                        prefix + unique(printable(name)),
                        partial(_read_tarred, archive, member),
                        parent_digit(name) if truth_from_parent else None,
                    )
                elif not member.isdir():
                    skipped.skip(name, "" if member.isfile() else "link or device")
            _require_end(archive, stream)
    except BROKEN as error:
        if not started:
            raise
        reason = f"the archive is broken from here on: {error}"
        yield Entry(prefix + unique("(the rest)"), lambda: raise_unreadable(reason))


def _require_end(archive: tarfile.TarFile, stream: IO[bytes]) -> None:
    """Read what is left. Raises `EOFError` where it isn't whole, or not the end: tarfile stops
    there silently."""
    blocks = cast(IO[bytes], archive.fileobj)
    has_end = blocks.tell() > archive.offset  # a block of zeros
    while rest := blocks.read(1 << 20):
        zeros = len(rest) - len(rest.lstrip(b"\0"))
        start = zeros - zeros % tarfile.BLOCKSIZE
        with suppress(tarfile.TarError):  # of what is no member
            tarfile.TarInfo.frombuf(rest[start : start + tarfile.BLOCKSIZE], "utf-8", "replace")
            raise EOFError("more follows after its end")
    if not has_end:
        cut = stream.tell() % tarfile.BLOCKSIZE
        raise EOFError("it ends in the middle of a block" if cut else "it ends without an end mark")


def _read_tarred(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.islnk():  # GNU tar's for one file's other names
        raise UnreadableImageError(f"the archive has it under another name only: {member.linkname}")
    try:
        file = archive.extractfile(member)
        content = read_limited(file.read, member.size) if file else b""
    except BROKEN as error:
        raise UnreadableImageError(f"can't be read from the archive: {error}") from None
    if len(content) < member.size:
        raise UnreadableImageError("can't be read from the archive: it breaks off")
    return content
