"""The ledger: the state of every job in Redis, so that no image is lost or answered twice.

Each change is one atomic Lua script (`ledger.lua`), so a process that dies between two changes
leaves a consistent state. The script that marks a chunk as queued also writes its Celery message. A
chunk's payload is sent beside the script, in the same transaction. The keys of a job are its record
`digitq:job:<id>` and that name with a suffix.
"""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import Any, Literal, NamedTuple, Self, cast

from redis.exceptions import NoScriptError

from protocol.broker.connection import RetryingRedis
from protocol.chunk import KINDS, Kind
from protocol.errors import BrokerError, JobCancelledError, JobFailedError, UnknownJobError

ACTIVE = "digitq:active"
JOBS = "digitq:jobs"
WATERMARK = "digitq:watermark"
SWEEP_LOCK = "digitq:sweeping"
QUEUE = "digitq"  # the Celery queue, which kombu keeps as a list of this name
CALLS_PRIORITY = -1  # of single calls; kombu takes messages from the lowest priority number first
CALLS_QUEUE = f"{QUEUE}\x06\x16{CALLS_PRIORITY}"  # kombu's name for the list of that priority
PATIENCE = 3  # a job's deadline is at least this many times its workers' longest silence
SUBMITTER_SECONDS = 60  # a submitter that is silent for longer is taken to be gone
COLLECTED_TTL_SECONDS = 3600  # the results of a collected job can be collected again for this long
IS_ID = re.compile(r"[\w-]+", re.ASCII).fullmatch  # excludes `:`, so that no id names another key
SCRIPT = f"local PATIENCE = {PATIENCE}\n" + files("protocol").joinpath("ledger.lua").read_text()

State = Literal["feeding", "running", "done", "collected", "cancelled", "failed", "abandoned"]


class Begun(NamedTuple):
    """A chunk that a worker has begun."""

    payload: bytes | memoryview
    model: str
    attempt: int  # from 1
    time: float  # of `time.monotonic`


class ChunkResult(NamedTuple):
    """What a worker hands in for a chunk."""

    payload: bytes | memoryview  # the result rows, as one Arrow IPC stream
    failed: int  # rows with an error
    kind: Kind
    image_seconds: float  # time for each image without an error; 0 if all have one
    silent_seconds: float  # the longest time in which the worker gave no sign of life


class JobSpec(NamedTuple):
    """The part of a job's record that never changes. Fields have the same names in Redis."""

    id: str
    model: str
    source: str  # a description for people
    attached: bool  # whether the job lives no longer than its submitter
    in_flight: int  # how many chunks may be queued or running at a time
    ttl: int  # seconds that Redis keeps the job after its last change

    def flat(self) -> list[str | int]:
        """The names and values in turn."""
        fields = self._asdict() | {"attached": int(self.attached)}
        return [part for pair in fields.items() for part in pair]


@dataclass(frozen=True)
class JobRecord:
    """One job as Redis knows it. Times are by the clock of Redis; counts are images or chunks.

    `state` is one of:
    - `feeding`: its submitter still stores chunks
    - `running`: all chunks are stored
    - `done`: all chunks have a result
    - `collected`: it was attached, and its submitter has taken all results
    - `cancelled`: someone cancelled it
    - `failed`: workers gave up on one of its chunks
    - `abandoned`: it was still fed when its submitter went silent
    """

    id: str
    state: State
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
    most_attempts: int  # the most times that any of its chunks was begun
    attached: bool
    silent_seconds: float  # the longest time in which a worker at a chunk gave no sign of life
    reason: str | None  # why it failed or was cancelled, if that is known

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> Self:
        """The record from the fields of its hash in Redis."""

        def when(name: str) -> datetime:
            return datetime.fromtimestamp(float(fields[name]), UTC)

        return cls(
            id=fields["id"],
            state=cast(State, fields["state"]),
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
        """The time from creation to the end, or until now. If clocks differ, at least 0."""
        return max(0, ((self.finished or datetime.now(UTC)) - self.created).total_seconds())

    @property
    def is_stopped(self) -> bool:
        """Whether the job was cancelled or has failed."""
        return self.state in ("cancelled", "failed")

    def raise_if_stopped(self) -> None:
        """Raises `JobCancelledError` or `JobFailedError`, with the reason if there is one."""
        why = f": {self.reason}" if self.reason else ""
        if self.state == "cancelled":
            raise JobCancelledError(f"job {self.id} was cancelled{why}")
        if self.state == "failed":
            raise JobFailedError(f"job {self.id} has failed{why}")


def record_key(job_id: str) -> str:
    """The key of a job's record; the job's other keys begin with it."""
    return f"digitq:job:{job_id}"


class Ledger:
    """The operations on jobs, over one Redis connection that returns bytes.

    Every method may raise `BrokerError` if Redis can't be reached.
    """

    def __init__(self, redis: RetryingRedis) -> None:
        self.redis: Any = redis  # redis-py's types allow decoded replies; ours are bytes
        self._script = redis.register_script(SCRIPT)

    def _step(self, job_id: str, step: str, *args: bytes | memoryview | str | float) -> Any:
        return self._script(keys=self._keys(job_id), args=[step, *args])

    def _keys(self, job_id: str) -> list[str]:
        return [record_key(job_id), WATERMARK, QUEUE, ACTIVE, JOBS, CALLS_QUEUE]

    def open(self, spec: JobSpec) -> None:
        """Create the record of a job that is about to be fed."""
        self._step(spec.id, "open", *spec.flat())

    def dispatch(
        self,
        spec: JobSpec,
        base: tuple[int, int],
        number: int,
        rows: int,
        payload: bytes | memoryview,
    ) -> tuple[int, dict[Kind, float]]:
        """Store a chunk and publish it when it is its turn.

        Returns how many chunks Redis has: no more than `number` if it has lost some. Returns also
        how many seconds an image of each kind took in the last chunk that is done; 0 if there is
        none. If Redis has no record of the job, one is made from `spec` and `base`: the number of
        the oldest chunk that is not collected, and of the images before it. Raises
        `JobCancelledError` and `JobFailedError`.
        """
        chunks, keys = record_key(spec.id) + ":chunks", self._keys(spec.id)
        step = "dispatch", *base, number, rows, *spec.flat()
        store = (
            ("HSET", chunks, number, payload),  # a script would copy the payload twice more
            ("EXPIRE", chunks, spec.ttl),
            ("EVAL", SCRIPT, len(keys), *keys, *step),  # EVALSHA could fail within the transaction
            ("HMGET", record_key(spec.id), *(f"{kind}_ns" for kind in KINDS)),
        )
        *_, stored, paces = self.redis.transact(*store)
        seconds = {kind: int(pace or 0) / 1e9 for kind, pace in zip(KINDS, paces, strict=True)}
        return int(self._unless_stopped(spec.id, stored)), seconds

    def seal(self, spec: JobSpec, base: tuple[int, int], total: int) -> int:
        """Note that all `total` chunks are stored.

        Returns how many Redis has: fewer if it has lost some. Raises `JobCancelledError` and
        `JobFailedError`.
        """
        reply = self._step(spec.id, "seal", *base, total, *spec.flat())
        return int(self._unless_stopped(spec.id, reply))

    def submit(self, spec: JobSpec, rows: int, payload: bytes | memoryview) -> None:
        """Store single calls, as a job of one chunk. Raises `JobCancelledError` and
        `JobFailedError`."""
        reply = self._step(spec.id, "submit", rows, payload, *spec.flat())
        self._unless_stopped(spec.id, reply)

    def begin(self, job_id: str, number: int) -> Begun | None:
        """Take a queued chunk. None if it is done, running elsewhere, or its job has ended."""
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

    def complete(self, job_id: str, number: int, result: ChunkResult) -> bool:
        """Hand in the result of a chunk. False if another worker was first or the job has ended."""
        silent_ms, pace_ns = int(1e3 * result.silent_seconds), int(1e9 * result.image_seconds)
        args = silent_ms, result.payload, result.failed, result.kind, pace_ns
        return bool(self._step(job_id, "complete", number, *args))

    def fail(self, job_id: str, number: int) -> int:
        """Note that a chunk could not be classified; returns how often that has happened."""
        return int(self._step(job_id, "fail", number))

    def give_up(self, job_id: str, reason: str) -> None:
        """End a job as failed: everything but its record is dropped."""
        self._step(job_id, "close", "failed", reason)

    def renew(self, job_id: str, number: int) -> bool:
        """Put off the deadline of a running chunk. False if the worker may stop: another one was
        first, or the job has ended."""
        return bool(self._step(job_id, "renew", number))

    def is_running(self, job_id: str, number: int) -> bool:
        """Whether the chunk is running. A chunk whose worker died is, until the next sweep."""
        return self.redis.zscore(record_key(job_id) + ":running", number) is not None

    def has_worker(self) -> bool:
        """Whether a worker is there. If there is none, this takes 1.5 seconds."""
        end = time.monotonic() + 1.5  # every second, one of the workers sweeps
        while not (found := self.redis.exists(SWEEP_LOCK)) and time.monotonic() < end:
            time.sleep(0.05)
        return bool(found)

    def running(self) -> list[str]:
        """The ids of the jobs with a running chunk."""
        return [one for one in self.active() if self.redis.exists(record_key(one) + ":running")]

    def poison_rows(self, job_id: str, number: int) -> list[int]:
        """The rows of a chunk that a worker was reading when it died: one entry for each death, as
        ~row if the worker was reading other views of the image."""
        noted = self.redis.hget(record_key(job_id) + ":poison_rows", str(number)) or b""
        return [int(row) for row in noted.split()]

    def note_poison_rows(self, job_id: str, number: int, rows: list[int]) -> None:
        """Set what `poison_rows` returns if the worker dies now, and put off the deadline."""
        self._step(job_id, "note_poison_rows", number, " ".join(map(str, rows)))

    def flush(self, job_id: str) -> None:
        """Wait until the disk of Redis has all of the job, at most 4 seconds. Does nothing if Redis
        keeps no append-only file or is older than 7.2."""
        with self.redis.client() as connection, suppress(BrokerError):
            self._script(keys=self._keys(job_id), args=["heartbeat"], client=connection)
            connection.execute_command("WAITAOF", 1, 0, 4000)  # ms; the socket's timeout is longer

    def heartbeat(self, job_id: str) -> None:
        """Note that the job's submitter is alive, even if it has nothing to store."""
        self._step(job_id, "heartbeat")

    def sweep(self, deadline_seconds: float) -> None:
        """Publish the overdue chunks of all active jobs again."""
        for job_id in self.active():
            self.sweep_job(job_id, deadline_seconds)

    def sweep_job(self, job_id: str, deadline_seconds: float) -> None:
        """Publish the overdue chunks of one job again."""
        self._step(job_id, "sweep", deadline_seconds)

    def active(self) -> list[str]:
        """The ids of the jobs that have not ended."""
        return sorted(member.decode() for member in self.redis.smembers(ACTIVE))

    def cancel(self, job_id: str, *reason: str) -> None:
        """Drop everything of the job but its record. Raises `UnknownJobError`."""
        self.record(job_id)
        self._step(job_id, "close", "cancelled", *reason)

    def _unless_stopped(self, job_id: str, reply: Any) -> Any:
        """The reply of a step, which is None if the job was cancelled or has failed."""
        if reply is None:
            self.record(job_id).raise_if_stopped()
        return reply

    def finish(self, job_id: str) -> None:
        """End an attached job whose results are all collected: everything but its record is
        dropped."""
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
        """The results of `count` chunks from `start` on, with None for each that is not there. The
        results of the chunks in `drop` are deleted first."""
        found: list[bytes | None] = self._step(job_id, "results", start, count, *drop)
        return found

    def take(self, job_id: str) -> bytes | None:
        """The result of a job of one chunk, or None if there is none yet. Once it is taken, Redis
        forgets the job."""
        result: bytes | None = self._step(job_id, "take")
        return result

    def wait(self, job_id: str, after: bytes, timeout_ms: int) -> bytes:
        """Wait until a chunk is completed or the job ends. Returns the position in the job's stream
        of events to wait after next; `after` itself if nothing happened."""
        reply: Any = self.redis.xread({record_key(job_id) + ":done": after}, block=timeout_ms)
        return reply[0][1][-1][0] if reply else after

    def release(self, job_id: str) -> None:
        """Note that a detached job was collected: its results expire after an hour, its record
        stays."""
        for suffix in (":results", ":done"):
            self.redis.expire(record_key(job_id) + suffix, COLLECTED_TTL_SECONDS)
