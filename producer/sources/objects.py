"""What is in a store: a folder of images, or a single object, which is copied to the disk."""

import os
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import unquote, urlsplit

from digitq.producer.sources.documents import is_document_name, page_entries
from digitq.producer.sources.files import sort_naturally
from digitq.producer.sources.source import (
    URL,
    Entry,
    Naming,
    SkippedFiles,
    Source,
    is_image_name,
    read_file,
    unreadable,
)
from digitq.protocol.errors import StoreError, UsageError
from digitq.protocol.formats.buckets import BUCKET, IN_FLIGHT_REQUESTS, OBJECT
from digitq.protocol.formats.stores import (
    WEB,
    Found,
    download,
    is_stored,
    list_folder,
    read_object,
)
from digitq.protocol.settings import settings
from digitq.protocol.text import shown

MAX_AHEAD_BYTES = 256 << 20  # objects that are read before their turn take at most this much memory
LISTING_BYTES = 16 << 20  # the names in a folder are taken for this much
T = TypeVar("T")
Item = TypeVar("Item")


class Ahead(Generic[T]):
    """What a store answers, of about `size` bytes. It may be asked before the answer is needed."""

    def __init__(self, ask: Callable[[], T], size: int) -> None:
        self._ask, self.size = ask, size
        self._answer: Future[T] | None = None

    def start(self) -> None:
        self._answer = _threads(os.getpid()).submit(self._ask)

    def __call__(self) -> T:
        answer, self._answer = self._answer, None
        return answer.result() if answer else self._ask()


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """The threads of a process, which a fork of it does not have."""
    return ThreadPoolExecutor(IN_FLIGHT_REQUESTS, "store")


def start_ahead(items: Iterable[Item], find: Callable[[Item], object]) -> Iterator[Item]:
    """Yield the items unchanged. An `Ahead` that `find` gives is started before its turn."""
    waiting: deque[tuple[Item, int]] = deque()
    for item in items:
        if not isinstance(ahead := find(item), Ahead):
            yield from (first for first, _ in waiting)
            waiting.clear()
            yield item
            continue
        ahead.start()
        waiting.append((item, ahead.size))
        while len(waiting) >= IN_FLIGHT_REQUESTS or sum(s for _, s in waiting) > MAX_AHEAD_BYTES:
            yield waiting.popleft()[0]
    yield from (item for item, _ in waiting)


def read_ahead(url: str, size: int = 0) -> Ahead[bytes]:
    """A `read` for the object at a URL, which `read_items` starts before it is needed."""
    limit = settings().image_bytes
    return Ahead(partial(read_object, url, limit), min(size, limit))


def find_reader(path: str, folder: str = "") -> Callable[[], bytes]:
    """A `read` for an object in a bucket, or the file at a path in a folder, or else at the path
    itself. The folder may be in a store."""
    if OBJECT.match(path):
        return read_ahead(path)
    if BUCKET.match(path):
        return unreadable("it names no object, as s3://BUCKET/NAME does")
    if URL.match(path):
        return unreadable("a URL: download it and give the path of the file")
    if is_stored(folder):
        scheme, _, key = folder.partition("://")
        return read_ahead(f"{scheme}://{os.path.normpath(f'{key}/{path}')}")
    inside = os.path.join(folder, path)
    return lambda: read_file(inside if inside == path or os.path.lexists(inside) else path)


def path_entries(naming: Naming, path: str, whole: str = "") -> Iterator[Entry]:
    """The image at a path, which may be in a bucket, or one for each of its pages. `whole` is the
    path with all of its folders."""
    file = "" if is_stored(path) else path
    return page_entries(naming, path, find_reader(path), whole, file=file)


def paths_source(name: str, paths: Iterable[str], naming: Naming) -> Source:
    """One image for each path, whatever its name; the id is the path."""
    whole = os.path.abspath if naming.truth_from_parent else str
    entries = (entry for path in paths for entry in path_entries(naming, path, whole(path)))
    return Source(name, naming.at_least_one(entries, name), naming.truth_from_parent)


Listing = Ahead[dict[str, list[int | None]]]


def walk(
    url: str, skipped: SkippedFiles, below: str = "", listing: Listing | None = None
) -> Iterator[tuple[str, int]]:
    """The images below a folder in a store, in the order of `files.walk`: the path below `url`, and
    the size. The names of one folder are held at a time, and those of some that follow it.
    `listing` is what is in the folder `below`."""
    found = listing() if listing else list_folder(f"{url}/{below}")
    names = [*found]
    sort_naturally(names)

    def inside() -> Iterator[tuple[str, int | Listing]]:
        for name in names:
            for size in found.pop(name):
                if size is None and name and not name.startswith("."):
                    folder = f"{below}{name}/"
                    yield folder, Ahead(partial(list_folder, f"{url}/{folder}"), LISTING_BYTES)
                elif size is not None and is_image_name(name):
                    yield below + name, size
                else:
                    kind = "folder" if name else "folder without a name"
                    skipped.skip(name, kind if size is None else "")

    for path, what in start_ahead(inside(), lambda item: item[1]):
        if isinstance(what, Ahead):
            yield from walk(url, skipped, path, what)
        else:
            yield path, what


def objects_source(url: str, naming: Naming) -> Source:
    """The images below a folder in a store; an id is the path below the folder. Raises `UsageError`
    if there are none."""

    def reads() -> Iterator[tuple[str, Callable[[], bytes]]]:
        for path, size in walk(url, naming.skipped):
            yield path, read_ahead(f"{url}/{path}", size)

    def entries() -> Iterator[Entry]:
        started = start_ahead(reads(), lambda item: is_document_name(item[0]) and item[1])
        for path, read in started:
            if is_document_name(path):
                read = cache(read)  # to count its pages, and again if it has only one
            yield from page_entries(naming, path, read, f"{url}/{path}")

    return Source(url, naming.at_least_one(entries(), url), naming.truth_from_parent)


class Copy:
    """A copy of an object on the disk, which lives as long as it is used."""

    def __init__(self, url: str) -> None:
        folder = tempfile.mkdtemp(prefix="digitq_copy_")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        path = unquote(urlsplit(url).path) if WEB.match(url) else url
        self.path = Path(folder) / (path.rstrip("/").rpartition("/")[2] or "file")
        download(url, self.path)


copies: weakref.WeakValueDictionary[tuple[str, Found], Copy] = weakref.WeakValueDictionary()


def copy_object(url: str, found: Found) -> Copy:
    """The object on the disk. Raises `UsageError`."""
    try:
        copy = copies.get((url, found)) or Copy(url)
    except FileNotFoundError:
        raise UsageError(f"no such object or folder: {shown(url)}") from None
    except (PermissionError, StoreError) as error:
        raise UsageError(str(error)) from None
    return copies.setdefault((url, found), copy)
