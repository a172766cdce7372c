"""The process itself: Ctrl-C, a stderr that never fails, the memory that it keeps."""

import io
import os
import select
import signal
import sys
from typing import Any

MALLOC_TRIM_BYTES = 64 << 20  # of freed memory a process keeps, in blocks of up to
MALLOC_MMAP_BYTES = 8 << 20  # a whole chunk and more; not the pixels of a large photo


def end_at_once() -> None:
    """Let Ctrl-C end this process without a word, unless it is ignored, as in a script's `&`."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


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
