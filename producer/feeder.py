"""The feeder: a thread that stores the chunks of a job in Redis, within a window."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.util import Finalize
from typing import NamedTuple
from weakref import WeakSet

import pyarrow as pa

from digitq.protocol.broker.connection import connect
from digitq.protocol.capacity import MAX_FILL
from digitq.protocol.chunk import KINDS, Chunk, encode_truth
from digitq.protocol.errors import BrokerError, DigitqError, JobCancelledError, JobFailedError
from digitq.protocol.keys import QUEUE, record_key
from digitq.protocol.ledger import Ledger
from digitq.protocol.records import JobSpec
from digitq.protocol.settings import settings
from digitq.protocol.text import printable

FEEDER_POLL_SECONDS = 0.2  # how often a feeder checks whether Redis has room or workers need more
HEARTBEAT_SECONDS = 5.0  # how often the submitter sends a heartbeat
UNLIMITED_SECONDS = 1.0  # how often a Redis without maxmemory is asked whether it has one now
LACK_OF_ROOM = f"room in Redis: over {MAX_FILL:.0%} of its maxmemory is used"
EXIT_SECONDS = 0.5  # an exiting process waits this long for feeders, and for each reply of Redis

logger = logging.getLogger(__name__)


class StoredChunk(NamedTuple):
    """An encoded chunk, kept until its result is collected, so that it can be stored again."""

    number: int
    rows: int
    payload: memoryview
    truth: pa.Array | None = None  # the right answers of its rows


def reason_of(error: BaseException | None) -> str:
    """The text of an error, or its type."""
    return printable(str(error)) or type(error).__name__


class Feeder(threading.Thread):
    """Feeds one job.

    At the end, `ended` is set. Then either `total` is the number of chunks, or `error` is what
    stopped the feeder after `sent` chunks.

    Chunk n of an attached job waits until n − (the oldest chunk not collected) is less than the
    window, which grows if workers are idle. A chunk of a detached job waits while Redis holds
    `DIGITQ_BUDGET_BYTES` of chunks that are not done.
    """

    def __init__(self, ledger: Ledger, spec: JobSpec, chunks: Iterator[Chunk]) -> None:
        super().__init__(name=f"feeder of job {spec.id}", daemon=True)
        self.total: int | None = None
        self.error: BaseException | None = None
        self.sent = 0
        self.paces = dict.fromkeys(KINDS, 0.0)  # seconds that one image took last; 0 if unknown
        self.ended = threading.Event()
        self.is_awaited = False  # somebody waits for the end and will see `error`
        self.waiting_for: str | None = None
        self.held_images = 0  # the next images, if Redis has no room for them
        self.attached = spec.attached
        self._ledger, self._spec = ledger, spec
        self._key = record_key(spec.id)
        self._chunks = chunks
        self._window: dict[int, StoredChunk] = {}
        self._unlimited_until = 0.0  # Redis is not asked for its maxmemory before this time
        self._base = (0, 0)  # the oldest chunk not collected, and how many images are before it
        self._max_chunks = settings().window_chunks  # the size of the window
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self.is_stopped = self._dropped = False
        feeders.add(self)
        if os.getpid() not in processes:
            processes.add(os.getpid())
            Finalize(None, end_feeders, exitpriority=100)  # 100 is early; forks ignore `atexit`

    def run(self) -> None:
        try:
            threading.Thread(target=self._beat, daemon=True).start()
            for number, chunk in enumerate(self._chunks):
                self._wait_for_room(number, chunk.rows)
                stored_chunk = StoredChunk(number, chunk.rows, chunk.encode(), chunk.truth)
                with self._changed:
                    self._window[number] = stored_chunk
                    if not self.attached:
                        self._window.pop(number - settings().window_chunks, None)
                self._send(stored_chunk)
                self.sent = number + 1
            self.total = self.sent  # it is set before sealing, which wakes the collector
            self._seal(self.total)
            if not self.attached:
                self._ledger.flush(self._spec.id)
                # If Redis restarted before the flush, it may have lost the last chunks
                self._seal(self.total)
        except BaseException as error:
            self.error = error  # it is set before cancelling, so that collectors see it
            if self._dropped or self.has_source_failed and not self.has_results_left:
                self.cancel()
            if not (self.attached or self.is_awaited or self.is_stopped):  # nobody may see it
                logger.error("job %s is incomplete: %s", self._spec.id, reason_of(error))
        finally:
            self._chunks = iter(())  # closes the files that the source has open
            self.ended.set()

    @property
    def has_results_left(self) -> bool:
        """Whether the source has failed and results of earlier chunks are not collected yet."""
        return self.has_source_failed and self.attached and self._base[0] < self.sent

    @property
    def has_source_failed(self) -> bool:
        """Whether it was the source that stopped the feeder."""
        others = BrokerError | JobCancelledError | JobFailedError | None
        return not isinstance(self.error, others)

    def cancel(self) -> None:
        """Cancel the job in Redis, if Redis can be reached."""
        failed = isinstance(self.error, Exception) and self.has_source_failed
        reason = [f"its source failed: {reason_of(self.error)}"] if failed else []
        with suppress(DigitqError):
            self._ledger.cancel(self._spec.id, *reason)

    def cancel_at_once(self) -> None:
        """Cancel the job in Redis, without waiting for a Redis that is lost."""
        with (
            suppress(DigitqError),
            connect(self._ledger.redis.url, timeout_seconds=EXIT_SECONDS) as redis,
        ):
            Ledger(redis).cancel(self._spec.id)

    def _beat(self) -> None:
        """Send heartbeats, also while the feeder waits for the source or the window."""
        while not self.ended.wait(HEARTBEAT_SECONDS) and not self.is_stopped:
            with suppress(DigitqError):
                self.heartbeat()

    def heartbeat(self) -> None:
        """Say in Redis that this submitter is alive, and whether it waits for room."""
        self._ledger.heartbeat(self._spec.id, self.held_images)

    def stop(self) -> None:
        with self._changed:
            self.is_stopped = True
            self._changed.notify_all()

    def drop(self) -> None:
        """Cancel a job that nobody will collect; if all of it is fed, it expires in Redis."""
        self._dropped = True
        self.stop()

    @property
    def has_all_collected(self) -> bool:
        """Whether all chunks so far are collected and the source may yield more."""
        return self.total is None and not self._window

    def find_chunk(self, number: int) -> StoredChunk | None:
        """A chunk of an attached job; None if it is collected."""
        with self._changed:
            return self._window.get(number)

    def collected(self, number: int) -> None:
        """Note that chunk `number` is collected: its place in the window is free."""
        with self._changed:
            chunk = self._window.pop(number)
            self._base = (number + 1, self._base[1] + chunk.rows)
            self._changed.notify_all()

    def repair(self) -> None:
        """Store again what Redis has lost, for example in a restart without persistence."""
        with self._sending:
            stored = self._ledger.redis.hget(self._key, "stored")
            self._send_from(int(stored or 0))
            if self.total is not None:
                self._ledger.seal(self._spec, self._base, self.total)

    def _wait_for_room(self, number: int, images: int) -> None:
        """Wait until chunk `number` may be stored, which has so many images. Raises
        `JobCancelledError` once stopped."""
        while self.attached and number - self._base[0] >= self._max_chunks and not self.is_stopped:
            if self._are_workers_idle():
                self._max_chunks += max(1, self._max_chunks // 4)
                break
            self._pause("results", number - self._max_chunks)
        while not self.is_stopped and (reason := self._reason_to_wait()):
            held_images = images if reason == LACK_OF_ROOM else 0
            if held_images != self.held_images:
                self.held_images = held_images
                self.heartbeat()
            self._pause(reason, self._base[0])
        self.waiting_for, self.held_images = None, 0
        if self.is_stopped:
            raise JobCancelledError(f"job {self._spec.id} was cancelled")

    def _pause(self, reason: str, base: int) -> None:
        """Wait for `FEEDER_POLL_SECONDS`, or until more than `base` chunks are collected."""
        self.waiting_for = reason
        with self._changed:
            if self._base[0] <= base and not self.is_stopped:
                self._changed.wait(FEEDER_POLL_SECONDS)

    def _are_workers_idle(self) -> bool:
        """Whether the window may grow: the queue is empty, the oldest chunk is not done, and the
        window holds less than `DIGITQ_BUDGET_BYTES`."""
        if self._ledger.redis.llen(QUEUE):
            return False
        with self._changed:
            held = sum(stored_chunk.payload.nbytes for stored_chunk in self._window.values())
            oldest = self._base[0]
        is_done = self._ledger.redis.hexists(f"{self._key}:results", oldest)
        return held < settings().budget_bytes and not is_done

    def _reason_to_wait(self) -> str | None:
        """The reason why nothing more may be stored in Redis now; None if there is none."""
        if not self.attached:
            held = int(self._ledger.redis.hget(self._key, "bytes") or 0) - len(self._spec.known)
            if held >= settings().budget_bytes:
                return f"workers: {held / 2**20:.0f} MB of images are queued"
        if time.monotonic() < self._unlimited_until:
            return None
        memory = self._ledger.memory()
        if not memory.limit_bytes:
            self._unlimited_until = time.monotonic() + UNLIMITED_SECONDS
        return LACK_OF_ROOM if memory.is_full else None

    def _send(self, stored_chunk: StoredChunk) -> None:
        with self._sending:
            if (stored := self._dispatch(stored_chunk)) <= stored_chunk.number:
                self._send_from(stored)

    def _send_from(self, number: int) -> None:
        """Store every chunk from `number` on that is not collected yet."""
        with self._changed:
            number = max(number, self._base[0])
            stored_chunks = [self._window[n] for n in sorted(self._window) if n >= number]
        if stored_chunks and stored_chunks[0].number > number:
            self._dropped = True  # the job can't be completed
            raise BrokerError(
                f"Redis has lost chunk {number} of job {self._spec.id}, which is no longer kept "
                "here: run the job again, on a Redis with an append-only file"
            )
        if stored_chunks:
            self._ledger.know(self._spec, self._base)
        for stored_chunk in stored_chunks:
            self._dispatch(stored_chunk)

    def _dispatch(self, stored_chunk: StoredChunk) -> int:
        number, rows, payload, truth = stored_chunk
        kept = b"" if self.attached or truth is None else encode_truth(truth)
        stored, self.paces = self._ledger.dispatch(
            self._spec, self._base, number, rows, payload, kept
        )
        return stored

    def _seal(self, total: int) -> None:
        with self._sending:
            while (stored := self._ledger.seal(self._spec, self._base, total)) < total:
                self._send_from(stored)


feeders: WeakSet[Feeder] = WeakSet()
processes: set[int] = set()  # ids of processes with an exit handler; a fork needs its own


def end_feeders() -> None:
    """Wait until all detached jobs are in Redis, then stop all feeders: a thread in Arrow's code
    while Python exits would end the process by SIGABRT. Attached jobs are cancelled: nobody else
    can collect them."""
    alive = [feeder for feeder in feeders if feeder.is_alive()]
    attached = [feeder for feeder in alive if feeder.attached and not feeder.is_stopped]
    try:
        for feeder in alive:
            while not feeder.attached and feeder.is_alive() and not feeder.is_stopped:
                feeder.join(FEEDER_POLL_SECONDS)
    finally:  # Ctrl-C may end the wait
        for feeder in alive:
            feeder.stop()
        end = time.monotonic() + EXIT_SECONDS
        with suppress(KeyboardInterrupt, SystemExit):  # the process exits anyway
            for feeder in alive:
                feeder.join(max(0, end - time.monotonic()))
            for feeder in attached:
                feeder.cancel_at_once()
