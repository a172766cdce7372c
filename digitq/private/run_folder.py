"""The private folder of one run: logs, and the socket of its Redis."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from digitq.protocol.errors import UsageError

# A Unix socket's path has at most 103 bytes on macOS, and /digitq-xxxxxxxx/redis.sock takes 27
MAX_PARENT_BYTES = 76
LOCK = "lock"  # a file that a run keeps locked as long as it lives
SHORT_PARENT = "/tmp"  # used where the system's folder for temporary files has too long a path


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder for temporary files that only this user can read, removed at the end. Those of
    killed runs are removed, too.

    Its path is short enough for a Unix socket and can be part of a URL. Raises `UsageError`.
    """
    try:
        parent = tempfile.gettempdir()
        if len(os.fsencode(parent)) > MAX_PARENT_BYTES or not parent.isprintable():
            parent = SHORT_PARENT
        remove_leftovers(Path(parent))
        name, pid = tempfile.mkdtemp(None, "digitq-", parent), os.getpid()
    except OSError as error:
        raise UsageError(
            f"can't make a temporary folder ({error.strerror}): "
            "set TMPDIR to a folder that can be written, with a short path"
        ) from None
    try:
        with open(f"{name}/new lock", "wb") as lock:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
                os.rename(lock.name, f"{name}/{LOCK}")  # others see it locked, or not at all
            yield Path(name)
    finally:
        if os.getpid() == pid:  # a fork does not have it removed
            shutil.rmtree(name, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Remove this user's private folders whose runs were killed: nobody holds their locks."""
    for left in parent.glob("digitq-*"):
        with suppress(OSError):  # it has no lock, or the lock is held
            if left.lstat().st_uid != os.getuid():
                continue
            lock = os.open(left / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
