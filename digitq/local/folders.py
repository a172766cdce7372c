"""The private folders of runs, in the system's folder for temporary files.

Each has a file that its owner has locked for as long as it lives. One that is not locked is left
over from a run that was killed.
"""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from protocol.errors import UsageError

PREFIX = "digitq-"
LOCK = "lock"
SOCKET = "redis.sock"
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103  # that the system takes
SHORT = Path("/tmp")


@contextmanager
def private_folder(within: Path | None = None) -> Iterator[Path]:
    """A new folder that only this user may read, by default in the system's folder; those that are
    left over are removed, as it is in the end."""
    try:
        within = within or Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise UsageError(f"{error.strerror}: set TMPDIR to a folder that can be written") from None
    remove_leftovers(within)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=within))
    try:
        with open(folder / f"new {LOCK}", "wb") as lock:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
                os.rename(lock.name, folder / LOCK)  # it is seen locked, or not at all
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def private_socket(folder: Path) -> Iterator[Path]:
    """A socket's path in a private folder; in another one where the system takes none so long, or
    no URL can name it (as where it isn't UTF-8). Raises `UsageError`."""
    path = folder / SOCKET
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES and str(path).isprintable():
        yield path
        return
    with ExitStack() as stack:
        try:
            short = stack.enter_context(private_folder(SHORT))
        except OSError as error:
            raise UsageError(
                f"no socket of Redis can be at {str(path)!r}, nor in {SHORT} ({error.strerror}): "
                "set TMPDIR to a shorter path"
            ) from None
        yield short / SOCKET


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
