"""The Celery task: takes a chunk from the ledger, has it classified, and hands in the result."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache

import pyarrow as pa

from digitq.protocol.app import CLASSIFY, app
from digitq.protocol.asked import UnmetError
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.reading import decode_known
from digitq.protocol.broker.connection import connect
from digitq.protocol.chunk import (
    FINGERPRINT_KEY,
    Chunk,
    Kind,
    count_failures,
    count_reviews,
    encode,
    kind_of,
    untimed_rows,
)
from digitq.protocol.errors import BrokerError
from digitq.protocol.ledger import Ledger
from digitq.protocol.records import Begun, BegunCall, ChunkResult
from digitq.protocol.settings import settings
from digitq.protocol.text import plural
from digitq.worker.classify import Read, Reader, T, classify_chunk, watch
from digitq.worker.models.lent import use_network
from digitq.worker.picture import ImageError, describe
from digitq.worker.service.identity import own_fingerprint
from digitq.worker.service.worker_log import log_begin, log_chunk, log_trouble
from digitq.worker.sight.digits import trace_other_views

RENEW_SECONDS = 1.0  # a chunk's deadline is renewed this often, or more often if it is short
CAREFUL_ATTEMPT = 2  # from this attempt at a chunk on, each image is noted before it is read
MAX_FAILURES = 5  # if a chunk fails this often, its job fails
MAX_ATTEMPTS = 50  # if a chunk was begun this often, for whatever reason, its job fails
FATAL_DEATHS = 2  # an image is given up after this many deaths; one may have had another cause
MAX_LISTS = 4  # at most so many lists or forms are kept; a million allowed numbers take 20 MB
NOTHING_TO_DO = "nothing to do: the chunk is done, or its job has ended"
DISCARDED = "discarded: another worker was first, or the job has ended"

lists: dict[str, Known | Form] = {}  # by name; the one that was used last is at the end
own = threading.local()  # `--pool threads` runs tasks in several threads


def ledger() -> Ledger:
    """This thread's ledger. It connects on first use, which is after the fork."""
    if not hasattr(own, "ledger"):
        retry_seconds = settings().broker_retry_seconds
        own.ledger = Ledger(connect(app.conf.digitq_database_url, retry_seconds, one_thread=True))
    found: Ledger = own.ledger
    return found


@cache
def ledger_without_retry() -> Ledger:
    """A ledger that does not wait for a lost Redis."""
    return Ledger(connect(app.conf.digitq_database_url))


@app.task(name=CLASSIFY)
def classify(job_id: str, number: int) -> str:
    """Classify one chunk. Returns a line for Flower."""
    try:
        return classify_queued(job_id, number, classify.request.hostname or "")
    except Dropped:
        return discard(job_id, number)
    except Exception as error:  # the chunk failed; an image's error would be in its row
        log_trouble(job_id, number, f"not classified: {describe(error)}")
        raise


def classify_queued(job_id: str, number: int, worker: str) -> str:
    """Classify one chunk. Returns a line for Flower. Raises `Dropped`, and any error."""
    begun = ledger().begin(job_id, number, worker)
    if begun is None:
        return NOTHING_TO_DO
    if begun.source is not None:
        log_begin(job_id, begun.model, begun.source)
    if begun.attempt > MAX_ATTEMPTS:
        ledger().give_up(job_id, f"chunk {number} was begun {MAX_ATTEMPTS} times and never done")
        return DISCARDED
    if begun.shares:
        return classify_calls(job_id, begun, worker)
    deadline = Deadline(job_id, number, begun.time)
    try:
        chunk = Chunk.decode(begun.payload)
        is_careful = begun.attempt >= CAREFUL_ATTEMPT
        read = careful_reader(deadline) if is_careful else deadline.read
        known = fetch_known(job_id, begun.known) if begun.known else Known()
        with use_network(begun.model, known.network, ledger().network):
            result = classify_chunk(chunk, begun.model, read, known)
    except BrokerError:
        raise
    except UnmetError as error:
        log_trouble(job_id, number, f"not classified: {error}")
        ledger().give_up(job_id, str(error))
        return DISCARDED
    except Exception as error:
        if ledger().fail(job_id, number) >= MAX_FAILURES:
            why = f"a worker can't classify chunk {number}: {describe(error)}"
            ledger().give_up(job_id, why)
        raise
    seconds, gap = time.monotonic() - begun.time, deadline.longest_gap()
    answer = measure(result, kind_of(chunk.batch), seconds, gap, worker)
    progress = ledger().complete(job_id, number, answer)
    if progress is None:
        return discard(job_id, number)
    log_chunk(job_id, number, begun.model, result, seconds, begun.attempt)
    done = f"{progress}, {chunk.rows / seconds:,.0f} images/s"
    return done if begun.attempt == 1 else f"{done}, attempt {begun.attempt}"


def measure(
    result: pa.RecordBatch, kind: Kind, seconds: float, silent_seconds: float, worker: str
) -> ChunkResult:
    """The result of a chunk with what the ledger notes of it."""
    failed = count_failures(result)
    made_by = {**(result.schema.metadata or {}), FINGERPRINT_KEY: own_fingerprint()}
    return ChunkResult(
        encode(result.replace_schema_metadata(made_by)),
        failed,
        kind,
        seconds / (result.num_rows - failed) if failed < result.num_rows else 0,
        silent_seconds,
        count_reviews(result),
        seconds,
        worker,
        own_fingerprint(),
    )


def classify_calls(job_id: str, begun: Begun, worker: str) -> str:
    """Classify a single call together with others that wait, of any client. Returns a line for
    Flower. If it fails, all are begun again after their deadline, each alone."""
    size = settings().chunk_bytes
    others = ledger().begin_calls(job_id, untimed_rows(begun.model), size, worker)
    calls = [BegunCall(job_id, begun.payload), *others]
    batches = [Chunk.decode(call.payload).batch for call in calls]
    result = classify_chunk(Chunk(0, pa.concat_batches(batches)), begun.model)
    seconds = time.monotonic() - begun.time
    results, parts, row = list[ChunkResult](), list[pa.RecordBatch](), 0
    for batch in batches:
        parts.append(result.slice(row, batch.num_rows))
        row += batch.num_rows
        share = seconds * batch.num_rows / result.num_rows
        results.append(measure(parts[-1], "pixels", share, seconds, worker))
    line = f"{plural(row, 'image')} of {plural(len(calls), 'call')}"
    ledger().complete_calls(line, [*zip(calls, results, strict=True)])
    for call, part, answer in zip(calls, parts, results, strict=True):
        log_chunk(call.job_id, 0, begun.model, part, answer.work_seconds, attempt=1)
    return line


def discard(job_id: str, number: int) -> str:
    """Log that nobody wants this chunk's result. Returns the line for Flower."""
    log_trouble(job_id, number, DISCARDED)
    return DISCARDED


def fetch_known(job_id: str, name: str) -> Known | Form:
    """What is known of a job's numbers, or its form. Raises `BrokerError` if Redis has lost it."""
    found = lists.pop(name, None) or decode_known(ledger().known(job_id, name))
    if isinstance(found, Form) or found.allowed is not None:
        lists[name] = found  # it is now the latest
        if len(lists) > MAX_LISTS:
            lists.pop(next(iter(lists)))
    return found


class Dropped(BaseException):
    """Raised when the current chunk is no longer wanted. It must not become an image's error."""


class Deadline:
    """Renews a chunk's deadline while it is classified, and measures the gaps between renewals."""

    def __init__(self, job_id: str, number: int, begun: float) -> None:
        self.chunk = job_id, number
        self._every = min(RENEW_SECONDS, settings().deadline_seconds / 3)
        self._renewed, self._longest = begun, 0.0  # a `time.monotonic`, and seconds

    def longest_gap(self) -> float:
        """The longest gap so far in seconds, including the current one."""
        return max(self._longest, time.monotonic() - self._renewed)

    def renew(self) -> None:
        """Renew the deadline if it is time to. Raises `Dropped`."""
        if time.monotonic() - self._renewed <= self._every:
            return
        with watch.on(None), suppress(BrokerError):  # work goes on while Redis is lost
            if not ledger_without_retry().renew(*self.chunk):
                raise Dropped
        # Set even if Redis was lost: a gap that Redis caused says nothing about the worker
        self._longest, self._renewed = self.longest_gap(), time.monotonic()

    def read(self, row: int, content: bytes, reader: Reader[T]) -> Iterator[T]:
        """Read an image, and renew the deadline between its steps. Raises `Dropped`."""
        self.renew()
        for outcome in reader(content):
            yield outcome
            self.renew()


def careful_reader(deadline: Deadline, suspects: Sequence[int] = ()) -> Read:
    """A function that reads one image at a time, and notes each before it is read.

    An image that killed two workers becomes an error row. If they died while they read other views
    of it, it is classified without these. The first death, before which nothing was noted, is
    blamed on the rows that are `suspects`.
    """
    deaths = ledger().poison_rows(*deadline.chunk) or [*suspects]

    def note(poison_rows: list[int]) -> None:
        with watch.on(None):  # if Redis is lost, the wait is not the image's time
            ledger().note_poison_rows(*deadline.chunk, poison_rows)

    def read(row: int, content: bytes, reader: Reader[T]) -> Iterator[T]:
        mark = ~row if reader is trace_other_views else row
        if deaths.count(mark) >= FATAL_DEATHS:
            raise ImageError("this image crashes workers")
        note([*deaths, mark])
        try:
            *_, outcome = deadline.read(row, content, reader)
        finally:
            note(deaths)
        yield outcome

    return read
