"""Batches single calls: images that are asked for at about the same time share one chunk."""

import asyncio
import logging
import math
import os
import secrets
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypeGuard, cast

import numpy as np
import pyarrow as pa

from digitq.producer.chunking import cut_chunks
from digitq.producer.job import IDLE_MS, LOGGED_CHECKS
from digitq.producer.sources.contents import read_items
from digitq.producer.sources.in_memory import Image, image_source
from digitq.producer.sources.source import refuse_url
from digitq.protocol.asked.reading import AnswerT, Reading
from digitq.protocol.chunk import (
    PIXELS,
    Chunk,
    decode_result,
    name_rows,
    pixels_batch,
    result_schema,
    untimed_rows,
)
from digitq.protocol.errors import UnknownJobError, UsageError
from digitq.protocol.ledger import Ledger
from digitq.protocol.prediction import Answer
from digitq.protocol.records import JobSpec
from digitq.protocol.settings import settings
from digitq.protocol.text import plural

ANSWER_SECONDS = IDLE_MS / 1000  # after this time without an answer, a batch is looked after
CALL_TTL_SECONDS = 60  # Redis keeps a batch this long after its client was killed
GATHER_SECONDS = 0.003  # how long a thread waits for the next calls of those it has just answered
IDLE_THREAD_SECONDS = 10.0  # a thread without calls ends after this time
MAX_THREADS = 16  # at most this many threads wait for the results of one `CallQueue`
MANY_IMAGES = (
    "`classify` takes one image, or a document of one page: `submit`, or `classify_all` of a "
    "reader, takes many"
)

logger = logging.getLogger(__name__)


class BatchLimits(NamedTuple):
    max_calls: int  # how many calls may share a batch
    max_batches: int  # how many batches may be under way at the same time
    deadline_seconds: float  # a batch is overdue after this, or earlier if the settings say so


PIXELS_LIMITS = BatchLimits(1024, 1, 5.0)
FILES_LIMITS = BatchLimits(16, 16, math.inf)  # decoding is slow: small batches spread over workers
PAGES_LIMITS = FILES_LIMITS._replace(max_calls=1)


class Call:
    """One image that waits for its answer: pixels (784,), or a batch of one row with a file, or of
    the rows of a page.

    A thread waits for the lock `answered`, which is held until there is an `outcome`. A coroutine
    waits for the future `awaited`. (`concurrent.futures.Future` is slower for both.)
    """

    def __init__(self, image: "np.ndarray | pa.RecordBatch") -> None:
        self.image = image
        self.outcome: Answer | Exception | None = None
        self.answered = threading.Lock()
        self.answered.acquire()
        self.awaited: asyncio.Future[Answer] | None = None


@dataclass
class CallQueue:
    """The calls that may share a batch, and the threads that send them; `more` guards both."""

    reading: Reading[Answer]
    is_pixels: bool  # whether the images are 28×28 pixels, not image files
    more: threading.Condition = field(default_factory=threading.Condition)
    waiting: deque[Call] = field(default_factory=deque)
    threads: list[threading.Thread] = field(default_factory=list)
    idle: int = 0  # how many threads wait for calls
    late: int = 0  # how many batches were not answered within `ANSWER_SECONDS`
    expected: int = 0  # `enough` is set when this many calls wait
    enough: threading.Event = field(default_factory=threading.Event)

    @property
    def is_fast(self) -> bool:
        return self.is_pixels and self.reading.what == "digit"

    @property
    def limits(self) -> BatchLimits:
        if self.reading.form:
            return PAGES_LIMITS
        return PIXELS_LIMITS if self.is_fast else FILES_LIMITS

    @property
    def max_threads(self) -> int:
        """One for each batch that may be under way; late batches do not count."""
        return min(self.limits.max_batches + self.late, MAX_THREADS)


def read_call(image: Image, reading: Reading[Answer]) -> Call:
    """Read an image as `Client.submit` does. Raises `UsageError` for anything but one image."""
    if is_pixels(image) and not reading.form:
        return Call(np.array(image).reshape(PIXELS))  # the caller may change it meanwhile
    if isinstance(image, list):  # two would be taken for an id and an image
        raise UsageError(MANY_IMAGES)
    if isinstance(image, str):
        refuse_url(image)
    first = islice(image_source([image]).items, 2)  # a document may have thousands of pages
    chunks = cut_chunks(read_items(first), cells=reading.cells)
    batches = [chunk.batch for chunk in chunks]
    if sum(batch.num_rows for batch in batches) != reading.rows_of_image:
        raise UsageError(MANY_IMAGES)
    return Call(batches[0])


def is_pixels(image: Image) -> TypeGuard[np.ndarray]:
    """Whether the image is pixels as the network takes them, with nothing to read or convert."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.shape in ((28, 28), (1, 28, 28))
    )


class Batcher:
    """Collects calls of any number of threads into batches.

    Its own threads send them, because a caller may be interrupted at any moment. A call is sent at
    once if fewer than `max_batches` are under way; else it waits for the next batch. Each batch is
    an attached job of one chunk, and Redis keeps nothing of it. The place of a call in its batch
    does not matter: a network gives the same bits at every place of a tile.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._queues: dict[tuple[int, Reading[Answer], bool], CallQueue] = {}

    def ask(self, call: Call, reading: Reading[AnswerT], timeout_seconds: float | None) -> AnswerT:
        """Send the call and wait for the answer. Raises `TimeoutError`, and what went wrong."""
        seconds = -1 if timeout_seconds is None else max(0, timeout_seconds)  # -1 means no limit
        with self._queued(call, reading):
            call.answered.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        if isinstance(call.outcome, Exception):
            raise call.outcome
        if call.outcome is None:
            raise TimeoutError(f"no answer within {timeout_seconds:g} s")
        return cast(AnswerT, call.outcome)

    async def ask_async(
        self, call: Call, reading: Reading[AnswerT], timeout_seconds: float | None
    ) -> AnswerT:
        """`ask` for coroutines. Raises as `ask`."""
        call.awaited = asyncio.get_running_loop().create_future()
        with self._queued(call, reading):
            try:
                async with asyncio.timeout(timeout_seconds):
                    return cast(AnswerT, await call.awaited)
            except TimeoutError:
                raise TimeoutError(f"no answer within {timeout_seconds:g} s") from None

    @contextmanager
    def _queued(self, call: Call, reading: Reading[Answer]) -> Iterator[None]:
        """Queue the call, and give it up if the caller stops waiting. Raises as `_call_thread`."""
        is_pixels = isinstance(call.image, np.ndarray)
        key = os.getpid(), reading, is_pixels  # a forked process has none of its parent's threads
        queue = self._queues.get(key) or self._queues.setdefault(key, CallQueue(reading, is_pixels))
        try:
            with queue.more:
                queue.waiting.append(call)
                if len(queue.waiting) == queue.expected:
                    queue.enough.set()
                self._call_thread(queue)
            yield
        finally:
            # In a process that was forked meanwhile, nobody may ever release the parent's lock
            if call.outcome is None and os.getpid() == key[0]:
                with queue.more, suppress(ValueError):  # it is no longer in the queue
                    queue.waiting.remove(call)

    def _call_thread(self, queue: CallQueue) -> None:
        """Wake or start a thread; the caller holds `queue.more`. Raises `RuntimeError`."""
        queue.more.notify()
        queue.threads = [thread for thread in queue.threads if thread.is_alive()]
        if queue.idle < len(queue.waiting) and len(queue.threads) < queue.max_threads:
            thread = threading.Thread(target=self._send_batches, args=(queue,), daemon=True)
            try:
                thread.start()
                queue.threads.append(thread)
            except RuntimeError:
                if not queue.threads:
                    raise

    def _send_batches(self, queue: CallQueue) -> None:
        """The work of a thread, until no call has come for `IDLE_THREAD_SECONDS`."""
        while self._wait_for_calls(queue):
            if calls := self._take_calls(queue):
                self._send_batch(queue, calls)
            if len(calls) > 1:
                self._gather(queue, len(calls))

    def _wait_for_calls(self, queue: CallQueue) -> bool:
        """Wait until there are calls; False if the thread must end."""
        with queue.more:
            queue.idle += 1
            queue.more.wait_for(
                lambda: queue.waiting or len(queue.threads) > queue.max_threads, IDLE_THREAD_SECONDS
            )
            queue.idle -= 1
            if queue.waiting and len(queue.threads) <= queue.max_threads:
                return True
            own = threading.current_thread()
            queue.threads = [thread for thread in queue.threads if thread is not own]
            if not queue.threads:  # a call that found it in this moment starts a thread for it
                self._queues.pop((os.getpid(), queue.reading, queue.is_pixels), None)
            return False

    def _gather(self, queue: CallQueue, calls: int) -> None:
        """Wait until `calls` calls have come, or for `GATHER_SECONDS`."""
        with queue.more:
            if len(queue.waiting) >= calls:
                return
            queue.expected = calls
            queue.enough.clear()
        queue.enough.wait(GATHER_SECONDS)
        queue.expected = 0

    def _send_batch(self, queue: CallQueue, calls: list[Call]) -> None:
        try:
            answers = self._classify(put_together(calls), queue)
            answered: list[tuple[Call, Answer | Exception]] = [*zip(calls, answers, strict=True)]
        except Exception as error:
            answered = [(call, error) for call in calls]
        wake_callers(answered)

    def _take_calls(self, queue: CallQueue) -> list[Call]:
        calls: list[Call] = []
        size = 0
        most = min(queue.limits.max_calls, untimed_rows(queue.reading.model))
        with queue.more:
            while queue.waiting and len(calls) < most:
                size += queue.waiting[0].image.nbytes
                if calls and size > settings().chunk_bytes:
                    break
                calls.append(queue.waiting.popleft())
        return calls

    def _classify(self, batch: pa.RecordBatch, queue: CallQueue) -> Sequence[Answer]:
        """Classify a batch as a job of one chunk. Raises `BrokerError`, and what ends the job."""
        job_id, payload = secrets.token_hex(6), Chunk(0, batch).encode()
        source = "single images from Python"
        reading = queue.reading
        spec = JobSpec(
            *(job_id, reading.model, source),
            attached=True,
            in_flight=1,
            ttl=CALL_TTL_SECONDS,
            known=reading.known,
            network=reading.network,
        )
        # A worker classifies shared calls together, with the model's own threshold
        is_shared = queue.is_fast and not reading.known
        stored, checks = False, 0
        try:
            while True:
                if stored:
                    result = self._ledger.take(job_id, ANSWER_SECONDS)
                else:
                    rows = batch.num_rows
                    result = self._ledger.submit(spec, rows, payload, is_shared, ANSWER_SECONDS)
                if result is not None:
                    schema = result_schema(queue.reading.what, queue.reading.form is not None)
                    answers = name_rows(decode_result(result, schema, batch.num_rows))
                    return queue.reading.to_answers(answers)
                stored = self._look_after(job_id, queue.limits)
                checks += 1
                if checks == 1:
                    with queue.more:  # now another batch may be sent for the calls that wait
                        queue.late += 1
                        if queue.waiting:
                            self._call_thread(queue)  # it has this thread, so it does not raise
                if checks == LOGGED_CHECKS:
                    logger.warning("%s waiting for a worker", plural(batch.num_rows, "image"))
        finally:
            with queue.more:
                queue.late -= min(checks, 1)

    def _look_after(self, job_id: str, limits: BatchLimits) -> bool:
        """Requeue the batch if it is overdue; False if Redis has lost the job."""
        if self._ledger.on_idle:
            self._ledger.on_idle()
        with suppress(UnknownJobError):
            if not self._ledger.record(job_id).is_stopped:
                self._ledger.heartbeat(job_id)
                seconds = min(settings().deadline_seconds, limits.deadline_seconds)
                self._ledger.sweep_job(job_id, seconds)
                return True
        return False


def wake_callers(answered: list[tuple[Call, Answer | Exception]]) -> None:
    """Hand over the answers. Each event loop is woken once for all of its calls."""
    loops: defaultdict[asyncio.AbstractEventLoop, list[Call]] = defaultdict(list)
    for call, outcome in answered:
        call.outcome = outcome
        call.answered.release()
        if call.awaited:
            loops[call.awaited.get_loop()].append(call)
    for loop, calls in loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_settle, calls)


def _settle(calls: list[Call]) -> None:
    """Set the results of futures, in the thread of their event loop."""
    for call in calls:
        if not call.awaited or call.awaited.done():  # the caller has given up
            continue
        if isinstance(call.outcome, Exception):
            call.awaited.set_exception(call.outcome)
        elif call.outcome:
            call.awaited.set_result(call.outcome)


def put_together(calls: list[Call]) -> pa.RecordBatch:
    if isinstance(calls[0].image, np.ndarray):
        pixels = np.stack([call.image for call in calls])
        return pixels_batch(pa.array(["0"] * len(pixels)), pixels)  # each caller has one image
    return pa.concat_batches([call.image for call in calls])
