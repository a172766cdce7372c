"""The rules of `digitq doctor` as a table: what they look at, the limit, and the message."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from string import Formatter
from typing import Any, TypeVar

from digitq import __version__
from digitq.operate.facts import Facts
from digitq.protocol.broker.address import url_in_command
from digitq.protocol.broker.connection import OLDEST_REDIS
from digitq.protocol.capacity import MAX_FILL
from digitq.protocol.heartbeat import MAX_HEARTBEAT_AGE_SECONDS, WORKER_HEARTBEAT_SECONDS
from digitq.protocol.ledger.script import PATIENCE
from digitq.protocol.settings import settings
from digitq.protocol.text import plural

MAX_CLOCK_SKEW_SECONDS = 1.0  # clocks that differ by less are taken to show the same time
MAX_MISSED_HEARTBEATS = 4  # a worker that misses more of them is frozen or dead
MIN_PASSWORD_CHARACTERS = 12  # others can try thousands of passwords each second
SET = "in redis.conf; an administrator can also set it at once, with `CONFIG SET`"

Fault = Mapping[str, object]  # what fills the blanks of a rule's text
T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """What a rule found; as a string, one line with the remedy."""

    rule: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}; {self.remedy}"


class Text(Formatter):
    """Fills the blanks of a rule's text: lists are joined, and `{NAME:MB}` is a size."""

    def format_field(self, value: Any, spec: str) -> Any:
        if isinstance(value, list):
            return ", ".join(value)
        return f"{value / 2**20:,.0f} MB" if spec == "MB" else super().format_field(value, spec)


def examine(f: Facts) -> list[Finding]:
    """All findings, in the order of `RULES`."""
    findings = []
    for find, text in RULES:
        name, _, rest = text.partition(": ")
        faults = find(f)
        for fault in [{}] if faults is True else faults or ():
            parts = [Text().format(part, f=f, **fault) for part in rest.split("; ", 1)]
            findings.append(Finding(name, *parts))
    return findings


def find_memory_limit(f: Facts) -> Iterable[Fault]:
    """How much one job may put into Redis, if that is more than producers fill."""
    job = max(settings().budget_bytes, settings().window_chunks * settings().chunk_bytes)
    if 0 < f.redis["maxmemory"] < job / MAX_FILL:
        yield {"job": job, "wanted": job / MAX_FILL}


def find_clocks(f: Facts) -> Iterable[Fault]:
    """Clocks that differ from that of Redis."""
    clocks = {worker.name: worker.clock_seconds for worker in f.overview.workers}
    for name, seconds in {"this host": f.clock_seconds, **clocks}.items():
        if abs(seconds) > MAX_CLOCK_SKEW_SECONDS:
            side = "ahead of" if seconds > 0 else "behind"
            yield {"name": name, "seconds": abs(seconds), "side": side}


def find_waiting_work(f: Facts) -> Iterable[Fault]:
    """No worker, the work that waits for one, and databases that may be meant instead."""
    jobs = [job.id for job in f.overview.jobs if job.waiting_images]
    waiting = [f"job {', '.join(jobs)} waits"] if jobs else []
    if images := f.overview.queued_images:
        waiting.append(f"{plural(images, 'image')} of other programs wait")
    if not (f.overview.workers or f.foreign):
        where = f", but database {', '.join(f.elsewhere)} has jobs or workers" * bool(f.elsewhere)
        other = f", or name that database in --broker: …/{f.elsewhere[0]}" if f.elsewhere else ""
        text = f", and {', '.join(waiting)}" * bool(waiting) + where
        yield {"waiting": text, "url": url_in_command(f.redis_url), "other": other}


def find_frozen(f: Facts) -> Iterable[Fault]:
    """Workers that are silent, and those that do not go on with their chunk."""
    for worker in f.overview.workers:
        if worker.silent_seconds > MAX_MISSED_HEARTBEATS * WORKER_HEARTBEAT_SECONDS:
            yield {"name": worker.name, "silence": f"{worker.silent_seconds:,.0f} s"}
    deadline, _ = shortest_deadline(f)
    usual = {job.id: job.silent_seconds for job in f.overview.jobs}
    for chunk in f.overview.running:
        if chunk.silent_seconds > max(deadline / PATIENCE, usual.get(chunk.job_id, 0)):
            at = f"{chunk.silent_seconds:,.0f} s at chunk {chunk.number} of job {chunk.job_id}"
            yield {"name": chunk.worker or "a worker", "silence": at}


def find_unknown_workers(f: Facts) -> Iterable[Fault]:
    """Workers that have a chunk and give no heartbeat."""
    half = MAX_HEARTBEAT_AGE_SECONDS / 2
    busy = [chunk for chunk in f.overview.running if chunk.silent_seconds < half]
    names = {chunk.worker or f"the worker of job {chunk.job_id}" for chunk in busy}
    if unknown := names - {worker.name for worker in f.overview.workers}:
        yield {"names": sorted(unknown)}


def find_kinds(f: Facts) -> Iterable[Fault]:
    """What sets workers apart, if their answers may differ."""
    kinds = group((worker, worker.fingerprint) for worker in f.overview.workers).values()
    if len(kinds) > 1:
        names = [", ".join(worker.name for worker in kind) for kind in kinds]
        have = [f"{who} ({kind[0].kind})" for who, kind in zip(names, kinds, strict=True)]
        yield {"kinds": "; ".join(have)}


def find_crowds(f: Facts) -> Iterable[Fault]:
    """Containers with more computing threads than cores; if there is none, such machines."""
    for shared, limit in (("share", "cores"), ("machine", "machine_cores")):
        found = False
        for crowd in group((one, getattr(one, shared)) for one in f.overview.workers).values():
            threads = sum(worker.processes * worker.threads for worker in crowd)
            cores = min(getattr(worker, limit) for worker in crowd)
            if threads > cores:
                found, names = True, [worker.name for worker in crowd]
                yield {"names": names, "threads": threads, "cores": plural(cores, "core")}
        if found:
            return


def find_short_deadline(f: Facts) -> Iterable[Fault]:
    """The job with the longest silence of a worker, if that is beyond the deadline."""
    deadline, name = shortest_deadline(f)
    slowest = max(f.overview.jobs, key=lambda job: job.silent_seconds, default=None)
    if slowest and slowest.silent_seconds > deadline:
        wanted = ceil(PATIENCE * slowest.silent_seconds)
        yield {"job": slowest, "deadline": deadline, "name": name, "wanted": wanted}


def find_open_users(f: Facts) -> Iterable[Fault]:
    """Redis's users who need no password; for the user `default`, only what others reach counts."""
    for line in f.users or ():
        _, name, *rights = line.split()
        is_open = {"on", "nopass"} <= {*rights} and any(right[0] == "+" for right in rights)
        if is_open and (name != "default" or f.redis_seen_at and not f.redis_open_at):
            yield {"name": name}


# A rule gives True or faults; its text is "rule: problem; remedy", and names the facts `f`
RULES: tuple[tuple[Callable[[Facts], bool | Iterable[Fault]], str], ...] = (
    (
        lambda f: f.redis["role"] != "master",
        "replica: Redis is a replica: it refuses or loses what is written to it; name its master "
        "as the broker, on {f.redis[master_host]}:{f.redis[master_port]}",
    ),
    (
        lambda f: not f.redis["aof_enabled"],
        "append-only: Redis keeps no append-only file: a restart loses every job; "
        f"set `appendonly yes` {SET} (the Redis of `digitq up` never saves anything)",
    ),
    (
        lambda f: bool(f.redis["aof_enabled"]) and f.appendfsync == "no",
        "append-only: a crash of Redis's host loses the latest writes (appendfsync no); "
        f"set `appendfsync everysec` {SET}",
    ),
    (
        lambda f: bool(f.redis["aof_enabled"]) and not f.can_replay,
        "append-only: a restart loses every job: Redis reads its file as the user `default`, which "
        "may not write; put `user default off ~* &* +@all` into redis.conf or the file of users, "
        "and run `ACL SETUSER default off ~* &* +@all` now: nobody can log in as this user",
    ),
    (
        lambda f: f.redis["maxmemory_policy"] != "noeviction",
        "eviction: Redis may evict the keys of a job (maxmemory-policy "
        f"{{f.redis[maxmemory_policy]}}); set `maxmemory-policy noeviction` {SET}",
    ),
    (  # half of the machine's memory, since Redis's child that writes files may need the rest
        lambda f: not f.redis["maxmemory"] and [{"half": f.redis["total_system_memory"] // 2**21}],
        "memory: Redis has no maxmemory: producers never wait, and if its machine's memory is "
        f"full, the system kills it; set `maxmemory {{half}}mb` {SET}",
    ),
    (
        find_memory_limit,
        "memory: one job may put {job:MB} into Redis, which has maxmemory {f.redis[maxmemory]:MB}; "
        f"set it to {{wanted:MB}} or more, since producers fill at most {MAX_FILL:.0%} of it, or "
        "lower DIGITQ_BUDGET_BYTES",
    ),
    (
        lambda f: 0 < MAX_FILL * f.redis["maxmemory"] < f.redis["used_memory"],
        f"memory: Redis holds {{f.redis[used_memory]:MB}}, over {MAX_FILL:.0%} of its maxmemory: "
        "producers wait; collect or cancel jobs that `digitq jobs` lists, or give it more memory",
    ),
    (
        lambda f: [{"job": job} for job in f.overview.jobs if job.held_images],
        "memory: job {job.id} waits for room in Redis; collect it or others into a file (`digitq "
        "collect JOB -o OUT`), cancel some, or give Redis more memory",
    ),
    (
        find_clocks,
        "clocks: the clock of {name} is {seconds:,.1f} s {side} that of Redis: Flower and `digitq "
        "status` show wrong times; run an NTP service on both hosts",
    ),
    (
        lambda f: [{"fault": fault} for fault in f.foreign],
        "keys: the key {fault}: no job can be done; delete it with `redis-cli DEL`, or give digitq "
        "a database of its own",
    ),
    (
        find_waiting_work,
        "workers: no worker lives{waiting}; start one: `digitq worker --broker {url}`{other}",
    ),
    (
        lambda f: [{"one": worker} for worker in f.overview.workers if worker.missing],
        "workers: {one.name} is not ready: {one.missing}; restart it if it stays so",
    ),
    (
        find_frozen,
        "frozen: {name} was silent for {silence}: it is frozen or dead; if it is frozen, `kill "
        "-CONT` its processes or restart it; another worker gets its chunk at the deadline",
    ),
    (
        lambda f: int(str(f.redis["redis_version"]).partition(".")[0]) < OLDEST_REDIS,
        "versions: Redis is version {f.redis[redis_version]}: no worker can connect to it; "
        f"install Redis {OLDEST_REDIS} or newer",
    ),
    (
        find_unknown_workers,
        f"versions: {{names}}: is no worker of digitq {__version__}, or of an older build: its "
        "answers may differ; install this version there and restart it; if it is another Celery "
        "app, give it another database",
    ),
    (
        lambda f: [{"one": one} for one in f.overview.workers if one.version != __version__],
        f"versions: {{one.name}}: runs digitq {{one.version}}, this is {__version__}: its answers "
        "may differ; install the same version everywhere",
    ),
    (
        find_kinds,
        "fingerprints: workers differ, so their answers may: {kinds}; run the same digitq, "
        "weights, torch and ONNX Runtime on the same kind of processor",
    ),
    (
        lambda f: [{"one": w, "fault": text} for w in f.overview.workers for text in w.faults],
        "models: {one.name}: {fault}; restart it then",
    ),
    (
        find_crowds,
        "threads: {names}: {threads} threads share {cores}: chunks take longer and may miss their "
        "deadline; run fewer workers there, or lower `--concurrency`",
    ),
    (
        find_short_deadline,
        "deadline: a worker on job {job.id} was silent for {job.silent_seconds:,.1f} s, but the "
        "deadline is {deadline:g} s ({name}): work may be done twice; set "
        "DIGITQ_DEADLINE_SECONDS={wanted} everywhere, or lower DIGITQ_CHUNK_ROWS",
    ),
    (
        lambda f: bool(f.redis_open_at),
        "redis-password: Redis needs no password at {f.redis_open_at}: anyone who reaches it can "
        "read jobs, or change them; set `requirepass` and put the password in DIGITQ_BROKER_URL, "
        "or set `bind 127.0.0.1`",
    ),
    (
        find_open_users,
        "redis-password: anyone can log in to Redis as the user {name}, who needs no password; run "
        "`ACL SETUSER {name} resetpass >PASSWORD` or `ACL SETUSER {name} off`, and change "
        "redis.conf or the file of users",
    ),
    (
        lambda f: bool(f.redis_seen_at) and 0 < f.password_characters < MIN_PASSWORD_CHARACTERS,
        "redis-password: the password of Redis has {f.password_characters} characters, which "
        f"others may guess at {{f.redis_seen_at}}; take {MIN_PASSWORD_CHARACTERS} or more, for "
        "example those of `openssl rand -hex 16`; without TLS, the network can read it too",
    ),
    (
        lambda f: (
            f.address.tls.get("ssl_cert_reqs") == "none"
            or f.address.tls.get("ssl_check_hostname") is False
        ),
        "tls: TLS does not check which server answers: whoever stands between can be Redis; remove "
        "ssl_cert_reqs=none and ssl_check_hostname=false from the URL, and name the CA of a "
        "certificate with Redis's name, ssl_ca_certs=/path/ca.pem",
    ),
    (
        lambda f: bool(f.flower and f.flower.open_at),
        "flower-password: Flower needs no password for {f.flower.open_at}: anyone may watch "
        "workers, or even control them; start it with `digitq flower` and "
        "FLOWER_BASIC_AUTH=USER:PASSWORD, and without FLOWER_UNAUTHENTICATED_API",
    ),
)


def group(pairs: Iterable[tuple[T, str]]) -> dict[str, list[T]]:
    """The first parts of pairs, grouped by the second parts."""
    groups = defaultdict(list)
    for member, kind in pairs:
        groups[kind].append(member)
    return groups


def shortest_deadline(f: Facts) -> tuple[float, str]:
    """The shortest deadline of a chunk in seconds, and whose it is."""
    deadlines = [(worker.deadline_seconds, worker.name) for worker in f.overview.workers]
    return min([(settings().deadline_seconds, "here"), *deadlines])
