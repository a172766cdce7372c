"""Files that a person or a form names: only regular ones are read, and only up to a limit."""

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

from digitq.protocol.errors import UsageError
from digitq.protocol.text import too_large


def open_regular(path: Path, limit: int) -> BinaryIO:
    """A regular file, open for reading: a pipe or a device may block, or have no end.

    Raises `OSError`, and `UsageError` if it is none or has more than `limit` bytes.
    """
    raw = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    file = io.BufferedReader(raw)
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
        return file
    file.close()
    if stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is {too_large(limit)}")
    raise UsageError(f"can't read {path}: it is a pipe or a device: write it to a file first")


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file. Raises as `open_regular`."""
    with open_regular(path, limit) as file:
        content = file.read(limit + 1)  # the files of `/proc` have more than their size says
    if len(content) > limit:
        raise UsageError(f"{path} is {too_large(limit)}")
    return content
