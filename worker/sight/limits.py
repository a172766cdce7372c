"""Limits the time and the memory that one image may take."""

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

from digitq.worker.picture import TimeLimitError

MAX_CPU_SECONDS = 10.0  # the processor time that one image may take
MAX_CLOCK_SECONDS = 60.0  # the wall-clock time that one image may take, waiting included
SAMPLE_SECONDS = 0.5  # the time is sampled this often
LOST_SECONDS = 15.0  # a decoder that computes this long without a return ends the process
MAX_MEMORY_BYTES = 2 << 30  # images may take this much more than the process already has


class Watch:
    """Raises `TimeLimitError` in the main thread while an image is read that takes too long.

    Processor time counts, so that a busy machine changes no answer. A timer samples it, and the
    time between two samples counts for the image being read at the later one: measuring each image
    would take a tenth of a small one's time. A decoder that does not return to Python can't be
    interrupted. So each sample postpones a second timer, which ends the process; the ledger then
    finds out which image it was.
    """

    def __init__(self, seconds: float = MAX_CPU_SECONDS) -> None:
        self.seconds = seconds
        self._every = min(SAMPLE_SECONDS, seconds / 4)
        self.image: int | None = None  # the number of the image that is being read
        self.clock, self.lost_seconds = time.process_time, LOST_SECONDS
        self._sampled = 0.0  # the processor time at the last sample
        self.forget()

    def spare_process(self) -> None:
        """From now on, limit only the time, by that of this thread: the process is not a worker's,
        and may compute in other threads. It is not ended, nor is its memory limited."""
        self.clock, self.lost_seconds = time.thread_time, 0.0

    def forget(self) -> None:
        """Start to count from 0, since the numbers now stand for other images."""
        self._work: defaultdict[int, float] = defaultdict(float)  # seconds by image
        self._samples: Counter[int] = Counter()  # how many samples found this image being read

    @contextmanager
    def running(self) -> Iterator[None]:
        """Limit time and memory within this context, but only in the main thread."""
        if threading.current_thread() is not threading.main_thread():  # others have no signals
            yield
            return
        self.image, self._sampled = None, self.clock()
        memory = resource.getrlimit(resource.RLIMIT_DATA)
        sample = signal.signal(signal.SIGALRM, self._sample)
        lost = signal.signal(signal.SIGPROF, signal.SIG_DFL)  # billiard's handler would only raise
        alarm = signal.setitimer(signal.ITIMER_REAL, self._every, self._every)
        profile = signal.setitimer(signal.ITIMER_PROF, self.lost_seconds)
        try:
            if self.lost_seconds:
                limit_memory(*memory)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGALRM, sample or signal.SIG_DFL)
            signal.signal(signal.SIGPROF, lost or signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, *alarm)
            signal.setitimer(signal.ITIMER_PROF, *profile)
            if sys.platform == "linux":
                resource.setrlimit(resource.RLIMIT_DATA, memory)

    @contextmanager
    def on(self, image: int | None) -> Iterator[None]:
        """Count the time within this context for an image, or for none."""
        before, self.image = self.image, image
        try:
            yield
        finally:
            self.image = before

    def _sample(self, number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, self.lost_seconds)
        now = self.clock()
        passed, self._sampled = now - self._sampled, now
        image = self.image
        if image is None:
            return
        self._work[image] += passed
        self._samples[image] += 1  # unlike the clock, samples stop while the process is stopped
        waited = self._samples[image] * self._every
        if self._work[image] > self.seconds or waited > MAX_CLOCK_SECONDS:
            raise TimeLimitError(f"takes longer than {self.seconds:g} s")


def limit_memory(soft: int, hard: int) -> None:
    """On Linux, let a decoder that asks for too much get a `MemoryError`."""
    found = None
    with suppress(OSError):  # /proc may not be mounted
        found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    limit = MAX_MEMORY_BYTES + 1024 * int(found[1] if found else 0)
    if sys.platform == "linux" and limit < soft % (1 << 64):  # -1, no limit, becomes the largest
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
