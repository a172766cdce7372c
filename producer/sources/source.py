"""The types of a source: a stream of entries or of whole record batches."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pyarrow as pa

from producer.sources.names import IMAGE_SUFFIXES, SkippedFiles
from protocol.errors import UsageError
from protocol.settings import settings

PathName: TypeAlias = str | os.PathLike[str]


class UnreadableImageError(Exception):
    """Raised by `Entry.read` where there is no image to be had; its text goes into the row."""


class EmptyError(UsageError):
    """Raised for a SOURCE that can be read and has no image."""


class Entry(NamedTuple):
    """One image that is not yet read. `read` may raise `OSError` or `UnreadableImageError`."""

    id: str
    read: Callable[[], bytes]
    truth: int | None = None


SourceItem: TypeAlias = Entry | pa.RecordBatch


@dataclass
class Source:
    """A stream of images, read once from start to end."""

    name: str
    items: Iterable[SourceItem]
    has_truth: bool = False
    count: Callable[[], int | None] = lambda: None  # how many images, where that is cheap to know
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    _taken: bool = field(default=False, init=False)

    def take(self) -> Iterable[SourceItem]:
        """Its pieces. Raises `UsageError` the second time, when there would be none."""
        if self._taken:
            raise UsageError(f"{self.name} has been read: open it again for another job")
        self._taken = True
        return self.items


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


def take_first(items: Iterable[SourceItem], limit: int) -> Iterator[SourceItem]:
    """The pieces of the first `limit` images."""
    for item in items:
        if isinstance(item, pa.RecordBatch):
            item = item.slice(0, min(limit, item.num_rows))  # Arrow takes no more than 64 bits
            limit -= item.num_rows
        else:
            limit -= 1
        yield item
        if limit == 0:
            return


def at_least_one(
    entries: Iterator[Entry], where: Path | str, skipped: SkippedFiles
) -> Iterator[Entry]:
    """The same entries. Raises `EmptyError` where there is none."""
    first = next(entries, None)
    if first is None:
        raise EmptyError(
            f"no image in {where}, {skipped.describe() or 'nor anything else'}: "
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
