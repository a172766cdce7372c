"""Single images that are asked for at about the same time travel together, as one chunk."""

import os
import secrets
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, TypeGuard
from weakref import WeakSet

import numpy as np
import pyarrow as pa

from producer.chunking import cut_chunks
from producer.images import Image, image_source
from producer.mnist import pixels_batch
from producer.predictions import Prediction, to_predictions
from protocol.chunk import PIXELS, Chunk, decode
from protocol.errors import UnknownJobError, UsageError
from protocol.ledger import JobSpec, Ledger
from protocol.settings import settings

TTL_SECONDS = 60  # of a batch whose client was killed; a living one looks after it
GATHER_SECONDS = 0.003  # at most, after a batch of several: its callers may ask again
IDLE_MS = 500  # without a result for so long, look after the batch


class Lane(NamedTuple):
    """How calls of one kind are put together: at most so many in a batch, and so many batches."""

    most_calls: int
    most_under_way: int


PIXELS_LANE = Lane(1024, 1)
FILES_LANE = Lane(16, 16)  # decoding takes long: better shared out


class Kind(NamedTuple):
    """What calls of one batch have in common."""

    model: str
    drawn: bool  # 28×28 pixels, not a file

    @property
    def lane(self) -> Lane:
        return PIXELS_LANE if self.drawn else FILES_LANE


@dataclass(frozen=True)
class Call:
    """One image on its way: a row of pixels (784,), or a batch of one row that holds a file."""

    image: "np.ndarray | pa.RecordBatch"
    answer: "Future[Prediction]" = field(default_factory=Future)

    def is_awaited(self) -> bool:
        """Whether somebody still waits; from then on it can't be cancelled."""
        return self.answer.running() or self.answer.set_running_or_notify_cancel()


@dataclass
class Line:
    """Calls of one kind that wait, and how many batches are under way."""

    kind: Kind
    waiting: deque[Call] = field(default_factory=deque)
    under_way: int = 0
    hoped_for: int = 0  # calls until `enough` is set
    enough: threading.Event = field(default_factory=threading.Event)


def read_call(image: Image) -> Call:
    """Read an image, as `Client.submit` does. Raises `UsageError` for what is not one image."""
    if is_drawn(image):
        return Call(np.asarray(image).reshape(PIXELS))  # a memmap's own views take longer
    batches = [chunk.batch for chunk in cut_chunks(image_source([image]).pieces)]
    rows = sum(batch.num_rows for batch in batches)
    if rows != 1:
        raise UsageError(f"{rows} images, where one is asked for: `submit` takes many")
    return Call(batches[0])


def is_drawn(image: Image) -> TypeGuard[np.ndarray]:
    """Whether it is pixels as the network sees them: nothing to read, nothing to encode."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.shape in ((28, 28), (1, 28, 28))
    )


class Calls:
    """Calls from any number of threads.

    A call that finds few batches under way is sent at once. What comes while `most_under_way`
    are is gathered, and goes as the next. Each batch is an attached job of one chunk, of which
    nothing stays in Redis; whoever sends it waits for its result. A call's place in its tile is
    chance: a network gives the same bits at every place.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.forget()
        living.add(self)

    def forget(self) -> None:
        """Nothing waits, and no thread holds the lock: as in a process that was just forked."""
        self._lock = threading.Lock()
        self._lines: dict[Kind, Line] = {}

    def ask(self, call: Call, model: str) -> Prediction:
        """The answer. The calling thread sends a batch itself where none need be waited for."""
        line = self._join(call, model)
        if line:
            try:
                self._send_batch(line)
            finally:
                self._go_on(line)
        return call.answer.result()

    def ask_later(self, call: Call, model: str) -> "Future[Prediction]":
        """The answer to come."""
        line = self._join(call, model)
        if line:
            self._go_on(line)
        return call.answer

    def _join(self, call: Call, model: str) -> Line | None:
        """Have the call wait; gives its line where a batch may be sent at once."""
        kind = Kind(model, isinstance(call.image, np.ndarray))
        with self._lock:
            line = self._lines.setdefault(kind, Line(kind))
            line.waiting.append(call)
            if len(line.waiting) == line.hoped_for:
                line.enough.set()
            free = line.under_way < kind.lane.most_under_way
            line.under_way += free
        return line if free else None

    def _go_on(self, line: Line) -> None:
        """A batch is answered: a thread sends those that wait by now, until none do."""
        with self._lock:
            if not line.waiting:
                line.under_way -= 1
                return
        thread = threading.Thread(target=self._send_batches, args=(line,), daemon=True)
        try:
            thread.start()
        except BaseException as error:  # there is no room for a thread: nobody would answer
            with self._lock:
                line.under_way -= 1
                waiting = [call for call in line.waiting if call.is_awaited()]
                line.waiting.clear()
            for call in waiting:
                call.answer.set_exception(error)
            raise

    def _send_batches(self, line: Line) -> None:
        while True:
            answered = self._send_batch(line)
            if answered > 1:
                self._gather(line, answered)
            with self._lock:
                if not line.waiting:
                    line.under_way -= 1
                    return

    def _gather(self, line: Line, calls: int) -> None:
        """Let so many calls come, of the callers that were just answered, or as many as do."""
        with self._lock:
            if len(line.waiting) >= calls:
                return
            line.hoped_for = calls
            line.enough.clear()
        line.enough.wait(GATHER_SECONDS)
        line.hoped_for = 0

    def _send_batch(self, line: Line) -> int:
        """Send the calls that wait and answer them, with an error where it comes to that; gives
        their number."""
        calls: list[Call] = []
        try:
            self._take_calls(line, calls)
            if calls:
                predictions = self._classify(put_together(calls), line.kind.model)
                for call, prediction in zip(calls, predictions, strict=True):
                    call.answer.set_result(prediction)
        except Exception as error:
            for call in calls:
                call.answer.set_exception(error)
        except BaseException:  # Ctrl-C is this thread's alone
            with self._lock:
                line.waiting.extendleft(call for call in reversed(calls) if not call.answer.done())
            raise
        return len(calls)

    def _take_calls(self, line: Line, calls: list[Call]) -> None:
        """Move calls from the line to `calls`, within what a batch may hold."""
        size = 0
        with self._lock:
            while line.waiting and len(calls) < line.kind.lane.most_calls:
                size += line.waiting[0].image.nbytes
                if calls and size > settings().chunk_bytes:
                    break
                call = line.waiting.popleft()
                if call.is_awaited():
                    calls.append(call)

    def _classify(self, batch: pa.RecordBatch, model: str) -> list[Prediction]:
        """The batch as a job of one chunk. Raises `BrokerError`, `JobCancelledError`."""
        job_id, chunk = secrets.token_hex(6), Chunk(0, 0, batch)
        source = "single images from Python"
        spec = JobSpec(job_id, model, source, attached=True, in_flight=1, ttl=TTL_SECONDS)
        payload = chunk.encode()
        stored, last = False, b"0"
        while True:
            if not stored:
                self._ledger.submit(spec, chunk.rows, payload)
            last = self._ledger.wait(job_id, last, IDLE_MS)
            result = self._ledger.take(job_id)
            if result is not None:
                return to_predictions(decode(result))
            stored = self._look_after(job_id)

    def _look_after(self, job_id: str) -> bool:
        """No result yet: send again what is overdue. False where Redis has lost the job."""
        try:
            if self._ledger.record(job_id).state == "cancelled":
                return False
        except UnknownJobError:
            return False
        self._ledger.alive(job_id)
        self._ledger.sweep_job(job_id, settings().deadline_seconds)
        return True


living: WeakSet[Calls] = WeakSet()


def _forget_all() -> None:
    for calls in living:
        calls.forget()


os.register_at_fork(after_in_child=_forget_all)


def put_together(calls: list[Call]) -> pa.RecordBatch:
    """The images of calls of one kind, a row each."""
    if isinstance(calls[0].image, np.ndarray):
        pixels = np.stack([call.image for call in calls])
        return pixels_batch(pa.array(map(str, range(len(pixels)))), pixels)
    return pa.concat_batches([call.image for call in calls])
