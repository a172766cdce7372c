"""The ledger: each job's books in Redis, so that no image is lost and none is answered twice.

Every change is one Lua script (`ledger.lua`), so whoever dies between two leaves the books in
order; a chunk's message enters the queue in the very step that books it as queued. A chunk's
payload travels beside the script: to Redis in one transaction with it. The keys of a job are its
record `digitq:job:<id>` and that name with a suffix.
"""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import Any, NamedTuple, Self

from redis.exceptions import NoScriptError

from protocol.broker.connection import RetryingRedis
from protocol.chunk import KINDS, Kind
from protocol.errors import BrokerError, JobCancelledError, UnknownJobError

ACTIVE = "digitq:active"
JOBS = "digitq:jobs"
WATERMARK = "digitq:watermark"
LAST_CALL = "digitq:last-call"
SWEEP_LOCK = "digitq:sweeping"
QUEUE = "digitq"  # the Celery queue, a list in the same database
LOOK_SECONDS = 1.5  # for a worker's sweep
FLUSH_MS = 4000  # less than a connection waits for an answer
PATIENCE = 3  # a chunk is waited for so many times the longest silence of its workers
SUBMITTER_SECONDS = 60  # without a word from a job's submitter, until it is taken to be gone
COLLECTED_TTL_SECONDS = 3600  # a collected job can be collected again for so long
IS_ID = re.compile(r"[\w-]+", re.ASCII).fullmatch  # else it might be another key of a job
SCRIPT = f"local PATIENCE = {PATIENCE}\n" + files("protocol").joinpath("ledger.lua").read_text()


class Begun(NamedTuple):
    """A chunk that a worker has begun; `attempt` counts from 1, `time` is of `time.monotonic`."""

    payload: bytes | memoryview
    model: str
    attempt: int
    time: float


class JobSpec(NamedTuple):
    """What a job's record says from the first; its fields' names in Redis."""

    id: str
    model: str
    source: str  # in words
    attached: bool  # it lives no longer than its submitter
    in_flight: int  # chunks in the queue or at a worker at a time
    ttl: int  # seconds after its last change

    def flat(self) -> list[str | int]:
        """Names and values in turn."""
        fields = self._asdict() | {"attached": int(self.attached)}
        return [part for pair in fields.items() for part in pair]


@dataclass(frozen=True)
class JobRecord:
    """One job as Redis knows it. Times are of Redis's clock, counts are of images or chunks."""

    id: str
    state: str  # feeding, running, done, cancelled; abandoned: feeding, but its submitter is gone;
    # collected: done, but its results were given once, to its submitter
    model: str
    source: str
    created: datetime
    finished: datetime | None
    images: int
    done_images: int
    failed: int
    chunks: int
    done_chunks: int
    bytes: int
    most_attempts: int  # how often any one chunk was begun, at most
    attached: bool
    silent_seconds: float  # the longest that a worker was not heard of while at one of its chunks
    reason: str | None  # why a worker cancelled it

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> Self:
        """The record from the fields of its hash in Redis."""

        def when(name: str) -> datetime:
            return datetime.fromtimestamp(float(fields[name]), UTC)

        return cls(
            id=fields["id"],
            state=fields["state"],
            model=fields["model"],
            source=fields["source"],
            created=when("created"),
            finished=when("finished") if "finished" in fields else None,
            images=int(fields["images"]),
            done_images=int(fields["done_images"]),
            failed=int(fields.get("failed", 0)),
            chunks=int(fields["stored"]),
            done_chunks=int(fields["done_chunks"]),
            bytes=int(fields.get("bytes", 0)),
            most_attempts=int(fields.get("most_attempts", 0)),
            attached=fields["attached"] == "1",
            silent_seconds=int(fields.get("silent_ms", 0)) / 1000,
            reason=fields.get("reason"),
        )

    @property
    def seconds(self) -> float:
        """From creation to the end, or until now; no less than 0, whatever the clocks say."""
        return max(0, ((self.finished or datetime.now(UTC)) - self.created).total_seconds())

    def raise_if_cancelled(self) -> None:
        """Raises `JobCancelledError`; it says why where a worker did it."""
        if self.state == "cancelled":
            why = f": {self.reason}" if self.reason else ""
            raise JobCancelledError(f"job {self.id} was cancelled{why}")


def record_key(job_id: str) -> str:
    """The key of a job's record; its other keys begin with it."""
    return f"digitq:job:{job_id}"


class Ledger:
    """The ledger's steps over one Redis connection that gives bytes.

    Every method may raise `BrokerError` where Redis can't be reached.
    """

    def __init__(self, redis: RetryingRedis) -> None:
        self.redis: Any = redis  # its types allow for decoded answers; ours gives bytes
        self._script = redis.register_script(SCRIPT)

    def _step(self, job_id: str, step: str, *args: bytes | memoryview | str | float) -> Any:
        return self._script(keys=self._keys(job_id), args=[step, *args])

    def _keys(self, job_id: str) -> list[str]:
        return [record_key(job_id), WATERMARK, QUEUE, ACTIVE, JOBS, LAST_CALL]

    def open(self, spec: JobSpec) -> None:
        """Begin a job that is about to be fed."""
        self._step(spec.id, "open", *spec.flat())

    def dispatch(
        self,
        spec: JobSpec,
        base: tuple[int, int],
        number: int,
        rows: int,
        payload: bytes | memoryview,
    ) -> tuple[int, dict[Kind, float]]:
        """Store a chunk; how many Redis has now: no more than `number` where it has lost some. And
        how many seconds an image took, by its kind, of the last chunk that is done; 0 where there
        is none.

        Where Redis has no record, `spec` makes one, with `base`, the first chunk not yet collected
        and its first row, as its start. Raises `JobCancelledError`.
        """
        chunks, keys = record_key(spec.id) + ":chunks", self._keys(spec.id)
        step = "dispatch", *base, number, rows, *spec.flat()
        store = (
            ("HSET", chunks, number, payload),  # within the script it would be copied twice more
            ("EXPIRE", chunks, spec.ttl),
            ("EVAL", SCRIPT, len(keys), *keys, *step),  # by its hash, it might be unknown
            ("HMGET", record_key(spec.id), *(f"{kind}_ns" for kind in KINDS)),
        )
        *_, stored, paces = self.redis.transact(*store)
        seconds = {kind: int(pace or 0) / 1e9 for kind, pace in zip(KINDS, paces, strict=True)}
        return int(self._unless_cancelled(spec.id, stored)), seconds

    def seal(self, spec: JobSpec, base: tuple[int, int], total: int) -> int:
        """Note that all `total` chunks are stored; how many Redis has: fewer where it has lost
        some. Raises `JobCancelledError`."""
        reply = self._step(spec.id, "seal", *base, total, *spec.flat())
        return int(self._unless_cancelled(spec.id, reply))

    def submit(self, spec: JobSpec, rows: int, payload: bytes | memoryview) -> None:
        """Store a job that is one chunk. Raises `JobCancelledError`."""
        reply = self._step(spec.id, "submit", rows, payload, *spec.flat())
        self._unless_cancelled(spec.id, reply)

    def begin(self, job_id: str, number: int) -> Begun | None:
        """Take a queued chunk. None where it is done, being done elsewhere, or cancelled."""
        keys = self._keys(job_id)
        ask = partial(
            self.redis.execute_pair,
            ("EVALSHA", self._script.sha, len(keys), *keys, "begin", number),
            ("HGET", record_key(job_id) + ":chunks", number),  # a script would copy it twice more
        )
        try:
            reply, begun, payload = ask()
        except NoScriptError:
            self.redis.script_load(SCRIPT)
            reply, begun, payload = ask()
        if not reply or payload is None:
            return None
        model, attempt = reply
        return Begun(payload, model.decode(), attempt, begun)

    def complete(
        self,
        job_id: str,
        number: int,
        silent_seconds: float,
        result: bytes | memoryview,
        failed: int,
        kind: Kind,
        pace: float,
    ) -> bool:
        """Hand in the result of a chunk, for how long Redis heard nothing of it meanwhile, at most,
        and how many seconds each of its images took, 0 where it had none. False where another was
        first."""
        args = int(1e3 * silent_seconds), result, failed, kind, int(1e9 * pace)
        return bool(self._step(job_id, "complete", number, *args))

    def fail(self, job_id: str, number: int) -> int:
        """Note that a chunk could not be classified; gives how often that was so."""
        return int(self._step(job_id, "fail", number))

    def renew(self, job_id: str, number: int) -> bool:
        """A worker is still at the chunk: its deadline is put off. False where it may stop, since
        another was first or the job was cancelled."""
        return bool(self._step(job_id, "renew", number))

    def is_running(self, job_id: str, number: int) -> bool:
        """Whether a worker is at the chunk; or died there, and nobody has swept since."""
        return self.redis.zscore(record_key(job_id) + ":running", number) is not None

    def has_worker(self) -> bool:
        """Whether one is there, which sweeps each second; to find none takes longer than that."""
        end = time.monotonic() + LOOK_SECONDS
        while not (found := self.redis.exists(SWEEP_LOCK)) and time.monotonic() < end:
            time.sleep(0.05)  # between two looks
        return bool(found)

    def running(self) -> list[str]:
        """The ids of the jobs at a chunk of which a worker is, or died."""
        return [one for one in self.active() if self.redis.exists(record_key(one) + ":running")]

    def poison_rows(self, job_id: str, number: int) -> list[int]:
        """The rows of a chunk that were being read when a worker died, one for each death; ~row
        where it was for other views of the image."""
        noted = self.redis.hget(record_key(job_id) + ":poison_rows", str(number)) or b""
        return [int(row) for row in noted.split()]

    def note_poison_rows(self, job_id: str, number: int, rows: list[int]) -> None:
        """Note what `poison_rows` gives should the worker die now."""
        self._step(job_id, "note_poison_rows", number, " ".join(map(str, rows)))

    def flush(self, job_id: str) -> None:
        """Wait until all of the job so far is on Redis's disk: where it keeps an append-only file,
        and can say so (from 7.2 on)."""
        with self.redis.client() as connection, suppress(BrokerError):
            self._script(keys=self._keys(job_id), args=["heartbeat"], client=connection)
            connection.execute_command("WAITAOF", 1, 0, FLUSH_MS)

    def heartbeat(self, job_id: str) -> None:
        """Note that the job's submitter lives, though it may have nothing to store."""
        self._step(job_id, "heartbeat")

    def sweep(self, deadline_seconds: float) -> None:
        """Publish the overdue chunks of all active jobs again."""
        for job_id in self.active():
            self.sweep_job(job_id, deadline_seconds)

    def sweep_job(self, job_id: str, deadline_seconds: float) -> None:
        """Publish the overdue chunks of one job again."""
        self._step(job_id, "sweep", deadline_seconds)

    def active(self) -> list[str]:
        """The ids of the jobs that are not done."""
        return sorted(member.decode() for member in self.redis.smembers(ACTIVE))

    def cancel(self, job_id: str, *reason: str) -> None:
        """Drop everything of the job but its record. Raises `UnknownJobError`."""
        self.record(job_id)
        self._step(job_id, "close", "cancelled", *reason)

    def _unless_cancelled(self, job_id: str, reply: Any) -> Any:
        """The reply of a step that gives none where its job was cancelled."""
        if reply is None:
            self.record(job_id).raise_if_cancelled()
        return reply

    def finish(self, job_id: str) -> None:
        """An attached job is collected: only its record stays."""
        self._step(job_id, "close", "collected")

    def record(self, job_id: str) -> JobRecord:
        """The job's record. Raises `UnknownJobError`."""
        flat, silent_seconds = self._step(job_id, "read") if IS_ID(job_id) else ([], 0)
        if not flat:
            raise UnknownJobError(f"no job {job_id!r}: `digitq jobs` lists those there are")
        texts = [part.decode() for part in flat]
        record = JobRecord.parse(dict(zip(texts[::2], texts[1::2], strict=True)))
        if record.state == "feeding" and silent_seconds > SUBMITTER_SECONDS:
            return replace(record, state="abandoned")
        return record

    def records(self) -> list[JobRecord]:
        """All jobs that Redis still has a record of, the oldest first."""
        found = []
        for member in self.redis.zrange(JOBS, 0, -1):
            try:
                found.append(self.record(member.decode()))
            except UnknownJobError:
                self.redis.zrem(JOBS, member)
        return found

    def results(self, job_id: str, start: int, count: int, drop: list[int]) -> list[bytes | None]:
        """The results of `count` chunks from `start` on, None where there is none (yet); those of
        `drop` are deleted."""
        found: list[bytes | None] = self._step(job_id, "results", start, count, *drop)
        return found

    def take(self, job_id: str) -> bytes | None:
        """The result of a job that is one chunk, where it is there: then the job is forgotten."""
        result: bytes | None = self._step(job_id, "take")
        return result

    def wait(self, job_id: str, after: bytes, timeout_ms: int) -> bytes:
        """Wait until a chunk is completed; gives the place in the stream to wait after next."""
        reply: Any = self.redis.xread({record_key(job_id) + ":done": after}, block=timeout_ms)
        return reply[0][1][-1][0] if reply else after

    def release(self, job_id: str) -> None:
        """A detached job is collected: its results go after an hour, its record stays."""
        for suffix in (":results", ":done"):
            self.redis.expire(record_key(job_id) + suffix, COLLECTED_TTL_SECONDS)
