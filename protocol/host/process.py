"""The process itself: how it ends, what it imports, a stderr that never fails, and what malloc
keeps."""

import atexit
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

MALLOC_TRIM_BYTES = 64 << 20  # malloc keeps up to this much freed memory for the next chunk
MALLOC_MMAP_BYTES = 8 << 20  # it never keeps larger blocks, such as the pixels of a photo


def end_at_once() -> None:
    """Let Ctrl-C end this process silently, unless it ignores Ctrl-C, as after `&` in a script."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


class NoPandas:
    """A finder of modules, for `sys.meta_path`, that finds no pandas."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ImportError


def leave_pandas_out() -> None:
    """Have Arrow find no pandas. Arrow looks for it once, when it gets its first list, and would
    import it, which takes 0.3 s and is of no use in a command or a worker."""
    import pyarrow as pa

    sys.meta_path.insert(0, NoPandas)
    pa.array([])
    sys.meta_path.remove(NoPandas)  # others may look for pandas, as torch does


def run_without_waiting(main: Callable[[], object]) -> None:
    """Run the main function of a program, and let its `SystemExit` end the process at once.

    Python would wait for threads that still run: one of Flower's may be waiting for a lost Redis,
    and one in Arrow's code would make Python abort.
    """
    try:
        main()
    except SystemExit as end:
        if threading.active_count() > 1 and isinstance(end.code or 0, int):
            if "pyarrow.fs" in sys.modules:  # its exit handler waits for requests to S3
                atexit.unregister(vars(sys.modules["pyarrow.fs"]).get("ensure_s3_finalized", int))
            atexit._run_exitfuncs()
            os._exit(int(end.code or 0))
        raise


class Unfailing(io.FileIO):
    """A file that drops what it can't write, for example because the disk is full."""

    def write(self, content: Any) -> int:
        try:
            # None if another program has made the file non-blocking
            while (written := super().write(content)) is None:
                select.select([], [self], [])
        except OSError:
            return len(content)
        return written


def make_stderr_unfailing() -> None:
    """Have writes to stderr never raise. A closed stderr becomes `/dev/null`; otherwise the next
    file to be opened would become stderr."""
    if not sys.stderr:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.set_inheritable(2, True)
    elif sys.stderr is not sys.__stderr__:  # a test has replaced it
        return
    encoding = sys.stderr.encoding if sys.stderr else None
    file = io.BufferedWriter(Unfailing(2, "wb", closefd=False))
    sys.stderr = io.TextIOWrapper(file, encoding, "backslashreplace", line_buffering=True)
