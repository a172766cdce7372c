"""Single images that are asked for at about the same time travel together, as one chunk."""

import asyncio
import logging
import os
import secrets
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, TypeGuard
from weakref import WeakSet

import numpy as np
import pyarrow as pa

from producer.chunking import cut_chunks
from producer.job import IDLE_MS, TOLD_LOOKS
from producer.prediction import Prediction, to_predictions
from producer.sources.batches import pixels_batch
from producer.sources.python import Image, image_source
from protocol.chunk import PIXELS, Chunk, decode, most_rows
from protocol.errors import UnknownJobError, UsageError
from protocol.ledger import JobSpec, Ledger
from protocol.settings import settings
from protocol.text import plural

TTL_SECONDS = 60  # of a batch whose client was killed; a living one looks after it
GATHER_SECONDS = 0.003  # at most, after a batch of several: its callers may ask again
DEADLINE_SECONDS = 5.0  # of pixels, or less, as settings say; a step of a file may take longer
REST_SECONDS = 10.0  # a thread waits for calls
MAX_THREADS = 16  # that wait for results of one kind

logger = logging.getLogger(__name__)


class BatchLimits(NamedTuple):
    """How calls of one kind are put together: at most so many in a batch, and so many batches."""

    most_calls: int
    most_under_way: int


PIXELS_LANE = BatchLimits(1024, 1)
FILES_LANE = BatchLimits(16, 16)  # decoding takes long: better shared out


class CallKind(NamedTuple):
    """What calls of one batch have in common."""

    model: str
    drawn: bool  # 28×28 pixels, not a file

    @property
    def limits(self) -> BatchLimits:
        return PIXELS_LANE if self.drawn else FILES_LANE


Outcome: TypeAlias = Prediction | Exception
Awaited: TypeAlias = tuple["asyncio.Future[Prediction]", Outcome]


class Call:
    """One image on its way: a row of pixels (784,), or a batch of one row that holds a file.

    A thread waits for the lock `answered`, which is held until there is an `outcome`, and a
    coroutine for the future `awaited`. (Futures of `concurrent.futures` would take both longer.)
    """

    def __init__(self, image: "np.ndarray | pa.RecordBatch") -> None:
        self.image = image
        self.outcome: Outcome | None = None
        self.answered = threading.Lock()
        self.answered.acquire()
        self.awaited: asyncio.Future[Prediction] | None = None


@dataclass
class CallQueue:
    """Calls of one kind that wait, and the threads that send them: each a batch at a time."""

    kind: CallKind
    more: threading.Condition  # a call has come
    waiting: deque[Call] = field(default_factory=deque)
    threads: list[threading.Thread] = field(default_factory=list)
    idle: int = 0  # threads with nothing to send
    late: int = 0  # batches whose answer is long in coming
    hoped_for: int = 0  # calls until `enough` is set
    enough: threading.Event = field(default_factory=threading.Event)

    @property
    def most_threads(self) -> int:
        """As many as there may be batches under way, the late ones not counted."""
        return min(self.kind.limits.most_under_way + self.late, MAX_THREADS)


def read_call(image: Image) -> Call:
    """Read an image, as `Client.submit` does. Raises `UsageError` for what is not one image."""
    if is_pixels(image):
        return Call(np.array(image).reshape(PIXELS))  # the caller may use it again meanwhile
    batches = [chunk.batch for chunk in cut_chunks(image_source([image]).items)]
    rows = sum(batch.num_rows for batch in batches)
    if rows != 1:
        raise UsageError(f"{rows} images, where one is asked for: `submit` takes many")
    return Call(batches[0])


def is_pixels(image: Image) -> TypeGuard[np.ndarray]:
    """Whether it is pixels as the network sees them: nothing to read, nothing to encode."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.shape in ((28, 28), (1, 28, 28))
    )


class Batcher:
    """Calls from any number of threads.

    Threads of its own send them: a caller may be interrupted at any moment. A call that finds few
    batches under way is sent at once. What comes while `most_under_way` are is gathered, and goes
    as the next. Each batch is an attached job of one chunk, of which nothing stays in Redis. A
    call's place in its tile is chance: a network gives the same bits at every place.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.forget()
        living.add(self)

    def forget(self) -> None:
        """Nothing waits, and no thread holds the lock: as in a process that was just forked."""
        self._lock = threading.Lock()
        self._lines: dict[CallKind, CallQueue] = {}

    def ask(self, call: Call, model: str, timeout_seconds: float | None = None) -> Prediction:
        """The answer. Raises `TimeoutError`."""
        with self._on_its_way(call, model):
            if timeout_seconds is None:
                call.answered.acquire()
            else:
                call.answered.acquire(timeout=min(max(0, timeout_seconds), threading.TIMEOUT_MAX))
        if isinstance(call.outcome, Exception):
            raise call.outcome
        if call.outcome is None:
            raise TimeoutError(f"no answer within {timeout_seconds:g} s")
        return call.outcome

    async def ask_async(self, call: Call, model: str) -> Prediction:
        """The same for a coroutine: its event loop runs on meanwhile."""
        call.awaited = asyncio.get_running_loop().create_future()
        with self._on_its_way(call, model):
            return await call.awaited

    @contextmanager
    def _on_its_way(self, call: Call, model: str) -> Iterator[None]:
        """Have the call answered; it is given up where it was not until the end. Raises
        `RuntimeError` where no thread can be started."""
        line = self._put_in_line(call, model)
        try:
            yield
        finally:
            if call.outcome is None:
                with self._lock, suppress(ValueError):  # it is under way
                    line.waiting.remove(call)

    def _put_in_line(self, call: Call, model: str) -> CallQueue:
        kind = CallKind(model, isinstance(call.image, np.ndarray))
        with self._lock:
            line = self._lines.get(kind)
            if not line:
                line = self._lines[kind] = CallQueue(kind, threading.Condition(self._lock))
            line.waiting.append(call)
            if len(line.waiting) == line.hoped_for:
                line.enough.set()
            try:
                self._call_thread(line)
            except RuntimeError:
                line.waiting.remove(call)
                raise
        return line

    def _call_thread(self, line: CallQueue) -> None:
        """Have a thread see that calls wait. The lock is held. Raises `RuntimeError` where there is
        none, and none can be started."""
        line.more.notify()
        line.threads = [thread for thread in line.threads if thread.is_alive()]
        if line.idle < len(line.waiting) and len(line.threads) < line.most_threads:
            thread = threading.Thread(target=self._send_batches, args=(line,), daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not line.threads:
                    raise
            else:
                line.threads.append(thread)

    def _send_batches(self, line: CallQueue) -> None:
        """What a thread does, until nothing has come for a while."""
        while self._wait_for_calls(line):
            calls = self._take_calls(line)
            if calls:
                self._send_batch(line, calls)
            if len(calls) > 1:
                self._gather(line, len(calls))

    def _wait_for_calls(self, line: CallQueue) -> bool:
        """False where the thread is to end."""
        with self._lock:
            while not line.waiting and len(line.threads) <= line.most_threads:
                line.idle += 1
                came = line.more.wait(REST_SECONDS)
                line.idle -= 1
                if not came:
                    break
            if line.waiting and len(line.threads) <= line.most_threads:
                return True
            own = threading.current_thread()
            line.threads = [thread for thread in line.threads if thread is not own]
            return False

    def _gather(self, line: CallQueue, calls: int) -> None:
        """Let so many calls come, of the callers that were just answered, or as many as do."""
        with self._lock:
            if len(line.waiting) >= calls:
                return
            line.hoped_for = calls
            line.enough.clear()
        line.enough.wait(GATHER_SECONDS)
        line.hoped_for = 0

    def _send_batch(self, line: CallQueue, calls: list[Call]) -> None:
        """Answer the calls, with an error where it comes to that."""
        answered: list[tuple[Call, Outcome]]
        try:
            answered = [*zip(calls, self._classify(put_together(calls), line), strict=True)]
        except Exception as error:
            answered = [(call, error) for call in calls]
        wake_callers(answered)

    def _take_calls(self, line: CallQueue) -> list[Call]:
        """Calls from the line, as many as a batch may hold."""
        calls: list[Call] = []
        size = 0
        most = min(line.kind.limits.most_calls, most_rows(line.kind.model))
        with self._lock:
            while line.waiting and len(calls) < most:
                size += line.waiting[0].image.nbytes
                if calls and size > settings().chunk_bytes:
                    break
                calls.append(line.waiting.popleft())
        return calls

    def _classify(self, batch: pa.RecordBatch, line: CallQueue) -> list[Prediction]:
        """The batch as a job of one chunk. Raises `BrokerError`, `JobCancelledError`."""
        job_id, chunk = secrets.token_hex(6), Chunk(0, batch)
        source = "single images from Python"
        spec = JobSpec(job_id, line.kind.model, source, attached=True, in_flight=1, ttl=TTL_SECONDS)
        payload = chunk.encode()
        stored, last, looks = False, b"0", 0
        with ExitStack() as late:
            while True:
                if not stored:
                    self._ledger.submit(spec, chunk.rows, payload)
                last = self._ledger.wait(job_id, last, IDLE_MS)  # late after it: others pass then
                result = self._ledger.take(job_id)
                if result is not None:
                    return to_predictions(decode(result))
                stored = self._look_after(job_id, line.kind)
                looks += 1
                if looks == 1:
                    late.enter_context(self._late(line))
                if looks == TOLD_LOOKS:
                    logger.warning("a worker is waited for, by %s", plural(chunk.rows, "image"))

    @contextmanager
    def _late(self, line: CallQueue) -> Iterator[None]:
        """While a batch is late, those that wait may go in another."""
        with self._lock:
            line.late += 1
            if line.waiting:
                self._call_thread(line)  # there is this one: nothing is raised
        try:
            yield
        finally:
            with self._lock:
                line.late -= 1

    def _look_after(self, job_id: str, kind: CallKind) -> bool:
        """No result yet: send again what is overdue. False where Redis has lost the job."""
        try:
            if self._ledger.record(job_id).is_stopped:
                return False
        except UnknownJobError:
            return False
        self._ledger.heartbeat(job_id)
        deadline = settings().deadline_seconds
        self._ledger.sweep_job(job_id, min(DEADLINE_SECONDS, deadline) if kind.drawn else deadline)
        return True


living: WeakSet[Batcher] = WeakSet()


def _forget_all() -> None:
    for calls in living:
        calls.forget()


os.register_at_fork(after_in_child=_forget_all)


def wake_callers(answered: list[tuple[Call, Outcome]]) -> None:
    """Hand over the answers; an event loop is woken once for all of its own."""
    own: defaultdict[asyncio.AbstractEventLoop, list[Awaited]] = defaultdict(list)
    for call, outcome in answered:
        call.outcome = outcome
        call.answered.release()
        if call.awaited:
            own[call.awaited.get_loop()].append((call.awaited, outcome))
    for loop, awaited in own.items():
        with suppress(RuntimeError):  # it is closed: nobody waits any longer
            loop.call_soon_threadsafe(_settle, awaited)


def _settle(awaited: list[Awaited]) -> None:
    """In the event loop's thread."""
    for future, outcome in awaited:
        if future.done():  # given up
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def put_together(calls: list[Call]) -> pa.RecordBatch:
    """The images of calls of one kind, a row each."""
    if isinstance(calls[0].image, np.ndarray):
        pixels = np.stack([call.image for call in calls])
        return pixels_batch(pa.array(map(str, range(len(pixels)))), pixels)
    return pa.concat_batches([call.image for call in calls])
