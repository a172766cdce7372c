"""The private folder of one run: logs, and the socket of its Redis."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.errors import UsageError

# A Unix socket's path has at most 103 bytes on macOS, and /digitq-xxxxxxxx/redis.sock takes 27
MAX_PARENT_BYTES = 76
SHORT_PARENT = "/tmp"  # used where the system's folder for temporary files has too long a path


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder for temporary files that only this user can read, removed at the end.

    Its path is short enough for a Unix socket and can be part of a URL. Raises `UsageError`.
    """
    try:
        parent = tempfile.gettempdir()
        if len(os.fsencode(parent)) > MAX_PARENT_BYTES or not parent.isprintable():
            parent = SHORT_PARENT
        folder = tempfile.TemporaryDirectory(None, "digitq-", parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise UsageError(
            f"can't make a temporary folder ({error.strerror}): "
            "set TMPDIR to a folder that can be written, with a short path"
        ) from None
    with folder as name:
        yield Path(name)
