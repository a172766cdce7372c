"""A stderr that changes no exit status."""

import io
import os
import select
import sys
from typing import Any


class Unfailing(io.FileIO):
    """A file for which what it can't take goes nowhere, as where the disk of a log is full."""

    def write(self, content: Any) -> int:
        try:
            while (written := super().write(content)) is None:  # another program has set it so
                select.select([], [self], [])
        except OSError:
            return len(content)
        return written


def make_stderr_unfailing() -> None:
    """Whatever becomes of stderr, nothing is raised. Where it is closed, `/dev/null` takes its
    place: else a file that is opened would."""
    if not sys.stderr:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.set_inheritable(2, True)
    elif sys.stderr is not sys.__stderr__:  # a test's
        return
    encoding = sys.stderr.encoding if sys.stderr else None
    file = io.BufferedWriter(Unfailing(2, "wb", closefd=False))
    sys.stderr = io.TextIOWrapper(file, encoding, "backslashreplace", line_buffering=True)
