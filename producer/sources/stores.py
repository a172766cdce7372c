"""Stores: buckets at `s3://`, `gs://` and `az://`, and single files at `https://`.

Arrow finds the credentials where the clouds' own tools do: in the environment, in a profile, or in
the role of the machine. digitq never sees them.
"""

import os
import re
import string
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import NamedTuple, TypeVar, cast
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.fs

from producer.sources.source import UnreadableImageError
from protocol.errors import StoreError, UsageError
from protocol.text import in_one_line, shown, too_large

BUCKET = re.compile("(s3|gs|az)://", re.IGNORECASE)
WEB = re.compile("https?://", re.IGNORECASE)
IN_FLIGHT_REQUESTS = 64  # this many run at once; Arrow makes two, one after the other, of a read
CONNECT_SECONDS = 5.0  # connecting to a store takes at most this long
SILENT_SECONDS = 10.0  # a request fails if nothing comes for this long
ATTEMPTS = 5  # a request that the network or the store fails is made this often
RETRY_SECONDS = 0.5  # the wait before the second attempt at a file on the web; it doubles
PART_BYTES = 8 << 20  # large objects are copied in parts of this size
GONE = "NO_SUCH_KEY|RESOURCE_NOT_FOUND|NOT_FOUND|BlobNotFound"
NOT_ALLOWED = (
    "ACCESS_DENIED|INVALID_OBJECT_STATE|PERMISSION_DENIED|AuthorizationFailure|status 40[13]"
)
NO_RIGHTS = "no rights: the credentials do not allow it, or there are none"
OTHER_REGION = "the bucket is in another region, which AWS_REGION must name"
STORE_REASONS = {  # our words for what a regular expression finds in Arrow's
    "NO_SUCH_BUCKET|ContainerNotFound": "there is no such bucket",
    "configured region|status 301": OTHER_REGION,
    "redirects": "it redirects without an end",
    "Timeout|too slow": f"it does not answer within {SILENT_SECONDS:.0f} seconds",
}
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
        if WEB.match(url):
            return _fetch(url, lambda answer: Found(False, answer.length, _date(answer)))
        with _store_errors(url):
            files, path = open_bucket(url)
            info = files.get_file_info(path)
            if info.type == pa.fs.FileType.NotFound and not exists(url):
                raise FileNotFoundError
            return Found(info.type == pa.fs.FileType.Directory, info.size, info.mtime_ns)
    except FileNotFoundError:
        raise UsageError(f"no such object or folder: {shown(url)}") from None
    except (PermissionError, StoreError) as error:
        raise UsageError(str(error)) from None


def exists(url: str) -> bool:
    """Whether an object is there, as far as one may know. Raises `StoreError`, also if there is no
    such bucket."""
    with suppress(PermissionError), _store_errors(url):
        files, path = open_bucket(url)
        info = files.get_file_info(path)
        if info.type != pa.fs.FileType.NotFound:
            return bool(info.type == pa.fs.FileType.File)
        if files.get_file_info(path.partition("/")[0]).type == pa.fs.FileType.NotFound:
            raise StoreError(f"{url}: there is no such bucket")
    return False


def list_folder(url: str) -> dict[str, list[int | None]]:
    """What is in a folder, by name: the size of an object, None for a folder; a name may be both.
    A folder without a name, as in `a//b`, is "". Raises `StoreError`, or `PermissionError`."""
    found: dict[str, list[int | None]] = {}
    with _store_errors(url):
        files, path = open_bucket(url)
        path = path.rstrip("/")
        # Of the folders in Google's buckets, Arrow lists only those that are objects
        is_deep = isinstance(files, pa.fs.GcsFileSystem)
        for info in files.get_file_info(pa.fs.FileSelector(path, True, is_deep)):
            name, is_below, _ = info.path[len(path) + 1 :].partition("/")
            size = None if is_below else info.size
            if size not in (sizes := found.setdefault(name, [])):
                sizes.append(size)
    return found


def read_object(url: str, limit: int) -> bytes:
    """The bytes of an object. Raises `UnreadableImageError` if there are more than `limit`, or if
    it is gone or may not be read, and `StoreError` if the store fails."""

    def read(answer: HTTPResponse) -> bytes:
        content = b"" if (answer.length or 0) > limit else answer.read(limit + 1)
        if content and answer.length and len(content) <= limit:
            raise IncompleteRead(content)
        if answer.length or len(content) > limit:
            raise UnreadableImageError(too_large(limit))
        return content

    try:
        if WEB.match(url):
            return _fetch(url, read)
        with _store_errors(url):
            files, path = open_bucket(url)
            with files.open_input_file(path) as file:
                if file.size() <= limit:
                    return cast(bytes, file.read())
    except FileNotFoundError:
        raise UnreadableImageError("it is not in the store any more") from None
    except PermissionError:
        raise UnreadableImageError(NO_RIGHTS) from None
    raise UnreadableImageError(too_large(limit))


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
    with _store_errors(url):
        files, key = open_bucket(url)
        with files.open_input_stream(key) as stream:
            save(stream.read)


def upload(path: Path, url: str) -> None:
    """Copy a file to a bucket, where it appears when it is whole. Raises `StoreError`, and
    `PermissionError`."""
    with _store_errors(url, "write"):
        files, key = open_bucket(url)
        with open(path, "rb") as file, files.open_output_stream(key) as stream:
            while part := file.read(PART_BYTES):
                stream.write(part)
        if files.get_file_info(key).size != path.stat().st_size:
            raise StoreError(f"can't write {shown(url)}: the store has other bytes of it")


def remove(url: str) -> None:
    """Remove an object, if it is there. Raises `StoreError`, and `PermissionError`."""
    with suppress(FileNotFoundError), _store_errors(url, "write"):
        files, key = open_bucket(url)
        files.delete_file(key)


def open_bucket(url: str) -> tuple[pa.fs.FileSystem, str]:
    """Arrow's file system of a bucket, and the path of an object, which begins with the bucket's
    name. Raises `UsageError` if the URL names no bucket, or has a password."""
    scheme, _, path = url.partition("://")
    bucket = path.partition("/")[0]
    if "@" in bucket or ":" in bucket:
        raise UsageError(
            f"a {scheme}:// URL must not have a password or a host: digitq takes credentials from "
            "where the tools of the cloud have them"
        )
    if not bucket:
        raise UsageError(f"{url} names no bucket: it must be {scheme}://BUCKET/NAME")
    return _connect(scheme.lower(), bucket, os.getpid()), path


@cache
def _connect(scheme: str, bucket: str, process: int) -> pa.fs.FileSystem:
    """A connection serves all threads of a process, but not a fork of it."""
    given = os.environ.get
    pa.set_io_thread_count(max(pa.io_thread_count(), IN_FLIGHT_REQUESTS))  # and connections
    if scheme == "s3":
        protocol, _, host = (
            given("AWS_ENDPOINT_URL_S3") or given("AWS_ENDPOINT_URL") or ""
        ).rpartition("://")
        region = given("AWS_REGION") or given("AWS_DEFAULT_REGION")
        if not region and not host:
            with suppress(OSError):
                region = pa.fs.resolve_s3_region(bucket)
        return pa.fs.S3FileSystem(
            region=region,
            endpoint_override=host.rstrip("/") or None,
            scheme=protocol or "https",
            connect_timeout=CONNECT_SECONDS,
            request_timeout=SILENT_SECONDS,
            retry_strategy=pa.fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        )
    if scheme == "gs":
        protocol, _, host = (given("STORAGE_EMULATOR_HOST") or "").rpartition("://")
        return pa.fs.GcsFileSystem(
            anonymous=bool(host),
            endpoint_override=host.rstrip("/") or None,
            scheme=protocol or ("http" if host else "https"),
            retry_time_limit=timedelta(seconds=ATTEMPTS * SILENT_SECONDS),
        )
    if not (account := given("AZURE_STORAGE_ACCOUNT")):
        raise UsageError("az:// needs the name of the account in AZURE_STORAGE_ACCOUNT")
    return pa.fs.AzureFileSystem(
        account,
        account_key=given("AZURE_STORAGE_KEY"),
        sas_token=None if given("AZURE_STORAGE_KEY") else given("AZURE_STORAGE_SAS_TOKEN"),
    )


@contextmanager
def _store_errors(url: str, doing: str = "read") -> Iterator[None]:
    """Raises Arrow's errors as `FileNotFoundError`, `PermissionError` or `StoreError`, in words
    without credentials."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        text = str(error).partition("\n")[0]
        text = text.partition("AWS Error ")[2] or re.sub("'[^']*'", "", text)  # without names
        if re.search(GONE, text):
            raise FileNotFoundError(shown(url)) from None
        where = f"can't {doing} {shown(url)}"
        if re.search(NOT_ALLOWED, text):
            raise PermissionError(f"{where}: {NO_RIGHTS}") from None
        for pattern, words in STORE_REASONS.items():
            if re.search(pattern, text):
                raise StoreError(f"{where}: {words}") from None
        if (status := re.search(r"HTTP status \d+", text)) and "No response body" in text:
            raise StoreError(f"{where}: {status[0]}") from None
        noise = r"^.* operation: |\(Request ID.*|\?\S*|google::cloud::Status\(| error_info=.*"
        reason = re.sub(noise, "", text).strip()
        raise StoreError(f"{where}: {in_one_line(reason)}") from None


def _fetch(url: str, take: Callable[[HTTPResponse], T]) -> T:
    """What `take` gives of the answer to a request. Raises as `_store_errors`."""
    if "@" in urlsplit(url).netloc:
        raise UsageError("a URL must not have a password")
    request = Request(quote(url, safe=string.punctuation), headers={"User-Agent": "digitq"})
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(RETRY_SECONDS * 2 ** (attempt - 1))
        try:
            with urlopen(request, timeout=SILENT_SECONDS) as answer:
                return take(answer)
        except HTTPError as error:
            error.close()
            if error.code in (404, 410):
                raise FileNotFoundError(shown(url)) from None
            if error.code in (401, 403):
                raise PermissionError(f"can't read {shown(url)}: {NO_RIGHTS}") from None
            is_circle = error.code < 400
            reason = "it redirects without an end" if is_circle else f"HTTP status {error.code}"
            if error.code < 500 and error.code != 429:
                break
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error)
    raise StoreError(f"can't read {shown(url)}: {reason}")


def _date(answer: HTTPResponse) -> int | None:
    """When the file was changed last, in nanoseconds."""
    with suppress(TypeError, ValueError):
        return int(parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()) * 10**9
    return None
