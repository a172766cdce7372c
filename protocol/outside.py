"""Results outside Redis: with `DIGITQ_RESULTS`, workers write the results of submitted jobs into a
folder or a bucket that they share with those who collect. Redis keeps the name and the size of
each.

A result is the file `DEPLOYMENT/JOB/CHUNK-RANDOM.arrow`. Each attempt at a chunk writes a file of
its own, so that no worker can change the one that the ledger has chosen. Those that it has not
chosen are removed together with the others of their job. `DEPLOYMENT` is made once for a Redis: a
host where it is missing has not mounted the folder, and its results would be lost.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyarrow import fs

from protocol.broker.connection import Payload
from protocol.buckets import BUCKET, exists, open_bucket, store_errors
from protocol.errors import BrokerError, ResultsExpiredError, StoreError, UsageError
from protocol.ledger import Ledger
from protocol.settings import settings


def write_result(ledger: Ledger, job_id: str, number: int, payload: Payload) -> bytes:
    """Write the result of a chunk. Returns the entry that Redis keeps. Raises `BrokerError`."""
    with broker_errors("write"):
        files, base = open_folder()
        name = f"{find_deployment(ledger)}/{job_id}/{number:06}-{secrets.token_hex(4)}.arrow"
        path = f"{base}/{name}"
        if is_local := isinstance(files, fs.LocalFileSystem):  # a bucket needs no folders
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with files.open_output_stream(path) as file:
            file.write(payload)
        if is_local:  # Redis may outlive a power cut, and has only the name
            with open(path, "rb") as written:
                os.fsync(written.fileno())
    return json.dumps({"name": name, "size": len(payload)}).encode()


def are_results_outside() -> bool:
    """Whether `DIGITQ_RESULTS` is set. Raises `UsageError` if its folder or bucket is not there."""
    if (base := settings().results_folder()) and BUCKET.match(base):
        exists(base)
    return base is not None


def is_outside(payload: bytes) -> bool:
    """Whether it is an entry of `write_result`, and not a result itself."""
    return payload.startswith(b"{")


def read_result(entry: bytes) -> bytes:
    """The result that `write_result` wrote. Raises `ResultsExpiredError` if it is not there or is
    cut off, `UsageError` if `DIGITQ_RESULTS` is not set, and `BrokerError`."""
    about = json.loads(entry)
    files, base = open_folder()
    path, content = f"{base}/{about['name']}", b""
    with broker_errors("read"), suppress(FileNotFoundError), store_errors(base):
        stream = files.open_input_stream(path)
        with stream:
            content = stream.read()
    if len(content) != about["size"]:
        what = "is cut off" if content else "is not there"
        raise ResultsExpiredError(
            f"the result {path} {what}: mount its folder, or submit the job again"
        )
    return content


def remove_unneeded(ledger: Ledger) -> None:
    """Remove the results of jobs that have expired, or were cancelled or have failed. Raises
    `BrokerError`."""
    with broker_errors("remove"):
        files, base = open_folder()
        root = f"{base}/{find_deployment(ledger)}"
        # Of the folders in Google's buckets, Arrow lists only those that are objects
        is_deep = isinstance(files, fs.GcsFileSystem)
        found = files.get_file_info(fs.FileSelector(root, True, is_deep))
        for job_id in {info.path[len(root) + 1 :].partition("/")[0] for info in found}:
            if not ledger.has_results(job_id):
                with suppress(FileNotFoundError):  # another worker removes it too
                    files.delete_dir(f"{root}/{job_id}")


def find_deployment(ledger: Ledger) -> str:
    """The name of the folder of this Redis. One that is new, or has lost everything, gets another.

    Raises `UsageError` if the folder is not there, and not in a bucket.
    """
    files, base = open_folder()
    is_local = isinstance(files, fs.LocalFileSystem)
    if not (name := ledger.deployment()):
        new = secrets.token_hex(6)
        if is_local:
            os.mkdir(f"{base}/{new}")
        name = ledger.deployment(new)
    if is_local and not os.path.isdir(f"{base}/{name}"):
        raise UsageError(f"{base}/{name} is not there: is DIGITQ_RESULTS mounted?")
    return name


def open_folder() -> tuple[fs.FileSystem, str]:
    """The folder of `DIGITQ_RESULTS` in its file system. Raises `UsageError` if it is not set."""
    if (base := settings().results_folder()) is None:
        raise UsageError(
            "these results are not in Redis: set DIGITQ_RESULTS as the workers have it"
        )
    return open_bucket(base) if BUCKET.match(base) else (fs.LocalFileSystem(), base)


@contextmanager
def broker_errors(doing: str) -> Iterator[None]:
    """Raise `BrokerError` for an error of the folder, which may come back, as Redis may."""
    try:
        with store_errors("the folder of DIGITQ_RESULTS", doing):
            yield
    except (OSError, UsageError, StoreError) as error:
        raise BrokerError(str(error)) from None
