"""The Celery task: takes a chunk from the ledger, has it classified, hands the result in."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

from celery.utils.log import get_task_logger

from protocol.broker.connection import connect
from protocol.celery import CLASSIFY, app
from protocol.chunk import Chunk, encode, kind_of
from protocol.errors import BrokerError
from protocol.ledger import Begun, ChunkResult, Ledger
from protocol.settings import settings
from worker.classify import Read, Reader, T, classify_chunk, watch
from worker.pictures import ImageError
from worker.pictures import describe as describe_error
from worker.reading import trace_other_views

RENEW_SECONDS = 1.0
CAREFUL_ATTEMPT = 2  # from here on each image is noted before it is touched
MAX_FAILURES = 5  # of a chunk: then its job fails
MAX_ATTEMPTS = 50  # at a chunk, whatever becomes of the workers: then too
FATAL_DEATHS = 2  # one may have been anybody's kill
DISCARDED = "discarded: another worker was first, or the job was cancelled"

logger = get_task_logger(__name__)


own = threading.local()  # `--pool threads` runs tasks in several


def ledger() -> Ledger:
    """This thread's ledger, connected on first use: after the fork."""
    if not hasattr(own, "ledger"):
        retry_seconds = settings().broker_retry_seconds
        redis = connect(app.conf.digitq_database_url, retry_seconds, one_thread=True)
        own.ledger = Ledger(redis)
    found: Ledger = own.ledger
    return found


@cache
def ledger_without_retry() -> Ledger:
    """The same, but it waits for no lost Redis."""
    return Ledger(connect(app.conf.digitq_database_url))


@app.task(name=CLASSIFY)
def classify(job_id: str, number: int) -> str:
    """Classify one chunk. What it returns is what Flower shows."""
    begun = ledger().begin(job_id, number)
    if begun is None:
        return "nothing to do: done already, or cancelled"
    if begun.attempt > MAX_ATTEMPTS:
        ledger().give_up(job_id, f"chunk {number} was begun {MAX_ATTEMPTS} times and never done")
        return DISCARDED
    heartbeat = Heartbeat(job_id, number, begun.time)
    careful = begun.attempt >= CAREFUL_ATTEMPT
    try:
        chunk = Chunk.decode(begun.payload)
        result = classify_chunk(
            chunk, begun.model, _careful(heartbeat) if careful else heartbeat.read
        )
    except Dropped:
        return DISCARDED
    except BrokerError:
        raise
    except Exception as error:  # of the chunk, since an image's would be in its row
        if ledger().fail(job_id, number) >= MAX_FAILURES:
            why = f"a worker can't classify chunk {number}: {describe_error(error)}"
            ledger().give_up(job_id, why)
        raise
    failed = result.column("label").null_count
    seconds = time.monotonic() - begun.time
    image_seconds = seconds / (chunk.rows - failed) if failed < chunk.rows else 0
    payload, kind, gap = encode(result), kind_of(chunk.batch), heartbeat.longest_gap()
    answer = ChunkResult(payload, failed, kind, image_seconds, gap)
    if not ledger().complete(job_id, number, answer):
        return DISCARDED
    return describe(chunk.rows, failed, seconds, begun)


def describe(rows: int, failed: int, seconds: float, begun: Begun) -> str:
    """The line Flower shows for a chunk that is done."""
    line = f"{rows} images, {failed} failed, {rows / seconds:,.0f} images/s"
    return line if begun.attempt == 1 else f"{line}, attempt {begun.attempt}"


class Dropped(BaseException):
    """There is nothing left to do for the chunk at hand. It is no error of an image's."""


class Heartbeat:
    """Says now and then that a worker still is at its chunk, and knows for how long it did not."""

    def __init__(self, job_id: str, number: int, begun: float) -> None:
        self.job_id, self.number = job_id, number
        self._every = min(RENEW_SECONDS, settings().deadline_seconds / 3)
        self._renewed, self._longest = begun, 0.0  # by `time.monotonic`; seconds

    def longest_gap(self) -> float:
        """The longest silence so far, this one included, in seconds."""
        return max(self._longest, time.monotonic() - self._renewed)

    def renew(self) -> None:
        """Say it where it is time to. Raises `Dropped`."""
        if time.monotonic() - self._renewed <= self._every:
            return
        with watch.on(None), suppress(BrokerError):  # the work goes on meanwhile
            if not ledger_without_retry().renew(self.job_id, self.number):
                raise Dropped
        # where Redis was lost, too: a silence that it could not hear says nothing of the worker
        self._longest, self._renewed = self.longest_gap(), time.monotonic()

    def read(self, row: int, content: bytes, reader: Reader[T]) -> Iterator[T]:
        """As the reader reads an image. Raises `Dropped`."""
        self.renew()
        for outcome in reader(content):
            yield outcome
            self.renew()


def _careful(heartbeat: Heartbeat) -> Read:
    """Reads images one by one to the end, each noted first: one that two workers died of is an
    error row.

    Where they died of its other views, it does without these.
    """
    job_id, number = heartbeat.job_id, heartbeat.number
    deaths = ledger().poison_rows(job_id, number)

    def note(poison_rows: list[int]) -> None:
        with watch.on(None):  # a lost Redis is waited for
            ledger().note_poison_rows(job_id, number, poison_rows)

    def read(row: int, content: bytes, reader: Reader[T]) -> Iterator[T]:
        mark = ~row if reader is trace_other_views else row
        if deaths.count(mark) >= FATAL_DEATHS:
            raise ImageError("workers die of this image")
        note([*deaths, mark])
        try:
            *_, outcome = heartbeat.read(row, content, reader)
        finally:
            note(deaths)
        yield outcome

    return read
