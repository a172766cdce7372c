"""The ledger: the state of every job in Redis, so that no image is lost or answered twice.

Each change is one atomic step in Lua (`steps/`), so a process that dies between two changes leaves
a consistent state. The step that marks a chunk as queued also writes its Celery message.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

from redis.exceptions import NoScriptError

from digitq.protocol.asked.known import name_known
from digitq.protocol.asked.own_network import MAX_NETWORK_BYTES, OwnNetwork
from digitq.protocol.broker.connection import (
    Command,
    Payload,
    RetryingRedis,
    refuse_foreign,
    unless_refused,
)
from digitq.protocol.capacity import Memory
from digitq.protocol.chunk import KINDS, Kind
from digitq.protocol.errors import BrokerError, UnknownJobError
from digitq.protocol.heartbeat import MAX_HEARTBEAT_AGE_SECONDS, WorkerState
from digitq.protocol.keys import (
    ACTIVE,
    COUNTERS,
    ENDED,
    IMAGES_QUEUE,
    IS_ID,
    JOBS,
    KNOWN,
    LIVING,
    NETWORK,
    TAKEN,
    TASK_EVENTS,
    WORKER,
    lists_of,
    record_key,
)
from digitq.protocol.ledger import atomic
from digitq.protocol.ledger.script import SCRIPT, SHA, Argument, Call, Reply
from digitq.protocol.records import Begun, BegunCall, ChunkResult, JobRecord, JobSpec, RunningChunk

UNREADABLE = (ValueError, KeyError, TypeError, OverflowError)  # what damage in Redis raises
READ_RECORDS = 1000  # one round trip reads at most this many records
MAX_SHARED_CALLS = 63  # at most this many calls join another one, which takes Redis some 2 ms
AWAIT_SECONDS = 1  # the longest time that `await_image` waits
COLLECTED_TTL_SECONDS = 3600  # the results of a collected job can be collected again for this long

Sent = TypeVar("Sent")


def _decode(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """The fields of a hash as text."""
    return {_text(name): _text(value) for name, value in fields.items()}


def _text(content: bytes) -> str:
    """The text in Redis, where others may have written any bytes."""
    return content.decode(errors="replace")


class Ledger:
    """The operations on jobs, over one connection to Redis. Each may raise `BrokerError`."""

    def __init__(self, redis: RetryingRedis) -> None:
        self.redis: Any = redis  # redis-py's types allow decoded replies; ours are bytes
        # It is called each time that a job or a call has waited half a second for a result. They
        # raise what it raises.
        self.on_idle: Callable[[], None] | None = None
        self._events = TASK_EVENTS.format(redis.connection_pool.connection_kwargs.get("db") or 0)

    def _run(self, job_id: str, call: Call[Reply]) -> Reply:
        """The reply of a step."""
        reply: Reply = self._run_before(job_id, call)[0][0]
        return reply

    def _run_before(
        self, job_id: str, call: Call[Any], *others: Command
    ) -> list[tuple[Any, float]]:
        """What `RetryingRedis.execute` gives for a step and other commands."""
        step = self._command(job_id, call)
        return self._with_script(lambda: self.redis.execute(step, *others))

    def _command(self, job_id: str, call: Call[Any]) -> Command:
        return "EVALSHA", SHA, 1, record_key(job_id), call.step, self._events, *call.arguments

    def _with_script(self, send: Callable[[], Sent]) -> Sent:
        """What `send` gives, which is called again if Redis did not have the script. If this login
        may not load it, a worker does so with its next heartbeat, and is waited for."""
        try:
            return send()
        except NoScriptError:
            is_loaded = False
            with unless_refused():
                is_loaded = bool(self.redis.script_load(SCRIPT))
            self.redis.awaits_script = not is_loaded
            return send()

    def has_script(self) -> bool:
        """Whether Redis has the steps; true if this login may not ask."""
        with unless_refused():
            return bool(self.redis.script_exists(SHA)[0])
        return True

    def open(self, spec: JobSpec) -> None:
        """Create the record of a job that is about to be fed, with what is known of its numbers."""
        self._run(spec.id, atomic.open(*spec.flat()))
        self.know(spec, (0, 0))

    def know(self, spec: JobSpec, base: tuple[int, int]) -> None:
        """Store what is known of the job's numbers, and the network that must answer, unless Redis
        has them. `base` is `dispatch`'s."""
        if spec.known:
            self._run(spec.id, atomic.know(*base, spec.known, *spec.flat()))
        if spec.network and self._run(spec.id, atomic.lend(*base, b"", *spec.flat())):
            self._run(spec.id, atomic.lend(*base, spec.network.payload, *spec.flat()))

    def known(self, job_id: str, name: str) -> bytes:
        """What `know` or `submit` stored. Raises `BrokerError` if Redis has lost it."""
        own, shared = self.redis.mget(record_key(job_id) + ":known", KNOWN + name)
        if (payload := own or shared) is None:
            raise BrokerError(f"Redis has lost what is known of the numbers of job {job_id}")
        return bytes(payload)

    def network(self, name: str) -> OwnNetwork:
        """What `know` or `submit` stored of a network. Raises `BrokerError` if Redis has lost
        it."""
        if not (payload := self.redis.getrange(NETWORK + name, 0, MAX_NETWORK_BYTES)):
            raise BrokerError(f"Redis has lost the network {name}, which a job has brought")
        return OwnNetwork(name, bytes(payload))

    def dispatch(
        self,
        spec: JobSpec,
        base: tuple[int, int],
        number: int,
        rows: int,
        payload: Payload,
        truth: Payload = b"",
    ) -> tuple[int, dict[Kind, float]]:
        """Store a chunk and publish it when it is its turn. Its right answers, if it has any, are
        stored beside it for whoever collects the job.

        Returns how many chunks Redis has (no more than `number` if it has lost some), and how many
        seconds an image of each kind took in the last chunk that is done, or 0. If Redis has no
        record of the job, one is made from `spec` and `base`: the number of the oldest chunk that
        is not collected, and of the images before it. Raises `JobCancelledError`, `JobFailedError`.
        """
        record = record_key(spec.id)
        step = self._command(spec.id, atomic.dispatch(*base, number, rows, *spec.flat()))
        truths = f"{record}:truths"
        kept = (("HSET", truths, number, truth), ("EXPIRE", truths, spec.ttl)) if truth else ()
        commands = (
            ("HSET", f"{record}:chunks", number, payload),  # a script would copy it twice more
            ("EXPIRE", f"{record}:chunks", spec.ttl),
            *kept,
            step,
            ("HMGET", record, *(f"{kind}_ns" for kind in KINDS)),
        )
        *_, stored, paces = self._with_script(lambda: self.redis.transact(*commands))
        seconds = {kind: int(pace or 0) / 1e9 for kind, pace in zip(KINDS, paces, strict=True)}
        return self._unless_stopped(spec.id, stored), seconds

    def seal(self, spec: JobSpec, base: tuple[int, int], total: int) -> int:
        """Note that `total` chunks are all. Returns how many Redis has; raises as `dispatch`."""
        reply = self._run(spec.id, atomic.seal(*base, total, *spec.flat()))
        return self._unless_stopped(spec.id, reply)

    def submit(
        self,
        spec: JobSpec,
        rows: int,
        payload: Payload,
        is_shared: bool = False,
        wait_seconds: float = 0,
    ) -> bytes | None:
        """Store single calls as a job of one chunk. A worker may classify those that are shared
        together with those of other clients. With `wait_seconds`, give what `take` does, in the
        same round trip. Raises as `dispatch`."""
        kind: Literal["shared", "alone"] = "shared" if is_shared else "alone"
        fields = spec.flat()
        names = name_known(spec.known), spec.network.name if spec.network else ""

        def store(known: bytes, network: bytes, *others: Command) -> list[Any]:
            step = atomic.submit(rows, payload, known, network, kind, *names, *fields)
            (stored, _), *replies = self._run_before(spec.id, step, *others)
            return [self._unless_stopped(spec.id, stored), *(reply for reply, _ in replies)]

        # Redis mostly has what is known, and the network, from the calls before
        known, network = spec.known, spec.network.payload if spec.network else b""
        if known and store(b"", b"")[0]:
            known = network = b""
        others = (self._take(spec.id, wait_seconds),) if wait_seconds else ()
        _, *answers = store(known, network, *others)
        return answers[0][1] if any(answers) else None

    def take(self, job_id: str, wait_seconds: float) -> bytes | None:
        """The result of single calls, or None if it does not come within this time. It can be taken
        once: Redis has forgotten the calls by then."""
        ((answer, _),) = self.redis.execute(self._take(job_id, wait_seconds))
        return answer and bytes(answer[1])

    def _take(self, job_id: str, wait_seconds: float) -> Command:
        return "BLPOP", record_key(job_id) + ":results", wait_seconds

    def _unless_stopped(self, job_id: str, reply: int | None) -> int:
        """The reply of a step, which is None if the job was cancelled or has failed."""
        if reply is None:
            self.record(job_id).raise_if_stopped()
        return int(reply or 0)

    def begin(self, job_id: str, number: int, worker: str = "") -> Begun | None:
        """Take a queued chunk. None if it is done, running elsewhere, or its job has ended."""
        fetch = "HGET", f"{record_key(job_id)}:chunks", number  # a script would copy it twice more
        step = atomic.begin(number, worker)
        (reply, begun), (payload, _) = self._run_before(job_id, step, fetch)
        if not reply or payload is None:
            return None
        model, attempt, known, source, shares, task = reply
        first = None if source is None else _text(source)
        about = _text(known), first, bool(shares), _text(task)
        return Begun(payload, _text(model), attempt, begun, *about)

    def begin_calls(self, job_id: str, images: int, size: int, worker: str) -> list[BegunCall]:
        """Take single calls that wait, up to so many images and `size` bytes, to be classified with
        this job."""
        reply = self._run(job_id, atomic.begin_calls(MAX_SHARED_CALLS, images, size, worker))
        parts = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        return [BegunCall(id.decode(), payload, message.decode()) for id, payload, message in parts]

    def complete(self, job_id: str, number: int, result: ChunkResult) -> str | None:
        """Hand in the result of a chunk. Returns how far the job is then, for example `48,512 of
        120,000 (40 %), 16 failed`; None if another worker was first or the job has ended."""
        reply = self._run(job_id, atomic.complete(number, *result))
        if not reply:
            return None
        done, images, failed = map(int, reply[:3])
        is_fed = reply[3] != b"feeding"
        share = f"({100 * done // max(1, images)} %)" if is_fed else "stored so far"
        return f"{done:,} of {images:,} {share}, {failed:,} failed"

    def complete_calls(self, text: str, results: Sequence[tuple[BegunCall, ChunkResult]]) -> None:
        """Hand in the results of calls that were taken with `begin_calls`. Flower shows `text`."""
        parts = list[Argument]()
        for call, result in results:
            parts += [call.job_id, call.message_id, *atomic.complete(0, *result).arguments]
        self._run("", atomic.complete_calls(text, *parts))

    def await_image(self) -> None:
        """Wait until another program has sent an image, or for `AWAIT_SECONDS`. The image is then
        in the list `TAKEN`, so that one waiting worker is woken and not all."""
        self.redis.brpoplpush(IMAGES_QUEUE, TAKEN, AWAIT_SECONDS)  # Redis 6.0 has no BLMOVE

    def book_images(self) -> tuple[int, list[bytes]]:
        """Make single calls of images that other programs have sent. Returns how many messages are
        left, and those that were dropped because they hold no image."""
        left, dropped = self._run("", atomic.book_images())
        return left, [*dropped]

    def fail(self, job_id: str, number: int) -> int:
        """Note that a chunk could not be classified; returns how often that has happened."""
        return self._run(job_id, atomic.fail(number))

    def renew(self, job_id: str, number: int) -> bool:
        """Put off the deadline of a running chunk. False if its result is no longer wanted."""
        return bool(self._run(job_id, atomic.renew(number)))

    def poison_rows(self, job_id: str, number: int) -> list[int]:
        """The rows of a chunk that a worker was reading when it died: one entry for each death, as
        ~row if the worker was reading other views of the image."""
        noted = self.redis.hget(record_key(job_id) + ":poison_rows", str(number)) or b""
        return [int(row) for row in noted.split()]

    def note_poison_rows(self, job_id: str, number: int, rows: list[int]) -> None:
        """Set what `poison_rows` returns if the worker dies now, and put off the deadline."""
        self._run(job_id, atomic.renew(number, noted=" ".join(map(str, rows))))

    def is_running(self, job_id: str, number: int) -> bool:
        """Whether the chunk is running. A chunk whose worker died is, until the next sweep."""
        return self.redis.zscore(record_key(job_id) + ":running", number) is not None

    def active(self) -> list[str]:
        """The ids of the jobs that have not ended."""
        return sorted(map(_text, self.redis.smembers(ACTIVE)))

    def next_ended(self) -> str | None:
        """The id of a job whose end is to be logged, a failed one first; no single calls."""
        member = self.redis.lindex(ENDED, 0)
        return None if member is None else str(member.decode(errors="surrogateescape"))

    def forget_ended(self, job_id: str) -> None:
        """Note that a job's end is logged."""
        self.redis.lrem(ENDED, 1, job_id.encode(errors="surrogateescape"))

    def running_chunks(self, job_ids: Sequence[str]) -> list[RunningChunk]:
        """The chunks of these jobs that workers are at."""
        keys = [record_key(job_id) for job_id in job_ids]
        scores = [("ZRANGE", f"{key}:running", 0, -1, "WITHSCORES") for key in keys]
        now, replies = self._read(*scores, *(("HGETALL", f"{key}:begun") for key in keys))
        found = list[RunningChunk]()
        for job_id, scored, begun in zip(job_ids, replies, replies[len(keys) :], strict=False):
            for number, heard in zip((scored or [])[::2], (scored or [])[1::2], strict=True):
                time, _, worker = _text((begun or {}).get(number, heard)).partition(" ")
                with suppress(ValueError):  # it is damaged
                    ages = now - float(time), now - float(heard)
                    found.append(RunningChunk(job_id, int(number), worker, *ages))
        return found

    def note_worker(self, name: str, about: Mapping[str, Any]) -> tuple[int, float, str]:
        """Give a worker's heartbeat; `about` has the fields of `WorkerState` that it knows. Returns
        how many images it has classified since its first one, the time by Redis's clock, and what
        a worker of this name said of itself before, in JSON."""
        call = atomic.note_worker(name, MAX_HEARTBEAT_AGE_SECONDS, json.dumps(about))
        images, now, before = self._run("", call)
        return images, float(now), _text(before or b"")

    def workers(self) -> list[WorkerState]:
        """The workers that live, sorted by name."""
        names = sorted(map(_text, self.redis.zrange(LIVING, 0, -1)))
        now, hashes = self._read(*(("HGETALL", WORKER + name) for name in names))
        found = list[WorkerState]()
        for name, fields in zip(names, hashes, strict=True):
            with suppress(*UNREADABLE):  # it has gone, or is damaged
                found.append(WorkerState.parse(name, _decode(fields or {}), now))
        return found

    def counters(self) -> dict[str, int]:
        """What workers have counted of all jobs, by its name in Redis."""
        found = _decode(self.redis.hgetall(COUNTERS))
        return {name: int(number) for name, number in found.items() if number.isdecimal()}

    def queued_images(self) -> int:
        """How many images of programs without digitq are not in the ledger yet."""
        _, lengths = self._read(*(("LLEN", name) for name in (TAKEN, *lists_of(IMAGES_QUEUE))))
        return sum(filter(None, lengths))

    def has_worker(self) -> bool:
        """Whether a worker lives, or did until some seconds ago."""
        return bool(self.redis.exists(LIVING))

    def flush(self, job_id: str) -> None:
        """Wait until the disk of Redis has all of the job, at most 4 seconds. Does nothing if Redis
        keeps no append-only file or is older than 7.2."""
        with self.redis.client() as connection, suppress(BrokerError):
            Ledger(connection).heartbeat(job_id)
            connection.execute_command("WAITAOF", 1, 0, 4000)  # ms; the socket's timeout is longer

    def heartbeat(self, job_id: str, held_images: int = 0) -> None:
        """Note that the job's submitter is alive, even if it has nothing to store. It holds
        `held_images` images for which Redis has no room."""
        self._run(job_id, atomic.heartbeat(held_images))

    def memory(self) -> Memory:
        """How full Redis is."""
        memory = self.redis.info("memory")
        return Memory(memory["used_memory"], memory["maxmemory"])

    def free(self, job_id: str, chunks: int, images: int) -> None:
        """Delete the results of the first `chunks` chunks, which have `images` images and are in a
        file."""
        self._run(job_id, atomic.free(chunks, images))

    def sweep(self, deadline_seconds: float, interval_seconds: float = 0) -> bool:
        """Publish overdue chunks of the active jobs again, of `MAX_SWEPT` jobs at a time. Does
        nothing and returns False if somebody else did so less than `interval_seconds` ago."""
        return bool(self._run("", atomic.sweep(deadline_seconds, interval_seconds)))

    def sweep_job(self, job_id: str, deadline_seconds: float) -> None:
        """Publish the overdue chunks of one job again. Raises as `refuse_foreign`: workers can do
        nothing then."""
        refuse_foreign(self.redis)
        self._run(job_id, atomic.sweep_job(deadline_seconds))

    def requeue(self, job_id: str, number: int, worker: str) -> None:
        """Publish a chunk again, since the process of `worker` that was at it has died."""
        self._run(job_id, atomic.requeue(number, worker))

    def cancel(self, job_id: str, *reason: str) -> None:
        """Drop everything of the job but its record. Raises `UnknownJobError`."""
        self.record(job_id)
        self._run(job_id, atomic.close("cancelled", *reason))

    def give_up(self, job_id: str, reason: str) -> None:
        """End a job as failed: everything but its record is dropped."""
        self._run(job_id, atomic.close("failed", reason))

    def finish(self, job_id: str) -> None:
        """End an attached job that is collected: everything but its record is dropped."""
        self._run(job_id, atomic.close("collected"))

    def release(self, job_id: str) -> None:
        """Note that a detached job was collected: its results expire, its record stays."""
        for suffix in (":results", ":truths", ":done"):
            self.redis.expire(record_key(job_id) + suffix, COLLECTED_TTL_SECONDS)

    def record(self, job_id: str) -> JobRecord:
        """The job's record. Raises `UnknownJobError`, also if it is damaged."""
        for record in self._read_records([job_id]):
            return record
        if IS_ID(job_id) and self.redis.exists(record_key(job_id)):
            raise UnknownJobError(f"job {job_id!r} can't be read: its record in Redis is damaged")
        raise UnknownJobError(f"no job {job_id!r}: `digitq jobs` lists those there are")

    def records(self, limit: int | None = None) -> list[JobRecord]:
        """The jobs that Redis still has a record of, the oldest first: with a `limit`, the newest
        ones and all that are active."""
        return [record for record in self.records_with_images(limit) if not record.is_image]

    def records_with_images(self, limit: int | None = None) -> list[JobRecord]:
        """What `records` returns, and with a `limit` also the images of other programs."""
        newest = [*map(_text, self.redis.zrange(JOBS, -(limit or 0), -1))]
        ids = [*{*newest, *self.active()}] if limit else newest
        pages = [ids[start : start + READ_RECORDS] for start in range(0, len(ids), READ_RECORDS)]
        records = [record for page in pages for record in self._read_records(page)]
        return sorted(records, key=lambda record: (record.created, record.id))

    def find_jobs(self, beginning: str) -> list[str]:
        """The ids that begin so, of the jobs that Redis still has a record of."""
        ids = [*map(_text, self.redis.zrange(JOBS, 0, -1))]
        records = self._read_records([id for id in ids if id.startswith(beginning)])
        return [record.id for record in records]

    def count_jobs(self) -> int:
        """How many jobs Redis has, with some that have expired."""
        return int(self.redis.zcard(JOBS))

    def _read_records(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """The records that Redis has. Whoever may submit can damage one, which hides no other."""
        now, hashes = self._read(*(("HGETALL", record_key(id)) for id in filter(IS_ID, job_ids)))
        records = list[JobRecord]()
        for fields in filter(None, hashes):
            with suppress(*UNREADABLE):
                records.append(JobRecord.parse(_decode(fields), now))
        return records

    def _read(self, *commands: Command) -> tuple[float, list[Any]]:
        """The time by the clock of Redis, and the replies to the commands; None if a key is of
        another type."""
        (seconds, microseconds), *replies = self.redis.read(("TIME",), *commands, skips_types=True)
        return seconds + microseconds / 1e6, replies

    def results(
        self, job_id: str, start: int, count: int, drop: list[int]
    ) -> list[tuple[bytes | None, bytes | None]]:
        """The results of `count` chunks from `start` on, each with the right answers that
        `dispatch` stored; None for what is not there. The results of the chunks in `drop` are
        deleted first."""
        record, numbers = record_key(job_id), range(start, start + count)
        drops = [("HDEL", f"{record}:results", *drop)] if drop else []
        # A result that is there was stored after its right answers
        reads = (("HMGET", f"{record}:{kind}", *numbers) for kind in ("results", "truths"))
        *_, (results, _), (truths, _) = self.redis.execute(*drops, *reads)
        return [*zip(results, truths, strict=True)]

    def wait(self, job_id: str, after: bytes, timeout_ms: int) -> bytes:
        """Wait until a chunk is completed or the job ends. Returns the position in the job's stream
        of events to wait after next; `after` itself if nothing happened."""
        stream = "STREAMS", record_key(job_id) + ":done", after
        ((reply, _),) = self.redis.execute(("XREAD", "BLOCK", timeout_ms, *stream))
        return reply[0][1][-1][0] if reply else after
