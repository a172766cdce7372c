"""Where images come from: each SOURCE becomes a stream of entries or of whole record batches.

Nothing here decodes an image. Names are listed a folder at a time, as they are read, since those
must be sorted; only a zip, and whoever asks for the count, goes through all of them first.
"""

import codecs
import os
import select
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from producer.listing import IMAGE_SUFFIXES, Tally, has_images, is_image_name, walk
from protocol.errors import UsageError
from protocol.settings import settings
from protocol.text import printable

STDIN_BYTES = 1 << 16  # at a time
# Of files that are no image, named as SOURCE: one error row would pass for one bad image
FOREIGN_SETS = {
    *(".7z", ".bz2", ".gz", ".rar", ".xz", ".zst"),
    *(".arrow", ".feather", ".h5", ".json", ".jsonl", ".npz", ".orc", ".pkl", ".pt", ".xlsx"),
}
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class UnreadableImageError(Exception):
    """Raised by `Entry.read` where there is no image to be had; its text goes into the row."""


class EmptyError(UsageError):
    """Raised for a SOURCE that can be read and has no image."""


class Entry(NamedTuple):
    """One image that is not yet read. `read` may raise `OSError` or `UnreadableImageError`."""

    id: str
    read: Callable[[], bytes]
    truth: int | None = None


Piece: TypeAlias = Entry | pa.RecordBatch
PathName: TypeAlias = str | os.PathLike[str]


@dataclass
class Source:
    """A stream of images, read once from start to end."""

    name: str
    pieces: Iterable[Piece]
    has_truth: bool = False
    count: Callable[[], int | None] = lambda: None  # how many images, where that is cheap to know
    tally: Tally = field(default_factory=Tally)
    _taken: bool = field(default=False, init=False)

    def take(self) -> Iterable[Piece]:
        """Its pieces. Raises `UsageError` the second time, when there would be none."""
        if self._taken:
            raise UsageError(f"{self.name} has been read: open it again for another job")
        self._taken = True
        return self.pieces


def parent_digit(path: str) -> int | None:
    """The right answer where the file's folder is named by it, as `ImageFolder` has it."""
    parent = path.rpartition("/")[0].rstrip("/").rpartition("/")[2]
    return int(parent) if len(parent) == 1 and parent in "0123456789" else None


def read_limited(read: Callable[[int], bytes], size: int) -> bytes:
    """All that `read` gives of a file of about this size: so many bytes at most, none at its end.

    Raises `UnreadableImageError` above `DIGITQ_IMAGE_BYTES`.
    """
    limit = settings().image_bytes
    content = read(size + 1) if size <= limit else b""  # room for the limit would take longer
    while size <= limit and len(content) != size and (more := read(limit + 1 - len(content))):
        content += more  # it has changed
    if max(size, len(content)) > limit:
        raise UnreadableImageError(too_large(limit))
    return content


def too_large(limit: int) -> str:
    """The error of an image file over the limit of bytes."""
    return f"larger than {limit / 2**20:.0f} MB"


def raise_unreadable(reason: str) -> bytes:
    """The `read` of an entry that has no image. Raises `UnreadableImageError`."""
    raise UnreadableImageError(reason)


def open_sources(
    sources: PathName | Sequence[PathName],
    truth_from_parent: bool = False,
    limit: int | None = None,
) -> Source:
    """One or several SOURCEs, as the command line takes them, or the first `limit` images of them.

    With `truth_from_parent` the right answer is the name of an image's folder. Raises `UsageError`
    for a source that can't be read.

    One folder's ids are relative to it. Where there are several sources, each id begins with
    the source's name, so that no two images of a job share one.
    """
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    names = [os.fspath(source) for source in sources]
    if not names:
        raise UsageError("no SOURCE is named")
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} images leaves none")
    if "-" in names and len(names) > 1:
        raise UsageError("- takes no other SOURCE beside it: put their paths on stdin too")
    _refuse_overlap(names)
    tally = Tally()
    opened, pieces = _open_all(names, truth_from_parent, tally)
    return Source(
        name=opened[0].name if len(names) == 1 else f"{opened[0].name} and {len(names) - 1} more",
        pieces=pieces if limit is None else take_first(pieces, limit),
        has_truth=any(source.has_truth for source in opened),
        count=lambda: _count([source.count for source in opened], limit),
        tally=tally,
    )


def _open_all(
    names: Sequence[str], truth_from_parent: bool, tally: Tally
) -> tuple[list[Source], Iterable[Piece]]:
    """Each SOURCE, and the images of all. Where there are several, an empty one is passed over, and
    each is opened twice: at once, to see that it can be read, and when its turn comes, since a
    process may have only so many files open. Raises `UsageError`."""
    if len(names) == 1:
        source = _open(names[0], None, truth_from_parent, tally)
        return [source], source.pieces
    sources, kept = [], []
    empty: EmptyError | None = None
    for name in names:
        try:
            source = _open(name, UniqueIds(), truth_from_parent, Tally())
        except EmptyError as error:
            empty = error
            tally.skip(name, "empty SOURCE")
        else:
            sources.append(replace(source, pieces=()))
            kept.append(name)
    if empty and not sources:
        raise empty

    def pieces() -> Iterator[Piece]:
        unique = UniqueIds()
        for name in kept:
            try:
                yield from _open(name, unique, truth_from_parent, tally).pieces
            except EmptyError:  # by now
                tally.skip(name, "empty SOURCE")

    return sources, pieces()


def is_set(name: str) -> bool:
    """Whether a SOURCE is a file whose images have numbers for names."""
    from producer import arrays, tables

    return os.path.isfile(name) and name.lower().endswith((*tables.SUFFIXES, *arrays.SUFFIXES))


def count_files(names: Sequence[str]) -> int | None:
    """How many images, where each SOURCE is an image file by its name; else None."""
    return len(names) if all(map(is_image_name, names)) else None


def take_first(pieces: Iterable[Piece], limit: int) -> Iterator[Piece]:
    """The pieces of the first `limit` images."""
    for piece in pieces:
        if isinstance(piece, pa.RecordBatch):
            piece = piece.slice(0, min(limit, piece.num_rows))  # Arrow takes no more than 64 bits
            limit -= piece.num_rows
        else:
            limit -= 1
        yield piece
        if limit == 0:
            return


def _open(name: str, unique: "UniqueIds | None", truth_from_parent: bool, tally: Tally) -> Source:
    """One SOURCE; among several, with a name that is `unique`: some are written alike."""
    from producer import archives, arrays, mnist, tables

    def prefix() -> str:
        return f"{unique(printable(os.path.normpath(name)))}/" if unique else ""

    if name == "-":
        return paths_source("paths on stdin", _stdin_paths(), truth_from_parent)
    if not name:
        raise UsageError("a SOURCE is empty; the current folder is .")
    if name.startswith("mnist:"):
        return mnist.mnist_source(name.removeprefix("mnist:"))
    path = Path(name)
    _check_kind(name, path)
    if os.path.isdir(path):
        return folder_source(path, prefix(), truth_from_parent, tally)
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return archives.archive_source(path, prefix(), truth_from_parent, tally)
    if path.suffix.lower() in tables.SUFFIXES:
        return tables.table_source(path, prefix())
    if path.name.lower().endswith(arrays.SUFFIXES):
        return arrays.array_source(path, prefix())
    return paths_source(name, [name], truth_from_parent, unique)


def _check_kind(name: str, path: Path) -> None:
    """Raises `UsageError` where there is nothing of that name, or nothing that is read here."""
    from producer import arrays, tables

    sets = (*ARCHIVE_SUFFIXES, *tables.SUFFIXES, *arrays.SUFFIXES)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        nowhere = isinstance(error, FileNotFoundError) and not os.path.islink(path)
        if nowhere or not isinstance(error, OSError):  # such as for a 0 byte in it
            hint = "; MNIST's are mnist:test and mnist:train" if name.lower() == "mnist" else ""
            raise UsageError(f"no such file or folder: {name}{hint}") from None
        if is_image_name(name):
            return  # its row tells
        raise UsageError(f"can't read {name}: {error.strerror}") from None
    if os.path.isdir(path):
        return
    if not os.path.isfile(path) and name.lower().endswith(sets):
        raise UsageError(f"{name} is no file: a pipe, a socket or a device")
    if path.suffix.lower() in FOREIGN_SETS and not name.lower().endswith(sets):
        raise UsageError(
            f"{name} may be a whole set of images, of a kind that is not read here: "
            "`digitq classify --help` lists those that are"
        )


def paths_source(
    name: str,
    paths: Iterable[str],
    truth_from_parent: bool,
    unique: "UniqueIds | None" = None,
) -> Source:
    """Images named one by one; each is a row, whatever its name. The id is the path."""
    name_once = unique or UniqueIds()

    def entries() -> Iterator[Entry]:
        for path in paths:
            truth = parent_digit(os.path.abspath(path)) if truth_from_parent else None
            yield Entry(name_once(printable(path)), partial(read_file, path), truth)

    count = len(paths) if isinstance(paths, list) else None
    some = at_least_one(entries(), name, Tally())
    return Source(name, some, truth_from_parent, lambda: count)


def folder_source(root: Path, prefix: str, truth_from_parent: bool, tally: Tally) -> Source:
    """A folder's images, recursively, in natural order. Raises `UsageError` where it has none."""
    above = os.path.abspath(root)
    unique = UniqueIds()

    def name_once(name: str) -> str:
        """No two alike, though bytes that are no UTF-8 are written as another may be named."""
        return unique(name) if "\\x" in name else name

    entries = (
        Entry(
            prefix + name_once(printable(name)),
            partial(read_file, f"{root}/{name}"),
            parent_digit(f"{above}/{name}") if truth_from_parent else None,
        )
        for name in walk(root, tally)
    )
    return Source(
        str(root),
        entries if has_images(root) else at_least_one(entries, root, tally),
        truth_from_parent,
        count=lambda: sum(1 for _ in walk(root, Tally())),
    )


def at_least_one(entries: Iterator[Entry], where: Path | str, tally: Tally) -> Iterator[Entry]:
    """The same entries. Raises `EmptyError` where there is none."""
    first = next(entries, None)
    if first is None:
        raise EmptyError(
            f"no image in {where}, {tally.describe() or 'nor anything else'}: "
            f"images end in {' '.join(IMAGE_SUFFIXES)}; an archive, a table or a set of images in "
            "it is a SOURCE by itself"
        )
    return chain([first], entries)


def read_file(path: str) -> bytes:
    """The file's bytes. Raises `OSError`, or `UnreadableImageError` where it is too large or none.

    Four calls of the system: Python's own files take twice as many.
    """
    status = os.stat(path)  # before it is opened: what is no file may wait, or do something
    if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        raise UnreadableImageError("no file: a pipe, a socket or a device")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_limited(partial(os.read, descriptor), status.st_size)
    finally:
        os.close(descriptor)


class UniqueIds:
    """Gives an id back unchanged the first time, with `#2`, `#3` … after that."""

    def __init__(self) -> None:
        self._seen: set[int] = set()  # of hashes: ids are many
        self._times: dict[str, int] = {}

    def __call__(self, id: str) -> str:
        name = id
        while hash(name) in self._seen:
            times = self._times[id] = self._times.get(id, 1) + 1
            name = f"{id}#{times}"
        self._seen.add(hash(name))
        return name


def _stdin_paths() -> Iterator[str]:
    """A path a line; or after each a 0 byte, as `find -print0` has it."""
    if not sys.stdin:  # `<&-`
        raise UsageError("no paths on stdin: it is closed")
    # past its buffer, whose lock a thread that waits for more would keep from Python's end
    stdin = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    blocks = iter(partial(_read_block, stdin), b"")
    first = b""
    while not (b"\0" in first or b"\n" in first) and (block := next(blocks, b"")):
        first += block
    end = b"\0" if b"\0" in first else b"\n"
    first = first.removeprefix(codecs.BOM_UTF8)  # as of a list that was written on Windows
    rest, found = b"", False
    for block in chain([first], blocks, [end]):
        *lines, rest = (rest + block).split(end)
        for line in lines:
            if path := os.fsdecode(line if end == b"\0" else line.rstrip(b"\r")):
                found = True
                yield path
    if not found:
        raise UsageError("no paths on stdin")


def _read_block(stdin: Any) -> bytes:
    """What has come; nothing at the end. It waits, though whoever has the other end, as a shell's
    other programs, may have set it not to."""
    while (block := stdin.read(STDIN_BYTES)) is None:
        select.select([stdin], [], [])
    return bytes(block)


def _refuse_overlap(names: Sequence[str]) -> None:
    """Raise `UsageError` where one SOURCE is, or lies in, another."""
    named: dict[str, str] = {}  # by where it really is
    for name in names:
        path = os.path.realpath(name) if os.path.exists(name) else name
        if path in named:
            raise UsageError(f"{named[path]} and {name} overlap: name each image once")
        named[path] = name
    for path, name in named.items():
        folders = [*Path(path).parents]
        if os.path.islink(name) and not os.path.isdir(name):  # a folder has those in it, too
            folders += (Path(name).parent.resolve() / "link").parents
        for above in map(str, folders):
            if above in named:
                raise UsageError(f"{named[above]} and {name} overlap: name each image once")


def _count(counts: list[Callable[[], int | None]], limit: int | None) -> int | None:
    """The sum, as far as the limit; None where a part isn't known."""
    total = 0
    for count in counts:
        if (part := count()) is None:
            return None
        total += part
    return total if limit is None else min(total, limit)
