"""Results outside Redis: with `DIGITQ_RESULTS`, workers write the results of submitted jobs into a
folder that they share with those who collect. Redis keeps the name and the size of each.

A result is the file `DEPLOYMENT/JOB/CHUNK-RANDOM.arrow`. Each attempt at a chunk writes a file of
its own, so that no worker can change the one that the ledger has chosen. Those that it has not
chosen are removed together with the others of their job.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from pyarrow import fs

from protocol.broker.connection import Payload
from protocol.errors import BrokerError, ResultsExpiredError, UsageError
from protocol.ledger import Ledger
from protocol.settings import settings


def write_result(ledger: Ledger, job_id: str, number: int, payload: Payload) -> bytes:
    """Write the result of a chunk. Returns the entry that Redis keeps. Raises `BrokerError`."""
    folder = f"{ledger.deployment()}/{job_id}"
    name = f"{folder}/{number:06}-{secrets.token_hex(4)}.arrow"
    with broker_errors():
        files, base = open_folder()
        files.create_dir(f"{base}/{folder}")
        with files.open_output_stream(f"{base}/{name}") as file:
            file.write(payload)
    return json.dumps({"name": name, "size": len(payload)}).encode()


def is_outside(payload: bytes) -> bool:
    """Whether it is an entry of `write_result`, and not a result itself."""
    return payload.startswith(b"{")


def read_result(entry: bytes) -> bytes:
    """The result that `write_result` wrote. Raises `ResultsExpiredError` if it is not there or is
    cut off, `UsageError` if `DIGITQ_RESULTS` is not set, and `BrokerError`."""
    about = json.loads(entry)
    files, base = open_folder()
    content = b""
    with broker_errors():
        try:
            with files.open_input_stream(f"{base}/{about['name']}") as file:
                content = file.read()
        except FileNotFoundError:
            pass
    if len(content) != about["size"]:
        what = "is cut off" if content else "is not there"
        raise ResultsExpiredError(f"the result {base}/{about['name']} {what}: submit the job again")
    return content


def remove_unneeded(ledger: Ledger) -> None:
    """Remove the results of jobs that have expired, or were cancelled or have failed. Raises
    `BrokerError`."""
    with broker_errors():
        files, base = open_folder()
        selector = fs.FileSelector(f"{base}/{ledger.deployment()}", allow_not_found=True)
        for folder in files.get_file_info(selector):
            if not ledger.has_results(folder.base_name):
                files.delete_dir(folder.path)


def open_folder() -> tuple[fs.FileSystem, str]:
    """The folder of `DIGITQ_RESULTS`. Raises `UsageError` if it is not set."""
    if (base := settings().results_folder()) is None:
        raise UsageError(
            "these results are not in Redis: set DIGITQ_RESULTS as the workers have it"
        )
    return fs.LocalFileSystem(), base


@contextmanager
def broker_errors() -> Iterator[None]:
    """Raise `BrokerError` for an error of the folder, which may come back, as Redis may."""
    try:
        yield
    except (OSError, UsageError) as error:
        raise BrokerError(f"the results outside Redis can't be used: {error}") from None
