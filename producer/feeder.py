"""The feeder: a thread that stores a job's chunks in Redis, within a window."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.util import Finalize
from weakref import WeakSet

from protocol.chunk import KINDS, Chunk
from protocol.errors import BrokerError, DigitqError, JobCancelledError, JobFailedError
from protocol.ledger import QUEUE, SUBMITTER_SECONDS, JobSpec, Ledger, record_key
from protocol.settings import settings
from protocol.text import printable

POLL_SECONDS = 0.2  # between two looks at whether Redis has room again, or workers need more
FULL = 0.7  # of Redis's maxmemory: results need room too
BEAT_SECONDS = SUBMITTER_SECONDS / 3  # between two signs of life
UNLIMITED_SECONDS = 1.0  # between two looks at whether a Redis without a limit has one now
END_SECONDS = 0.5  # that a process's end waits for its feeders; one may wait for its source

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredChunk:
    """A chunk as it is stored; kept until its result is collected, so that it can be again."""

    number: int
    rows: int
    payload: memoryview


def reason_of(error: BaseException | None) -> str:
    """What it says, or its name."""
    return printable(str(error)) or type(error).__name__


class Feeder(threading.Thread):
    """Feeds one job. `ended` is set when there is no more to feed: `total` is the number of chunks
    then, or `error` is what stopped it, after `sent` chunks.

    An attached job's chunk n waits until n − (oldest chunk not collected) is under the window,
    which grows where workers have nothing to do. A detached job's waits while Redis holds
    `DIGITQ_BUDGET_BYTES` of it that no worker has done.
    """

    def __init__(self, ledger: Ledger, spec: JobSpec, chunks: Iterator[Chunk]) -> None:
        super().__init__(name=f"feeder of job {spec.id}", daemon=True)
        self.total: int | None = None
        self.error: BaseException | None = None
        self.sent = 0
        self.paces = dict.fromkeys(KINDS, 0.0)  # seconds that an image took of late; 0: unknown
        self.ended = threading.Event()
        self.is_awaited = False  # somebody waits for its end, and is told what stopped it
        self.waiting_for: str | None = None
        self.attached = spec.attached
        self._ledger, self._spec = ledger, spec
        self._key = record_key(spec.id)
        self._chunks = chunks
        self._window: dict[int, StoredChunk] = {}
        self._base = (0, 0)  # the oldest chunk not collected, and the images before it
        self._most = settings().window_chunks  # in the window
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._stopped = self._dropped = False
        self._unlimited_until = 0.0  # until then Redis is not asked again for its limit
        _end_at_exit(self)

    def run(self) -> None:
        try:
            threading.Thread(target=self._beat, daemon=True).start()
            for number, chunk in enumerate(self._chunks):
                self._wait_for_room(number)
                parcel = StoredChunk(number, chunk.rows, chunk.encode())
                with self._changed:
                    self._window[number] = parcel
                    if not self.attached:
                        self._window.pop(number - settings().window_chunks, None)
                self._send(parcel)
                self.sent = number + 1
            self.total = self.sent  # sealing wakes the collector, who asks for it
            self._seal(self.total)
            if not self.attached:
                self._ledger.flush(self._spec.id)
                # a Redis that was lost meanwhile may have lost the last of it
                self._seal(self.total)
        except BaseException as error:
            self.error = error  # first: whoever waits is told of this, and not of the cancelling
            if self._dropped or self.has_source_failed and not self.has_results_left:
                self.cancel()
            if not (self.attached or self.is_awaited or self._stopped):  # nobody may ever ask
                logger.error("job %s is not whole: %s", self._spec.id, reason_of(error))
        finally:
            self._chunks = iter(())  # what a source has open is closed
            self.ended.set()

    @property
    def has_results_left(self) -> bool:
        """Whether the source has raised, and there still are results of what it gave before."""
        return self.has_source_failed and self.attached and self._base[0] < self.sent

    @property
    def has_source_failed(self) -> bool:
        """Whether it was the source that stopped the feeder."""
        others = BrokerError | JobCancelledError | JobFailedError | None
        return not isinstance(self.error, others)

    def cancel(self) -> None:
        """Drop what is in Redis of the job, where it can be reached."""
        failed = isinstance(self.error, Exception) and self.has_source_failed
        reason = [f"its source failed: {reason_of(self.error)}"] if failed else []
        with suppress(DigitqError):
            self._ledger.cancel(self._spec.id, *reason)

    def _beat(self) -> None:
        """Let Redis know that the job's submitter lives, while the source or the window is waited
        for."""
        while not self.ended.wait(BEAT_SECONDS) and not self._stopped:
            with suppress(DigitqError):
                self._ledger.heartbeat(self._spec.id)

    def stop(self) -> None:
        """Feed nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def drop(self) -> None:
        """Feed nothing more of a job whose results nobody will collect, and cancel it. (Once all of
        it is fed, there is no thread to do that: it goes with its time.)"""
        self._dropped = True
        self.stop()

    @property
    def has_all_collected(self) -> bool:
        """Whether all that the source gave so far is collected, and more is to come."""
        return self.total is None and not self._window

    def collected(self, number: int) -> None:
        """Chunk `number` is collected: its place in the window is free."""
        with self._changed:
            self._base = (number + 1, self._base[1] + self._window.pop(number).rows)
            self._changed.notify_all()

    def repair(self) -> None:
        """Store again what Redis has lost, as after a restart without its file."""
        with self._sending:
            stored = self._ledger.redis.hget(self._key, "stored")
            self._send_from(int(stored or 0))
            if self.total is not None:
                self._seal_once(self.total)

    def _wait_for_room(self, number: int) -> None:
        """Raises `JobCancelledError` where the feeder was stopped meanwhile."""
        while self.attached and number - self._base[0] >= self._most and not self._stopped:
            if self._are_workers_idle():
                self._most += max(1, self._most // 4)
                break
            self._pause("results", number - self._most)
        while not self._stopped and (reason := self._full()):
            self._pause(reason, self._base[0])
        self.waiting_for = None
        if self._stopped:
            raise JobCancelledError(f"job {self._spec.id} was cancelled")

    def _pause(self, reason: str, base: int) -> None:
        """Until the reader has collected more than so many chunks, or for a moment."""
        self.waiting_for = reason
        with self._changed:
            if self._base[0] <= base and not self._stopped:
                self._changed.wait(POLL_SECONDS)

    def _are_workers_idle(self) -> bool:
        """Whether they would take more than the window's chunks, and there is room for more: the
        queue is empty, and the oldest chunk, for which the reader waits, is not done."""
        if self._ledger.redis.llen(QUEUE):
            return False
        with self._changed:
            held = sum(parcel.payload.nbytes for parcel in self._window.values())
            oldest = self._base[0]
        is_done = self._ledger.redis.hexists(f"{self._key}:results", oldest)
        return held < settings().budget_bytes and not is_done

    def _full(self) -> str | None:
        """Why nothing more may be stored in Redis now."""
        if not self.attached:
            held = int(self._ledger.redis.hget(self._key, "bytes") or 0)
            if held >= settings().budget_bytes:
                return f"workers: {held / 2**20:.0f} MB of images are queued"
        if time.monotonic() < self._unlimited_until:
            return None
        memory = self._ledger.redis.info("memory")
        if not memory["maxmemory"]:
            self._unlimited_until = time.monotonic() + UNLIMITED_SECONDS
        elif memory["used_memory"] > FULL * memory["maxmemory"]:
            return f"room in Redis: over {FULL:.0%} of its maxmemory is used"
        return None

    def _send(self, parcel: StoredChunk) -> None:
        with self._sending:
            stored = self._dispatch(parcel)
            if stored <= parcel.number:
                self._send_from(stored)

    def _send_from(self, number: int) -> None:
        """Store every chunk from this one on that is not yet collected."""
        with self._changed:
            number = max(number, self._base[0])
            parcels = [self._window[n] for n in sorted(self._window) if n >= number]
        if parcels and parcels[0].number > number:
            self._dropped = True  # nobody can make it whole
            raise BrokerError(
                f"Redis has lost chunk {number} of job {self._spec.id} and it is no longer "
                "kept here: run the job again, on a Redis with an append-only file"
            )
        for parcel in parcels:
            self._dispatch(parcel)

    def _dispatch(self, parcel: StoredChunk) -> int:
        stored, self.paces = self._ledger.dispatch(
            self._spec, self._base, parcel.number, parcel.rows, parcel.payload
        )
        return stored

    def _seal(self, total: int) -> None:
        with self._sending:
            while (stored := self._seal_once(total)) < total:
                self._send_from(stored)

    def _seal_once(self, total: int) -> int:
        return self._ledger.seal(self._spec, self._base, total)


feeders: WeakSet[Feeder] = WeakSet()
processes: set[int] = set()  # that end them: a fork has to do so by itself


def _end_at_exit(feeder: Feeder) -> None:
    """As `_end_feeders`, when this process ends."""
    feeders.add(feeder)
    if os.getpid() not in processes:
        processes.add(os.getpid())
        Finalize(None, _end_feeders, exitpriority=100)  # first; a fork heeds no `atexit`


def _end_feeders() -> None:
    """A detached job outlives this process: see to it that all of it is in Redis by then. And that
    no feeder is in Arrow's code as Python ends: it would end by SIGABRT."""
    alive = [feeder for feeder in feeders if feeder.is_alive()]
    try:
        for feeder in alive:
            while not feeder.attached and feeder.is_alive() and not feeder._stopped:
                feeder.join(POLL_SECONDS)
    finally:  # at Ctrl-C, too
        for feeder in alive:
            feeder.stop()
        end = time.monotonic() + END_SECONDS
        with suppress(KeyboardInterrupt, SystemExit):  # the process ends anyway
            for feeder in alive:
                feeder.join(max(0, end - time.monotonic()))
