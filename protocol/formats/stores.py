"""Stores: buckets, and single files at `https://`, as SOURCE and OUT."""

import re
import string
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import NamedTuple, TypeVar, cast
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.fs

from digitq.protocol.errors import StoreError, UsageError
from digitq.protocol.formats import UnreadableImageError, buckets
from digitq.protocol.formats.buckets import (
    BUCKET,
    NO_RIGHTS,
    StoreBusyError,
    open_bucket,
    patient,
    store_errors,
)
from digitq.protocol.text import shown, too_large

WEB = re.compile("https?://", re.IGNORECASE)
PART_BYTES = 8 << 20  # large objects are copied in parts of this size
T = TypeVar("T")


class Found(NamedTuple):
    """What is at a URL."""

    is_folder: bool
    size: int | None  # in bytes; None if that is not known before it is read
    modified: int | None  # in nanoseconds, if it is known


def is_stored(name: str) -> bool:
    """Whether it is the URL of something in a store."""
    return bool(BUCKET.match(name) or WEB.match(name))


def find_object(url: str) -> Found:
    """What is at the URL. Raises `UsageError` if there is nothing, or it can't be looked at."""
    try:
        if found := _look(url):
            return found
        raise FileNotFoundError
    except FileNotFoundError:
        raise UsageError(f"no such object or folder: {shown(url)}") from None
    except (PermissionError, StoreError) as error:
        raise UsageError(str(error)) from None
    except ValueError as error:
        raise UsageError(f"{shown(url)} is no URL: {error}") from None


def has_object(url: str) -> bool:
    """Whether an object is there; False if the credentials do not allow to look. Raises
    `UsageError`, also if there is no such bucket."""
    with suppress(PermissionError):
        try:
            found = _look(url)
        except StoreError as error:
            raise UsageError(str(error)) from None
        return found is not None and not found.is_folder
    return False


@patient
def _look(url: str) -> Found | None:
    """What is at the URL; None for nothing. Raises `UsageError` if there is no such bucket, and as
    `store_errors`."""
    if WEB.match(url):
        return _fetch(url, lambda answer: Found(False, answer.length, _date(answer)))
    with store_errors(url):
        files, path = open_bucket(url)
        info = files.get_file_info(path)
        if info.type == pa.fs.FileType.NotFound:
            bucket = path.partition("/")[0]
            with suppress(PermissionError), store_errors(url):
                if files.get_file_info(bucket).type == pa.fs.FileType.NotFound:
                    raise UsageError(f"{url}: there is no such bucket")
            return None
        return Found(info.type == pa.fs.FileType.Directory, info.size, info.mtime_ns)


@patient
def list_folder(url: str) -> dict[str, list[int | None]]:
    """What is in a folder, by name: the size of an object, None for a folder; a name may be both.
    A folder without a name, as in `a//b`, is "". Raises `StoreError`, or `PermissionError`."""
    found: dict[str, list[int | None]] = {}
    with store_errors(url):
        files, path = open_bucket(url)
        path = path.rstrip("/")
        # Arrow lists a Google folder only if an object has its name
        is_deep = isinstance(files, pa.fs.GcsFileSystem)
        for info in files.get_file_info(pa.fs.FileSelector(path, True, is_deep)):
            name, is_below, _ = info.path[len(path) + 1 :].partition("/")
            size = None if is_below else info.size
            if size not in (sizes := found.setdefault(name, [])):
                sizes.append(size)
    return found


@patient
def read_object(url: str, limit: int) -> bytes:
    """The bytes of an object. Raises `UnreadableImageError` if there are more than `limit`, or if
    it is gone or may not be read, and `StoreError` if the store fails."""

    def read(answer: HTTPResponse) -> bytes:
        if (answer.length or 0) <= limit and len(content := answer.read(limit + 1)) <= limit:
            if answer.length:
                raise IncompleteRead(content)
            return content
        raise UnreadableImageError(too_large(limit))

    try:
        if WEB.match(url):
            return _fetch(url, read)
        with store_errors(url):
            files, path = open_bucket(url)
            with files.open_input_file(path) as file:
                if file.size() <= limit:
                    return cast(bytes, file.read())
    except FileNotFoundError:
        raise UnreadableImageError("it is not in the store") from None
    except PermissionError:
        raise UnreadableImageError(NO_RIGHTS) from None
    raise UnreadableImageError(too_large(limit))


@patient
def download(url: str, path: Path) -> None:
    """Copy an object to the disk. Raises `UsageError` if the disk has no room, `StoreError`, and
    `FileNotFoundError` or `PermissionError`."""

    def save(read: Callable[[int], bytes]) -> None:
        with open(path, "wb") as file:
            while part := read(PART_BYTES):
                try:
                    file.write(part)
                    file.flush()
                except OSError as error:
                    where = f"{path.parent.parent}, the folder of TMPDIR"
                    raise UsageError(
                        f"can't copy {shown(url)} to {where}: {error.strerror}"
                    ) from None

    def save_answer(answer: HTTPResponse) -> None:
        save(answer.read)
        if answer.length:
            raise IncompleteRead(b"")

    if WEB.match(url):
        _fetch(url, save_answer)
        return
    with store_errors(url):
        files, key = open_bucket(url)
        before = _look(url)  # each part is a request of its own
        with files.open_input_stream(key) as stream:
            save(stream.read)
        if _look(url) != before:
            raise StoreBusyError(f"can't read {shown(url)}: it was written while it was read")


@patient
def upload(path: Path, url: str) -> None:
    """Copy a file to a bucket, where it appears when it is whole. Raises `StoreError`, and
    `PermissionError`."""
    with store_errors(url, "write"):
        files, key = open_bucket(url)
        with open(path, "rb") as file, files.open_output_stream(key) as stream:
            while part := file.read(PART_BYTES):
                stream.write(part)
        if files.get_file_info(key).size != path.stat().st_size:
            raise StoreError(f"can't write {shown(url)}: the store has other bytes of it")


@patient
def remove(url: str) -> None:
    """Remove an object, if it is there. Raises `StoreError`, and `PermissionError`."""
    with suppress(FileNotFoundError), store_errors(url, "write"):
        files, key = open_bucket(url)
        files.delete_file(key)


def _fetch(url: str, take: Callable[[HTTPResponse], T]) -> T:
    """What `take` gives of the answer to a request. Raises as `store_errors`."""
    if "@" in urlsplit(url).netloc:
        raise UsageError("a URL must not have a password")
    request = Request(quote(url, safe=string.punctuation), headers={"User-Agent": "digitq"})
    try:
        with urlopen(request, timeout=buckets.SILENT_SECONDS) as answer:
            return take(answer)
    except HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise FileNotFoundError(shown(url)) from None
        if error.code in (401, 403):
            raise PermissionError(f"can't read {shown(url)}: {NO_RIGHTS}") from None
        is_circle = error.code < 400
        reason = "it redirects without an end" if is_circle else f"HTTP status {error.code}"
        kind = StoreBusyError if error.code >= 500 or error.code == 429 else StoreError
    except (OSError, HTTPException) as error:
        reason, kind = str(getattr(error, "reason", None) or error), StoreBusyError
    raise kind(f"can't read {shown(url)}: {reason}")


def _date(answer: HTTPResponse) -> int | None:
    """When the file was changed last, in nanoseconds."""
    with suppress(TypeError, ValueError):
        return int(parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()) * 10**9
    return None
