"""Results outside Redis: with `DIGITQ_RESULTS`, workers write the results of submitted jobs into a
folder that they share with those who collect. Redis keeps the name and the size of each.

A result is the file `DEPLOYMENT/JOB/CHUNK-RANDOM.arrow`. Each attempt at a chunk writes a file of
its own, so that no worker can change the one that the ledger has chosen. Those that it has not
chosen are removed together with the others of their job. `DEPLOYMENT` is made once for a Redis: a
host where it is missing has not mounted the folder, and its results would be lost.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from protocol.broker.connection import Payload
from protocol.errors import BrokerError, ResultsExpiredError, UsageError
from protocol.ledger import Ledger
from protocol.settings import settings


def write_result(ledger: Ledger, job_id: str, number: int, payload: Payload) -> bytes:
    """Write the result of a chunk. Returns the entry that Redis keeps. Raises `BrokerError`."""
    with broker_errors():
        folder = deployment_folder(ledger)
        path = folder / job_id / f"{number:06}-{secrets.token_hex(4)}.arrow"
        path.parent.mkdir(exist_ok=True)
        with open(path, "xb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())  # Redis may outlive a power cut, and has only the name
    name = f"{folder.name}/{job_id}/{path.name}"
    return json.dumps({"name": name, "size": len(payload)}).encode()


def is_outside(payload: bytes) -> bool:
    """Whether it is an entry of `write_result`, and not a result itself."""
    return payload.startswith(b"{")


def read_result(entry: bytes) -> bytes:
    """The result that `write_result` wrote. Raises `ResultsExpiredError` if it is not there or is
    cut off, `UsageError` if `DIGITQ_RESULTS` is not set, and `BrokerError`."""
    about = json.loads(entry)
    path, content = results_folder() / about["name"], b""
    with broker_errors(), suppress(FileNotFoundError):
        content = path.read_bytes()
    if len(content) != about["size"]:
        what = "is cut off" if content else "is not there"
        raise ResultsExpiredError(
            f"the result {path} {what}: mount its folder, or submit the job again"
        )
    return content


def remove_unneeded(ledger: Ledger) -> None:
    """Remove the results of jobs that have expired, or were cancelled or have failed. Raises
    `BrokerError`."""
    with broker_errors():
        for folder in deployment_folder(ledger).iterdir():
            if not ledger.has_results(folder.name):
                with suppress(FileNotFoundError):  # another worker removes it too
                    shutil.rmtree(folder)


def deployment_folder(ledger: Ledger) -> Path:
    """The folder of all results of this Redis. A Redis that is new, or has lost everything, gets a
    new one."""
    base = results_folder()
    if not (name := ledger.deployment()):
        new = base / secrets.token_hex(6)
        new.mkdir()
        name = ledger.deployment(new.name)
    if not (base / name).is_dir():
        raise UsageError(f"{base / name} is not there: is DIGITQ_RESULTS mounted?")
    return base / name


def results_folder() -> Path:
    """The folder of `DIGITQ_RESULTS`. Raises `UsageError` if it is not set."""
    if (folder := settings().results_folder()) is None:
        raise UsageError(
            "these results are not in Redis: set DIGITQ_RESULTS as the workers have it"
        )
    return folder


@contextmanager
def broker_errors() -> Iterator[None]:
    """Raise `BrokerError` for an error of the folder, which may come back, as Redis may."""
    try:
        yield
    except (OSError, UsageError) as error:
        raise BrokerError(f"the results outside Redis can't be used: {error}") from None
