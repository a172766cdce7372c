"""The time and memory that one image may take."""

import re
import resource
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from worker.pictures import TimeLimitError

IMAGE_SECONDS = 10.0  # of the processor's time that one image may take
CLOCK_SECONDS = 60.0  # by the clock, for one that waits and computes nothing
LOOK_SECONDS = 0.5  # how often the time is looked at
LOST_SECONDS = 15.0  # of the processor's time outside of Python, and the process is ended
MEMORY_BYTES = 2 << 30  # that reading images may take beyond what the process has


class Watch:
    """Ends work on an image that takes too long, with a `TimeLimitError`, in the main thread.

    It is the processor's time that counts, so that a busy machine changes no answer. It is sampled:
    the time between two looks counts for the image at hand at the later one, since asking for each
    image would take a tenth of a small one's. A decoder that never comes back to Python is beyond
    reach; so each look puts off the moment when the system ends the process, and then the ledger
    finds out which image it was.
    """

    def __init__(self, seconds: float = IMAGE_SECONDS) -> None:
        self.seconds = seconds
        self._every = min(LOOK_SECONDS, seconds / 4)
        self.image: int | None = None  # the one at hand; none between two
        self._looked = 0.0  # when, of the processor's time
        self._work: defaultdict[int, float] = defaultdict(float)  # seconds, by image
        self._looks: Counter[int] = Counter()  # that found it at hand

    def forget(self) -> None:
        """Other images have the numbers now."""
        self._work.clear()
        self._looks.clear()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Looks at the time as long as this lasts; elsewhere than in the main thread, never."""
        if not is_main_thread():
            yield
            return
        self.image, self._looked = None, time.process_time()
        look = signal.signal(signal.SIGALRM, self._look)
        lost = signal.signal(signal.SIGPROF, signal.SIG_DFL)  # billiard's would only raise
        alarm = signal.setitimer(signal.ITIMER_REAL, self._every, self._every)
        profile = signal.setitimer(signal.ITIMER_PROF, LOST_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGALRM, look or signal.SIG_DFL)
            signal.signal(signal.SIGPROF, lost or signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, *alarm)
            signal.setitimer(signal.ITIMER_PROF, *profile)

    @contextmanager
    def on(self, image: int | None) -> Iterator[None]:
        """What is done within is work on an image, one turn of perhaps many; or on none."""
        before, self.image = self.image, image
        try:
            yield
        finally:
            self.image = before

    def _look(self, number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, LOST_SECONDS)
        now = time.process_time()
        passed, self._looked = now - self._looked, now
        image = self.image
        if image is None:
            return
        self._work[image] += passed
        self._looks[image] += 1  # not the clock's time: the process may have been stopped meanwhile
        waited = self._looks[image] * self._every
        if self._work[image] > self.seconds or waited > CLOCK_SECONDS:
            raise TimeLimitError(f"takes longer than {self.seconds:g} s")


def is_main_thread() -> bool:
    """Whether what is set for a process may be set here: no other thread sets it too."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def limited_memory() -> Iterator[None]:
    """A decoder that asks for too much gets a `MemoryError`; on Linux, in the main thread."""
    if sys.platform != "linux" or not is_main_thread():
        yield
        return
    used = 0
    with suppress(OSError):  # where /proc is not mounted
        found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
        used = 1024 * int(found[1] if found else 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_BYTES + used
    if limit < (soft % (1 << 64)):  # unlimited is -1
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
