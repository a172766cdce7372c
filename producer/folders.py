"""The private folders of runs, in the system's folder for temporary files.

Each has a file that its owner has locked for as long as it lives. One that is not locked is left
over from a run that was killed.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "digitq-"
LOCK = "lock"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder that only this user may read; those that are left over are removed, as it is in
    the end."""
    remove_leftovers(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with open(folder / f"new {LOCK}", "wb") as lock:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
                os.rename(lock.name, folder / LOCK)  # it is seen locked, or not at all
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove this user's private folders in a folder whose owners are gone."""
    for left in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it has no lock, or it is locked
            if left.lstat().st_uid != os.getuid():
                continue
            descriptor = os.open(left / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)
