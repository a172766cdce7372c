"""The time that one image may take."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from worker.decoding import ImageError

IMAGE_SECONDS = 10.0
LOOK_SECONDS = 1.0  # how often the time is looked at
LOST_SECONDS = 15.0  # of the processor's time without a word from Python, and all is lost


class Watch:
    """Ends what takes too long, with an `ImageError`, in a process's main thread.

    A decoder that never comes back to Python is beyond reach of that. So each look puts off the
    moment when the system ends the process; then the ledger finds out which image it was.
    """

    def __init__(self, seconds: float = IMAGE_SECONDS) -> None:
        self.seconds = seconds
        self._started: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Looks at the time as long as this lasts; elsewhere than in the main thread, never."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGALRM, self._look)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        every = min(LOOK_SECONDS, self.seconds / 4)
        signal.setitimer(signal.ITIMER_REAL, every, every)
        signal.setitimer(signal.ITIMER_PROF, LOST_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGALRM, before)

    @contextmanager
    def image(self) -> Iterator[None]:
        """Work on one image."""
        self._started = time.monotonic()
        try:
            yield
        finally:
            self._started = None

    def _look(self, number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, LOST_SECONDS)
        if self._started is not None and time.monotonic() - self._started > self.seconds:
            raise ImageError(f"takes longer than {self.seconds:g} s")
