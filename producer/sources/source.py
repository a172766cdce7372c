"""A source is a stream of entries or record batches: its types, and what they have in common."""

import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import pyarrow as pa

from digitq.protocol.errors import UsageError
from digitq.protocol.formats import UnreadableImageError
from digitq.protocol.origin import Origin
from digitq.protocol.settings import INSPECT_SUFFIX, settings
from digitq.protocol.text import name_some, plural, printable, shown, too_large

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".pdf", ".heic", ".heif", ".avif", ".pgm", ".pbm", ".ppm", ".pnm"),
)
IN_MEMORY = "images from Python"  # the name of a source that is not a file
MAX_COUNTED_KINDS = 100  # if there are more kinds, the others are counted as `…`
URL = re.compile("[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class EmptyError(UsageError):
    """Raised for a SOURCE that can be read but has no image."""


class Entry(NamedTuple):
    """One image that is not read yet. `read` may raise `OSError` or `UnreadableImageError`."""

    id: str
    read: Callable[[], bytes]
    truth: str | None = None  # the label as it stands: it may be neither a digit nor a number


SourceItem: TypeAlias = Entry | pa.RecordBatch


class SkippedFiles(Counter[str]):
    """Counts of the files that a source skipped (hidden files, other types), by kind."""

    def skip(self, name: str, kind: str = "") -> None:
        """Count a skipped file, or another `kind` of entry, by its path in a folder or archive."""
        if is_hidden(name):
            kind = f"hidden {kind}".rstrip()
        elif not kind:
            ending = os.path.splitext(name.lower())[1] or "no ending"
            kind = INSPECT_SUFFIX if name.endswith(INSPECT_SUFFIX) else ending
        self[kind if kind in self or len(self) < MAX_COUNTED_KINDS else "…"] += 1

    def describe(self) -> str:
        """For example `3 other files (.txt, hidden)`, the commonest kinds first; "" for none."""
        if not self:
            return ""
        kinds = name_some([kind for kind, _ in self.most_common()])
        return f"{plural(self.total(), 'other file')} ({kinds})"


@dataclass
class TruthGaps:
    """What a source lacks in right answers, counted while its chunks are cut."""

    missing: int = 0  # images without a right answer
    invalid: int = 0  # images whose label is no digit, or no number where numbers are read
    invalid_label: str = ""  # the first such label
    missing_id: str = ""  # the id of the first image without a right answer
    unused: Mapping[str, str] = field(default_factory=dict)  # a table's answers without an image

    def count_missing(self, batch: pa.RecordBatch) -> None:
        """Count the images of a batch, with columns `id` and `truth`, without a right answer."""
        missing = batch.column("truth").is_null()
        if count := missing.true_count:
            self.missing_id = self.missing_id or batch.column("id").filter(missing)[0].as_py()
            self.missing += count


@dataclass
class Source:
    """A stream of images that is read once, from start to end."""

    name: str
    items: Iterable[SourceItem]
    has_truth: bool | None = False  # None if the first image shows it
    count: Callable[[], int | None] = lambda: None  # how many images; None if counting is slow
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    origin: Origin = Origin()
    gaps: TruthGaps = field(default_factory=TruthGaps)
    truths: dict[str, str] = field(default_factory=dict)  # right answers of a table, by id
    _taken: bool = field(default=False, init=False)

    def take(self) -> Iterable[SourceItem]:
        """The items. Raises `UsageError` the second time."""
        if self._taken:
            raise UsageError(f"{self.name} has been read: open it again for another job")
        self._taken = True
        return self.items


class UniqueIds:
    """Returns an id unchanged the first time, and with `#2`, `#3` … after that."""

    def __init__(self) -> None:
        self._seen: set[int] = set()  # hashes take less memory than ids
        self._times: dict[str, int] = {}

    def __call__(self, id: str) -> str:
        name = id
        while hash(name) in self._seen:
            times = self._times[id] = self._times.get(id, 1) + 1
            name = f"{id}#{times}"
        self._seen.add(hash(name))
        return name


@dataclass
class Naming:
    """How a SOURCE names and labels its images, and counts of the files that it skips."""

    prefix: str = ""
    unique: Callable[[str], str] = field(default_factory=UniqueIds)
    truth_from_parent: bool = False
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    folder: str = ""  # where the paths in a table begin, if it is copied from a store

    def entry(
        self, name: str, read: Callable[[], bytes], path: str = "", truth: str | None = None
    ) -> Entry:
        """An image with a unique id, and its label or that of `find_truth`."""
        id = self.prefix + self.unique(printable(name))
        return Entry(id, read, truth or self.find_truth(path))

    def find_truth(self, path: str) -> str | None:
        """With `truth_from_parent`, the name of the last folder in `path`, as in torchvision's
        `ImageFolder`; it may be no number."""
        return parent_name(printable(path)) if self.truth_from_parent else None

    def at_least_one(self, entries: Iterator[Entry], where: Path | str) -> Iterator[Entry]:
        """Yield the entries unchanged. Raises `EmptyError` if there are none."""
        first = next(entries, None)
        if first is None:
            if not self.skipped:
                raise EmptyError(f"no image in {where}: it has no files")
            raise EmptyError(
                f"no image in {where}, but {self.skipped.describe()}: images end in "
                f"{' '.join(IMAGE_SUFFIXES)}; give an archive, a table or a set of images in it as "
                "a SOURCE of its own"
            )
        return chain([first], entries)


def parent_name(path: str) -> str | None:
    """The name of the last folder in a path; None if it has none."""
    return posixpath.basename(posixpath.dirname(path)) or None


def unreadable(reason: str) -> Callable[[], bytes]:
    """A `read` for an entry without an image: it raises `UnreadableImageError`."""

    def read() -> bytes:
        raise UnreadableImageError(reason)

    return read


def read_limited(read: Callable[[int], bytes], size: int) -> bytes:
    """The bytes of a file of about `size` bytes; `read(n)` returns at most n, none at the end.
    Raises `UnreadableImageError` if there are more than `DIGITQ_IMAGE_BYTES`."""
    limit = settings().image_bytes
    content = read(size + 1) if size <= limit else b""  # allocating the limit is slow
    while size <= limit and len(content) != size and (more := read(limit + 1 - len(content))):
        content += more  # the file has grown, or `read` returns less than it was asked for
    if max(size, len(content)) > limit:
        raise UnreadableImageError(too_large(limit))
    return content


def read_file(path: str) -> bytes:
    """The bytes of a file, in four system calls; `open` would make twice as many. Raises `OSError`,
    or `UnreadableImageError` if it is too large or not a regular file."""
    status = stat_file(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_limited(partial(os.read, descriptor), status.st_size)
    finally:
        os.close(descriptor)


def open_file(path: str) -> IO[bytes]:
    """An open file. Raises `OSError`, or `UnreadableImageError` if it is not a regular file."""
    stat_file(path)
    return open(path, "rb")


def stat_file(path: str) -> os.stat_result:
    """Look at a file before it is opened, since opening a pipe or a device may block or have
    effects. Raises `OSError`, or `UnreadableImageError` if it is not a regular file."""
    status = os.stat(path)
    if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        raise UnreadableImageError("not a file, but a pipe, a socket or a device")
    return status


def refuse_url(path: str) -> None:
    """Raises `UsageError` if the path is a URL."""
    if URL.match(path):
        raise UsageError(f"{shown(path)} is a URL: download it and give the path of the file")


def take_first(items: Iterable[SourceItem], limit: int) -> Iterator[SourceItem]:
    """The items of the first `limit` images."""
    for item in items:
        if isinstance(item, pa.RecordBatch):
            item = item.slice(0, min(limit, item.num_rows))  # Arrow takes 64 bits at most
            limit -= item.num_rows
        else:
            limit -= 1
        yield item
        if limit == 0:
            return


def is_image_name(name: str) -> bool:
    """Whether a file of this name in a folder or an archive counts as an image."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    is_image = stem != "" and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES
    return is_image and not name.endswith(INSPECT_SUFFIX) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether the name of the file, or of a folder in its path, begins with a dot."""
    if not name.startswith(".") and "/." not in name:
        return False
    return any(part.startswith(".") and part not in ("..", ".") for part in name.split("/"))
