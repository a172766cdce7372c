"""A submitted job: its results in source order, its progress, cancelling it."""

import asyncio
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from weakref import finalize

import pyarrow as pa

from digitq.producer.feeder import FEEDER_POLL_SECONDS, HEARTBEAT_SECONDS, LACK_OF_ROOM, Feeder
from digitq.protocol.broker.connection import connect
from digitq.protocol.capacity import FREE_FILL
from digitq.protocol.chunk import (
    decode_result,
    decode_truth,
    name_rows,
    named_schema,
    result_schema,
)
from digitq.protocol.errors import (
    BrokerError,
    DigitqError,
    JobAbandonedError,
    ResultsExpiredError,
    UnknownJobError,
    UsageError,
)
from digitq.protocol.host.thread import DaemonThread
from digitq.protocol.ledger import Ledger
from digitq.protocol.origin import Origin
from digitq.protocol.records import JobRecord
from digitq.protocol.settings import read_by, settings
from digitq.protocol.text import in_one_line, plural

MAX_RESULTS = 8  # one request fetches the results of at most this many chunks
IDLE_MS = 500  # after this long without a result, the job is checked
GONE_SECONDS = 2 * HEARTBEAT_SECONDS  # a submitter is gone if a collector hears nothing for so long
LOGGED_CHECKS = 20  # after this many checks without a result, a warning is logged

logger = logging.getLogger(__name__)
Rows = tuple[pa.RecordBatch, pa.Array | None]  # of a chunk's result, and their right answers


@dataclass
class Cursor:
    """How far a reader of a job's results is."""

    number: int  # the number of the chunk whose result comes next
    images: int = 0  # how many images the chunks before it have
    skipped: int = 0  # how many rows the reader leaves out from here on, because it has them
    sync: Callable[[], None] | None = None  # brings the rows so far to the disk of the reader
    freed: int = 0  # how many chunks have had their results deleted to make room
    last: bytes = b"0"  # the latest of the job's events that the reader has seen
    taken: list[int] = field(default_factory=list)  # chunks whose results Redis may delete


class Job:
    """One job in Redis.

    An attached job (the default of `Client.submit`) is fed by this process while its results are
    collected. Each result is deleted when it is taken. The job is cancelled if this object is
    deleted before everything is fed; after that, Redis forgets the job after an hour.

    A detached job can be collected from any host, and again within an hour after that.
    """

    def __init__(
        self,
        job_id: str,
        model: str,
        ledger: Ledger,
        feeder: Feeder | None,
        origin: Origin = Origin(),  # noqa: B008 (frozen)
    ) -> None:
        self.id, self.model, self.origin = job_id, model, origin
        self.on_idle = ledger.on_idle
        self.ledger, self._feeder = ledger, feeder
        self.attached = feeder is not None and feeder.attached
        self._attached_feeder = feeder if self.attached else None
        self._abandoned_since = math.inf  # when the job was first seen to be, if it still is
        self._checks = 0  # how often the job was checked since the last result
        self._process = os.getpid()  # a forked process has no feeder
        self._next = 0  # the number of the chunk that an attached job collects next
        self._batches: list[pa.RecordBatch] = []  # `table` of an attached job has these so far
        self._table: pa.Table | None = None
        if self._attached_feeder:
            finalize(self, self._attached_feeder.drop).atexit = False

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows: how far the job is."""
        try:
            with connect(self.ledger.redis.url) as redis:  # a notebook waits for no lost Redis
                record = Ledger(redis).record(self.id)
        except DigitqError as error:
            return escape(in_one_line(f"job {self.id}: {error}"))
        done, images = record.done_images, record.images
        parts = [
            f"job {record.id}: {record.state}{f' ({record.reason})' if record.reason else ''}",
            f"{done:,} of {plural(images, 'image')} done{' so far' * (not record.is_fed)}",
            f"{record.failed:,} with an error",
            f"{record.review:,} to review",
            f"model {record.model}",
        ]
        bar = f'<progress value="{done}" max="{max(1, images)}"></progress> '
        return bar * record.is_fed + escape(in_one_line(", ".join(parts)))

    @property
    def _schema(self) -> pa.Schema:
        """The columns of the results in Redis."""
        return result_schema(read_by(self.model), self.origin.form is not None)

    def progress(self) -> JobRecord:
        """The current counts of the job. Raises `UnknownJobError`."""
        return self.ledger.record(self.id)

    @property
    def waiting_for(self) -> str | None:
        """What the feeder waits for before it stores more, in words; None if nothing."""
        return self._feeder.waiting_for if self._feeder else None

    @property
    def lacks(self) -> str:
        """What is missing for the next result, in words. Raises `UnknownJobError`."""
        if self._feeder is None:
            record = self.progress()
            if record.held_images:
                return f"{LACK_OF_ROOM}; `digitq collect {self.id} -o OUT` makes room"
            is_behind = record.state == "feeding" and record.done_chunks == record.chunks
            return "whoever submits it" if is_behind else "a worker"
        if self.waiting_for not in (None, "results"):
            return str(self.waiting_for)
        return "the source" if self.attached and self._feeder.has_all_collected else "a worker"

    def results(
        self, skipped: int = 0, sync: Callable[[], None] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield result batches in source order, with the columns `RESULT_SCHEMA` of
        `digitq.protocol.chunk`, or `NUMBER_SCHEMA` of a job that reads whole numbers.

        For an attached job, a second call goes on where the first one stopped; `cancel` the job if
        you need no more results. If reading the source raises an error, it is raised here; for an
        attached job, after the results of the chunks before it.

        For a detached job, the first `skipped` rows are left out, counted with those that pages do
        not have. If `sync` is given and Redis
        lacks room, results that were yielded are deleted there. `sync` is called before, and must
        bring the rows to the disk: nobody can collect them again.

        Raises `JobCancelledError`, `JobFailedError`, `JobAbandonedError`, `UnknownJobError`,
        `ResultsExpiredError`, `BrokerError`, and `UsageError` if an attached job has two readers.
        """
        cursor = self._start_reading(skipped, sync)
        while (batches := self._fetch(cursor)) is not None:
            for batch, truth in batches:
                self._take(cursor, batch)
                if cursor.skipped < batch.num_rows:
                    right = None if truth is None else truth.slice(cursor.skipped)
                    yield name_rows(batch.slice(cursor.skipped), right)
                cursor.skipped = max(0, cursor.skipped - batch.num_rows)

    async def results_async(self) -> AsyncIterator[pa.RecordBatch]:
        """`results` for coroutines. If one is cancelled while it waits, no result is lost: another
        call goes on there, or for a detached job begins again. Raises as `results`."""
        wait = asyncio.get_running_loop().run_in_executor
        # The event loop's default pool has few threads, which others need too
        thread = DaemonThread(f"reader of job {self.id}")
        try:
            cursor = await wait(thread, self._start_reading)
            while (batches := await wait(thread, self._fetch, cursor)) is not None:
                for batch, truth in batches:
                    self._take(cursor, batch)
                    yield name_rows(batch, truth)
        finally:
            thread.shutdown(wait=False)  # it ends within `IDLE_MS`, or once Redis is given up

    def _start_reading(self, skipped: int = 0, sync: Callable[[], None] | None = None) -> Cursor:
        """Raises `UsageError` for an attached job of another process, `ResultsExpiredError`."""
        if self._feeder:
            return Cursor(self._next)
        record = self.progress()
        if record.attached:
            raise UsageError(f"job {self.id} is collected by the process that submitted it")
        freed = record.freed_images
        if skipped < freed:
            self._raise_if_freed(record, 0)
        first = record.freed_chunks
        return Cursor(first, freed, skipped - freed, sync, freed=first)

    def _fetch(self, cursor: Cursor) -> list[Rows] | None:
        """The results that are there now; none after a wait of `IDLE_MS`. None at the end."""
        self._check_reader(cursor.number)
        state = self._state(cursor.number)
        if cursor.sync and cursor.number > cursor.freed:
            memory = self.ledger.memory()
            if memory.is_full or state == "feeding" and memory.fill > FREE_FILL:
                cursor.sync()
                self.ledger.free(self.id, cursor.number, cursor.images)
                cursor.freed = cursor.number
        if state == "collected":
            if not self.attached:
                self._check_total(cursor.images)
            end = self.ledger.finish if self.attached else self.ledger.release
            end(self.id)
            return None
        taken, cursor.taken = cursor.taken, []
        found = self.ledger.results(self.id, cursor.number, MAX_RESULTS, drop=taken)
        if found[0][0] is None:
            if state == "done":
                raise ResultsExpiredError(
                    f"Redis no longer keeps the results of job {self.id}: submit it again"
                )
            cursor.last = self._wait(cursor.last)
        batches: list[Rows] = []
        for number, (payload, truth) in enumerate(found, cursor.number):
            if payload is None:
                break
            batches.append(self._decode(number, payload, truth))
        return batches

    def _decode(self, number: int, payload: bytes, kept: bytes | None) -> Rows:
        """The result rows of a chunk with their right answers. Redis has `kept` those of a detached
        job, and the feeder those of an attached one."""
        chunk = self._attached_feeder.find_chunk(number) if self._attached_feeder else None
        results = decode_result(payload, self._schema, chunk.rows if chunk else None)
        truth = chunk.truth if chunk else None
        if kept is not None:
            truth = decode_truth(kept, read_by(self.model), results.num_rows)
        return results, truth

    def _check_total(self, rows: int) -> None:
        """Raises `BrokerError` if the results of a detached job have other than `rows` rows."""
        if (images := self.progress().images) != rows:
            raise BrokerError(
                f"the results of job {self.id} have {plural(rows, 'row')}, and its chunks "
                f"{images:,}: submit the job again"
            )

    def _take(self, cursor: Cursor, batch: pa.RecordBatch) -> None:
        """Note that the next chunk's results are handed out."""
        if self._attached_feeder:
            self._check_reader(cursor.number)
            self._attached_feeder.collected(cursor.number)
            self._next = cursor.number + 1
            cursor.taken.append(cursor.number)
        cursor.number += 1
        cursor.images += batch.num_rows

    def _check_reader(self, number: int) -> None:
        """Raises `UsageError` if another reader has taken a chunk of an attached job."""
        if self._attached_feeder and (number != self._next or os.getpid() != self._process):
            raise UsageError(
                f"job {self.id} is attached: its results can be read once, by one reader"
            )

    def table(self) -> pa.Table:
        """Wait for all results; for an attached job, those that `results` has not yielded. It can
        be called again if it is interrupted. Raises as `results`."""
        if self._table is None:
            batches = self._batches if self.attached else []  # a detached job starts again
            batches.extend(self.results())
            has_form = self.origin.form is not None
            schema = None if batches else named_schema(read_by(self.model), has_form)
            self._table = pa.Table.from_batches(batches, schema)
        return self._table

    def wait_until_stored(self, timeout_seconds: float | None = None) -> bool:
        """Wait until all of a detached job is in Redis; False if `timeout_seconds` ran out. For an
        attached job, another thread must collect results meanwhile: Redis holds a limited number
        of its chunks. Raises as `results`."""
        if self._feeder and os.getpid() == self._process:
            self._feeder.is_awaited = True
            ended = self._feeder.ended.wait(timeout_seconds)
            if self._feeder.error:
                raise self._feeder.error
            return ended
        end = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        while not (record := self.progress()).is_fed:
            self._raise_if_not_whole(record)
            if time.monotonic() > end:
                return False
            time.sleep(FEEDER_POLL_SECONDS)  # the feeder is in another process and can't wake this
        self._raise_if_not_whole(record)
        return True

    def cancel(self, ledger: Ledger | None = None) -> None:
        """Stop feeding and delete the job's data in Redis except its record. Raises
        `UnknownJobError`, `BrokerError`."""
        if self._feeder:
            self._feeder.stop()
        (ledger or self.ledger).cancel(self.id)

    def _state(self, number: int) -> str:
        """The state of the job; `collected` if it has no chunk `number`."""
        if self._feeder:
            self._feeder.is_awaited = True
            if self._feeder.error and not self._feeder.has_results_left:
                if self._feeder.has_source_failed:
                    self._feeder.cancel()  # all results before the error are collected by now
                raise self._feeder.error
        if self._attached_feeder:
            return "collected" if self._attached_feeder.total == number else "running"
        record = self.progress()
        self._raise_if_freed(record, number)
        if record.is_stopped or record.chunks == number and not self._feeder:
            self._raise_if_not_whole(record)
        return "collected" if record.state == "done" and record.chunks == number else record.state

    def _raise_if_freed(self, record: JobRecord, number: int) -> None:
        if number < record.freed_chunks:
            first = f"the first {plural(record.freed_images, 'image')} of job {self.id}"
            raise ResultsExpiredError(
                f"the results of {first} were deleted from Redis to make room: they are only in "
                "the file of the `digitq collect` that took them"
            )

    def _raise_if_not_whole(self, record: JobRecord) -> None:
        record.raise_if_stopped()
        # Every job looks abandoned if the clock of Redis was set forward, or its machine has slept,
        # until its submitter is heard again
        is_abandoned, now = record.state == "abandoned", time.monotonic()
        self._abandoned_since = min(self._abandoned_since, now) if is_abandoned else math.inf
        if now - self._abandoned_since > GONE_SECONDS:
            raise JobAbandonedError(
                f"job {self.id} is incomplete and its submitter is gone; "
                f"`digitq cancel {self.id}` deletes it"
            )

    def _wait(self, last: bytes) -> bytes:
        """Wait for a result; if none comes, repair what Redis may have lost. Raises
        `JobCancelledError` or `JobFailedError` if an attached job was ended elsewhere."""
        after = self.ledger.wait(self.id, last, IDLE_MS)
        self._checks = self._checks + 1 if after == last else 0
        if after == last:
            self.ledger.sweep_job(self.id, settings().deadline_seconds)
            if self._attached_feeder:
                with suppress(UnknownJobError):  # Redis has lost the job; `repair` stores it again
                    record = self.progress()
                    if record.is_stopped:
                        self._attached_feeder.stop()
                    record.raise_if_stopped()
                self._attached_feeder.repair()
                self._attached_feeder.heartbeat()
            if self.on_idle:
                self.on_idle()
            elif self._checks == LOGGED_CHECKS:
                logger.warning("job %s waits for %s", self.id, self.lacks)
        return after
