"""Buckets at `s3://`, `gs://` and `az://`, by Arrow.

Arrow finds the credentials where the clouds' own tools do: in the environment, in a profile, or in
the role of the machine. digitq never sees them.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache, wraps
from threading import current_thread, main_thread
from typing import ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs

from digitq.protocol.errors import StoreError, UsageError
from digitq.protocol.host.thread import DaemonThread
from digitq.protocol.text import in_one_line, shown

P = ParamSpec("P")
T = TypeVar("T")
BUCKET = re.compile("(s3|gs|az)://", re.IGNORECASE)
OBJECT = re.compile(f"{BUCKET.pattern}[^/@:]+/.", re.IGNORECASE)
IN_FLIGHT_REQUESTS = 64  # this many run at once; Arrow makes two, one after the other, of a read
CONNECT_SECONDS = 5.0  # connecting to a store takes at most this long
SILENT_SECONDS = 10.0  # a request fails if nothing comes for this long
ATTEMPTS = 5  # Arrow makes a request that the network or the store fails this often, and so do we
RETRY_SECONDS = 0.5  # the longest pause before our second attempt; it doubles
GONE = "NO_SUCH_KEY|RESOURCE_NOT_FOUND|NOT_FOUND|BlobNotFound"
NOT_ALLOWED = (
    r"ACCESS_DENIED|INVALID_OBJECT_STATE|PERMISSION_DENIED"
    r"|(status|\]) 40[13]|DefaultAzureCredential|OAuth2 access token"
)
NO_RIGHTS = "no rights: the credentials do not allow it, or there are none"
OTHER_REGION = "the bucket is in another region, which AWS_REGION must name"
STORE_REASONS = {  # our words for what a regular expression finds in Arrow's
    "NO_SUCH_BUCKET|ContainerNotFound": "there is no such bucket",
    "configured region|status 301": OTHER_REGION,
    "redirects": "it redirects without an end",
    r"status 400\).*No response body": "it refuses the request: are AWS_REGION and the key right?",
    "x-amz-checksum": "the server lacks one of Amazon's checksums: set "
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
    "Timeout|too slow": f"it does not answer within {SILENT_SECONDS:.0f} seconds",
}
EXHAUSTED = "Retry policy exhausted"  # Google's library has tried for long enough
STORE_NOISE = (  # what is left out of Arrow's words; URLs may have a signature
    r"^.* operation: |No response body\.|Unable to parse ExceptionName: |\(Request ID.*|\?\S*"
    r"|curlCode: \d+, |; Details: .*|google::cloud::Status\(| error_info=.*"
    r"|.*with a last message of (PerformWork\(\) - CURL error \[\d+\]=)?"
    r"|^.*Azure Error: \[\w*\] |^.* failed: \w+: "
)


class StoreBusyError(StoreError):
    """Raised when a store fails for now: the same request may succeed after a pause."""


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
    pa.set_io_thread_count(max(pa.io_thread_count(), IN_FLIGHT_REQUESTS))
    if scheme == "s3":
        name = "AWS_ENDPOINT_URL_S3" if given("AWS_ENDPOINT_URL_S3") else "AWS_ENDPOINT_URL"
        protocol, _, host = (given(name) or "").rpartition("://")
        if host and protocol not in ("http", "https"):
            raise UsageError(f"{name} must begin with http:// or https://")
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
            # Amazon's standard strategy stops trying if many requests fail, as in a busy store
            retry_strategy=pa.fs.AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS),
        )
    if scheme == "gs":
        protocol, _, host = (given("STORAGE_EMULATOR_HOST") or "").rpartition("://")
        return pa.fs.GcsFileSystem(
            anonymous=bool(host),
            endpoint_override=host.rstrip("/") or None,
            scheme=protocol or ("http" if host else "https"),
            retry_time_limit=timedelta(seconds=ATTEMPTS * SILENT_SECONDS),
        )
    parts = (given("AZURE_STORAGE_CONNECTION_STRING") or "").split(";")
    named = dict(part.partition("=")[::2] for part in parts)
    if not (account := named.get("AccountName") or given("AZURE_STORAGE_ACCOUNT")):
        raise UsageError("az:// needs the name of the account in AZURE_STORAGE_ACCOUNT")
    key = named.get("AccountKey") or given("AZURE_STORAGE_KEY")
    sas = named.get("SharedAccessSignature") or given("AZURE_STORAGE_SAS_TOKEN") or ""
    default = f"https://{account}.blob.{named.get('EndpointSuffix', 'core.windows.net')}"
    server = urlsplit(named.get("BlobEndpoint", default))
    host = re.sub(rf"^{re.escape(account)}(?=\.)", "", server.netloc)  # Arrow adds the account
    return pa.fs.AzureFileSystem(
        account,
        account_key=key,
        sas_token=f"?{sas.removeprefix('?')}" if sas and not key else None,
        blob_storage_authority=host,
        blob_storage_scheme=server.scheme,
        dfs_storage_authority=host.replace(".blob.", ".dfs.", 1),
        dfs_storage_scheme=server.scheme,
    )


@contextmanager
def store_errors(url: str, doing: str = "read") -> Iterator[None]:
    """Raises Arrow's errors as `FileNotFoundError`, `PermissionError`, `StoreError` or
    `StoreBusyError`, in words without credentials."""
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
        if not (reason := re.sub(STORE_NOISE, "", text).strip()):
            reason = re.sub(r"UNKNOWN \((.*?)\).*| during .*", r"\1", text)
        kind = StoreError if re.search(EXHAUSTED, text) else StoreBusyError
        raise kind(f"{where}: {in_one_line(reason)}") from None


def patient(ask: Callable[P, T]) -> Callable[P, T]:
    """A function that asks a store `ATTEMPTS` times if it fails for now. Ctrl-C and SIGTERM end the
    wait for the answer: Arrow's code does not notice them, so the main thread has another one ask.
    """

    def ask_once(*args: P.args, **options: P.kwargs) -> T:
        if current_thread() is not main_thread():
            return ask(*args, **options)
        thread = DaemonThread("store")
        answer = thread.submit(ask, *args, **options)
        thread.shutdown(wait=False)
        return cast(T, answer.result())

    @wraps(ask)
    def ask_again(*args: P.args, **options: P.kwargs) -> T:
        for attempt in range(ATTEMPTS - 1):
            with suppress(StoreBusyError):
                return ask_once(*args, **options)
            # Threads that a store has refused together do not ask again together
            time.sleep(random.uniform(0.5, 1) * RETRY_SECONDS * 2**attempt)
        return ask_once(*args, **options)

    return ask_again
