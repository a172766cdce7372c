"""What every command gives its caller: lines on stderr, and an exit status."""

from enum import IntEnum
from importlib.util import find_spec

import click

from digitq.protocol.errors import UsageError
from digitq.protocol.text import in_one_line

# The modules that digitq's extras bring
EXTRAS = {
    "worker": ("torch", "onnxruntime", "cv2"),
    "flower": ("flower",),
    "review": ("segno", "tomlkit", "tornado"),
}


class ExitStatus(IntEnum):
    """How a command ended, besides 0; a signal gives 128 and its number."""

    FAILED_ROWS = 1  # all rows are written, and some carry an error
    USAGE = 2  # an option or the input is wrong
    FAILED = 3  # Redis, the disk or a job failed
    INTERRUPTED = 130  # Ctrl-C


def find_missing(extra: str) -> str | None:
    """A module of one of digitq's extras that is not installed, if there is one."""
    return next((module for module in EXTRAS[extra] if find_spec(module) is None), None)


def require(extra: str) -> None:
    """Raises `UsageError` if a module of one of digitq's extras is not installed."""
    if module := find_missing(extra):
        raise UsageError(f"{module} is not installed: run `pip install 'digitq[{extra}]'`")


def echo_err(text: str) -> None:
    """Print lines for people on stderr, with the control characters in them escaped."""
    click.echo("\n".join(map(in_one_line, text.split("\n"))), err=True)
