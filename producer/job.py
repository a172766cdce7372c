"""A submitted job: its results in source order, its progress, and its end."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from weakref import finalize

import pyarrow as pa

from producer.feeder import POLL_SECONDS, Feeder
from protocol.chunk import RESULT_SCHEMA, decode
from protocol.errors import JobAbandonedError, UnknownJobError, UsageError
from protocol.ledger import JobRecord, Ledger
from protocol.settings import settings

AHEAD = 8  # results asked for at a time
IDLE_MS = 500  # without a result for so long, look after the job
TOLD_LOOKS = 20  # after it, without a result, until that is logged

logger = logging.getLogger(__name__)


class Job:
    """One job in Redis.

    An attached job (the default of `Client.submit`) is fed by this process while its results are
    collected, once: each is deleted as it is taken. It is cancelled where nobody holds it any
    longer while it is fed; once it is stored, Redis forgets it after an hour. A detached one lives
    in Redis alone, can be collected again for an hour after the last time, from any host.
    """

    def __init__(self, job_id: str, ledger: Ledger, feeder: Feeder | None) -> None:
        self.id = job_id
        self.on_idle: Callable[[], None] | None = None  # called while results are waited for
        self._ledger, self._feeder = ledger, feeder
        self._window = feeder if feeder and feeder.attached else None  # an attached job's
        self.attached = self._window is not None
        self._looks = 0  # after it since a result came
        self._process = os.getpid()  # a fork of it has no feeder
        self._next = 0  # an attached job's chunk to be collected next
        self._batches: list[pa.RecordBatch] = []  # that `table` of an attached job has so far
        self._table: pa.Table | None = None
        if self._window:
            finalize(self, self._window.drop).atexit = False

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def progress(self) -> JobRecord:
        """The job's counts as Redis has them now. Raises `UnknownJobError`."""
        return self._ledger.record(self.id)

    @property
    def waiting_for(self) -> str | None:
        """What keeps the producer from storing more, in words."""
        return self._feeder.waiting_for if self._feeder else None

    @property
    def lacks(self) -> str:
        """What there must be for results to come, in words. Raises `UnknownJobError`."""
        if self._feeder is None:
            record = self.progress()
            is_behind = record.state == "feeding" and record.done_chunks == record.chunks
            return "whoever submits it" if is_behind else "a worker"
        if self.waiting_for not in (None, "results"):
            return str(self.waiting_for)
        return "the source" if self.attached and self._feeder.has_all_collected else "a worker"

    def results(self) -> Iterator[pa.RecordBatch]:
        """Result batches in source order, as they come; see `protocol.chunk.RESULT_FIELDS`.

        An attached job's go on where an earlier call left off; `cancel` a job of which no more are
        wanted. Raises `JobCancelledError`, `JobFailedError`, `UnknownJobError`, `BrokerError`,
        `UsageError` where two read an attached job's at a time, and what the source raised while it
        was read: of an attached job, after the results of the chunks before that.
        """
        if self._feeder is None and self.progress().attached:
            raise UsageError(f"job {self.id} is collected by the process that submitted it")
        number, last = self._next, b"0"
        taken: list[int] = []
        while True:
            self._check_reader(number)
            if (state := self._state(number)) == "collected":
                break
            payloads = self._ledger.results(self.id, number, AHEAD, drop=taken)
            taken = []
            for payload in payloads:
                if payload is None:
                    break
                batch = decode(payload)
                if self._window:
                    self._take(number, self._window)
                    taken.append(number)
                number += 1
                yield batch
            if payloads[0] is None:
                if state == "done":
                    raise UnknownJobError(f"the results of job {self.id} are no longer kept")
                last = self._wait(last)
        if self.attached:
            self._ledger.finish(self.id)
        else:
            self._ledger.release(self.id)

    def _check_reader(self, number: int) -> None:
        """Raises `UsageError` where an attached job's chunk went to another reader."""
        if self._window and (number != self._next or os.getpid() != self._process):
            raise UsageError(
                f"job {self.id} is attached: its results are given once, to one reader"
            )

    def _take(self, number: int, window: Feeder) -> None:
        self._check_reader(number)
        window.collected(number)
        self._next = number + 1

    def table(self) -> pa.Table:
        """All results, of an attached job those that `results` has not given; waits for them.

        Broken off, it may be called again.
        """
        if self._table is None:
            batches = self._batches if self.attached else []  # those come from the first on
            for batch in self.results():
                batches.append(batch)
            schema = batches[0].schema if batches else RESULT_SCHEMA
            self._table = pa.Table.from_batches(batches, schema)
        return self._table

    def wait_until_stored(self, timeout_seconds: float | None = None) -> bool:
        """Wait until Redis has all of a detached job, so that this process may end. (Of an attached
        one it has no more than a window that is not yet collected.) Raises as `results`.

        False where the time ran out.
        """
        if self._feeder is None or os.getpid() != self._process:
            return self._wait_until_fed(timeout_seconds)
        self._feeder.is_awaited = True
        ended = self._feeder.ended.wait(timeout_seconds)
        if self._feeder.error:
            raise self._feeder.error
        return ended

    def _wait_until_fed(self, timeout_seconds: float | None) -> bool:
        """The same of a job that somebody else feeds."""
        end = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        while (record := self.progress()).state == "feeding":
            if time.monotonic() > end:
                return False
            time.sleep(POLL_SECONDS)  # who feeds it can't wake this process
        self._raise_if_not_whole(record)
        return True

    def cancel(self, ledger: Ledger | None = None) -> None:
        """Feed nothing more and drop what is in Redis of the job, but for its record. Raises
        `UnknownJobError`, `BrokerError`."""
        if self._feeder:
            self._feeder.stop()
        (ledger or self._ledger).cancel(self.id)

    def _state(self, number: int) -> str:
        """The job's state, or `collected` where chunk `number` would be one too many."""
        if self._feeder:
            self._feeder.is_awaited = True
        if self._feeder and self._feeder.error and not self._feeder.has_results_left:
            if self._feeder.has_source_failed:
                self._feeder.cancel()  # now that all is collected
            raise self._feeder.error
        if self._window:
            return "collected" if self._window.total == number else "running"
        record = self.progress()
        if record.is_stopped or record.chunks == number and not self._feeder:
            self._raise_if_not_whole(record)
        return "collected" if record.state == "done" and record.chunks == number else record.state

    def _raise_if_not_whole(self, record: JobRecord) -> None:
        record.raise_if_stopped()
        if record.state == "abandoned":
            raise JobAbandonedError(
                f"job {self.id} is not whole: whoever submitted it is gone; "
                f"`digitq cancel {self.id}` drops it"
            )

    def _wait(self, last: bytes) -> bytes:
        """Wait for a result; where none comes, see whether the job has lost something."""
        after = self._ledger.wait(self.id, last, IDLE_MS)
        self._looks = self._looks + 1 if after == last else 0
        if after == last:
            self._ledger.sweep_job(self.id, settings().deadline_seconds)
            if self._window:
                self._look_for_cancel(self._window)
                self._window.repair()
                self._ledger.heartbeat(self.id)
            if self.on_idle:
                self.on_idle()
            elif self._looks == TOLD_LOOKS:
                logger.warning("job %s waits for %s", self.id, self.lacks)
        return after

    def _look_for_cancel(self, window: Feeder) -> None:
        """Raises `JobCancelledError` where somebody else has cancelled an attached job."""
        with suppress(UnknownJobError):  # Redis has lost it; it is stored again
            record = self.progress()
            if record.is_stopped:
                window.stop()
            record.raise_if_stopped()
