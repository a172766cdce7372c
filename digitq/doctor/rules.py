"""The rules of `digitq doctor` as a table: what is looked at, the limit, and what is said."""

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from itertools import chain
from math import ceil
from typing import TypeVar

from digitq import __version__
from digitq.doctor.deployment import Deployment
from protocol.broker.address import url_in_command
from protocol.broker.connection import OLDEST_REDIS
from protocol.heartbeat import MAX_HEARTBEAT_AGE_SECONDS, WORKER_HEARTBEAT_SECONDS
from protocol.ledger import PATIENCE
from protocol.room import MAX_FILL
from protocol.settings import settings
from protocol.text import plural

MAX_CLOCK_SKEW_SECONDS = 1.0  # clocks that differ by less are taken to show the same time
MAX_MISSED_HEARTBEATS = 4  # a worker that misses more of them is frozen or dead
MIN_PASSWORD_CHARACTERS = 12  # others can try thousands of passwords each second
# The options of redis-cli that are those of a URL
REDIS_CLI_TLS = {
    "ssl_ca_certs": "--cacert",
    "ssl_ca_path": "--cacertdir",
    "ssl_certfile": "--cert",
    "ssl_keyfile": "--key",
}

Fault = Mapping[str, object]  # what fills the blanks of a rule's texts
Find = Callable[[Deployment], Iterable[Fault]]
T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """What a rule found; as a string, one line with the remedy."""

    rule: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}; {self.remedy}"


@dataclass(frozen=True)
class Rule:
    """One thing to look at. Each fault that `find` gives becomes a finding.

    The texts may also name `d`, the deployment, and `set`: how to set `option`, a line of
    redis.conf.
    """

    name: str
    find: Find
    problem: str
    remedy: str = "{set}"
    option: str = ""

    def examine(self, deployment: Deployment) -> Iterator[Finding]:
        """What this rule finds."""
        for fault in self.find(deployment):
            blanks = {"d": deployment, **fault}
            blanks["set"] = how_to_set(deployment, self.option.format(**blanks))
            yield Finding(self.name, self.problem.format(**blanks), self.remedy.format(**blanks))


def examine(deployment: Deployment) -> list[Finding]:
    """All findings, in the order of `RULES`."""
    return [finding for rule in RULES for finding in rule.examine(deployment)]


def when(
    condition: Callable[[Deployment], object], **blanks: Callable[[Deployment], object]
) -> Find:
    """A rule's `find` that gives one fault, with these blanks, if the condition holds."""

    def find(d: Deployment) -> Iterator[Fault]:
        if condition(d):
            yield {name: fill(d) for name, fill in blanks.items()}

    return find


def find_memory_limit(d: Deployment) -> Iterator[Fault]:
    """How much one job may put into Redis, if that is more than producers fill."""
    job = max(settings().budget_bytes, settings().window_chunks * settings().chunk_bytes)
    if 0 < (limit := d.redis["maxmemory"]) < job / MAX_FILL:
        yield {"job": in_mb(job), "limit": in_mb(limit), "wanted": in_mb(job / MAX_FILL)}


def find_clocks(d: Deployment) -> Iterator[Fault]:
    """Clocks that differ from that of Redis."""
    clocks = {"this host": d.clock_seconds}
    clocks |= {worker.name: worker.clock_seconds for worker in d.overview.workers}
    for name, seconds in clocks.items():
        if abs(seconds) > MAX_CLOCK_SKEW_SECONDS:
            skew = f"{abs(seconds):,.1f} s {'ahead of' if seconds > 0 else 'behind'} that of Redis"
            yield {"name": name, "skew": skew}


def find_waiting_work(d: Deployment) -> Iterator[Fault]:
    """Work for which there is no worker."""
    jobs = [job.id for job in d.overview.jobs if job.waiting_images]
    waiting = [f"job {', '.join(jobs)} waits"] if jobs else []
    if images := d.overview.queued_images:
        waiting.append(f"{plural(images, 'image')} of other programs wait")
    if waiting and not d.overview.workers:
        yield {"waiting": ", ".join(waiting), "url": url_in_command(d.redis_url)}


def find_frozen_workers(d: Deployment) -> Iterator[Fault]:
    """Workers that are silent, and those that do not go on with their chunk."""
    for worker in d.overview.workers:
        if worker.silent_seconds > MAX_MISSED_HEARTBEATS * WORKER_HEARTBEAT_SECONDS:
            yield {"name": worker.name, "silence": f"{worker.silent_seconds:,.0f} s"}
    deadline, usual = (
        shortest_deadline(d)[0],
        {job.id: job.silent_seconds for job in d.overview.jobs},
    )
    for chunk in d.overview.running:
        if chunk.silent_seconds > max(deadline / PATIENCE, usual[chunk.job_id]):
            at = f"{chunk.silent_seconds:,.0f} s at chunk {chunk.number} of job {chunk.job_id}"
            yield {"name": chunk.worker or "a worker", "silence": at}


def find_unknown_workers(d: Deployment) -> Iterator[Fault]:
    """Workers that have a chunk and give no heartbeat."""
    half = MAX_HEARTBEAT_AGE_SECONDS / 2
    busy = [chunk for chunk in d.overview.running if chunk.silent_seconds < half]
    names = {chunk.worker or f"the worker of job {chunk.job_id}" for chunk in busy}
    if unknown := names - {worker.name for worker in d.overview.workers}:
        yield {"names": ", ".join(sorted(unknown)), "own": __version__}


def find_other_versions(d: Deployment) -> Iterator[Fault]:
    """Workers of other versions of digitq."""
    for version, names in group((one.name, one.version) for one in d.overview.workers).items():
        if version != __version__:
            yield {"names": ", ".join(names), "version": version, "own": __version__}


def find_kinds(d: Deployment) -> Iterator[Fault]:
    """What sets workers apart, if their answers may differ."""
    kinds = group((worker, worker.fingerprint) for worker in d.overview.workers)
    if len(kinds) > 1:
        have = (
            f"{', '.join(one.name for one in kind)} ({kind[0].kind})" for kind in kinds.values()
        )
        yield {"kinds": "; ".join(have)}


def find_crowds(d: Deployment) -> Iterator[Fault]:
    """Containers with more computing threads than cores; if there is none, such machines."""
    for place, room in (("share", "cores"), ("machine", "machine_cores")):
        faults = list[Fault]()
        for crowd in group((one, getattr(one, place)) for one in d.overview.workers).values():
            threads = sum(worker.processes * worker.threads for worker in crowd)
            cores = min(getattr(worker, room) for worker in crowd)
            names = ", ".join(worker.name for worker in crowd)
            if threads > cores:
                faults.append({"names": names, "threads": threads, "cores": plural(cores, "core")})
        yield from faults
        if faults:
            return


def find_short_deadline(d: Deployment) -> Iterator[Fault]:
    """The job with the longest silence of a worker, if that is beyond the deadline."""
    deadline, name = shortest_deadline(d)
    slowest = max(d.overview.jobs, key=lambda job: job.silent_seconds, default=None)
    if slowest and (silent := slowest.silent_seconds) > deadline:
        wanted = ceil(PATIENCE * silent)
        yield {"job": slowest, "deadline": deadline, "name": name, "wanted": wanted}


def find_users_without_password(d: Deployment) -> Iterator[Fault]:
    """Redis's users who need no password; for the user `default`, only what others reach counts."""
    for line in d.users or ():
        _, name, *rights = line.split()
        is_open = {"on", "nopass"} <= {*rights} and any(right[0] == "+" for right in rights)
        if is_open and (name != "default" or d.redis_seen_at and not d.redis_open_at):
            yield {"name": name}


def find_owners(d: Deployment) -> Iterator[Fault]:
    """Other distributions on this host that have, or may have, overwritten digitq's packages."""
    owners = packages_distributions()
    for name in ("producer", "protocol", "worker"):
        for owner in sorted({*owners.get(name, ())} - {"digitq"}):
            yield {"owner": owner, "name": name}


def is_password_short(d: Deployment) -> bool:
    """Whether others may find out the password of this login by trying."""
    return bool(d.redis_seen_at and 0 < d.password_characters < MIN_PASSWORD_CHARACTERS)


RULES = (
    Rule(
        "replica",
        when(lambda d: d.redis["role"] != "master"),
        "Redis is a replica: it refuses or loses what is written to it",
        "name its master as the broker, on {d.redis[master_host]}:{d.redis[master_port]}",
    ),
    Rule(
        "append-only",
        when(lambda d: not d.redis["aof_enabled"]),
        "Redis keeps no append-only file: a restart loses every job",
        "{set} (the Redis of `digitq up` never saves anything)",
        "appendonly yes",
    ),
    Rule(
        "append-only",
        when(lambda d: d.redis["aof_enabled"] and d.appendfsync == "no"),
        "a crash of Redis's host loses the latest writes (appendfsync no)",
        option="appendfsync everysec",
    ),
    Rule(
        "append-only",
        when(lambda d: d.redis["aof_enabled"] and not d.can_replay),
        "a restart loses every job: Redis reads its append-only file as the user `default`, which "
        "may not write",
        "put `user default off ~* &* +@all` into redis.conf or the file of users, and run `ACL "
        "SETUSER default off ~* &* +@all` (nobody can log in as a user that is off)",
    ),
    Rule(
        "eviction",
        when(lambda d: d.redis["maxmemory_policy"] != "noeviction"),
        "Redis may evict the keys of a job (maxmemory-policy {d.redis[maxmemory_policy]})",
        option="maxmemory-policy noeviction",
    ),
    Rule(
        "memory",
        when(
            lambda d: not d.redis["maxmemory"],
            half=lambda d: d.redis["total_system_memory"] // 2**21,
        ),
        "Redis has no maxmemory: producers never wait, and if its machine's memory is full, the "
        "system kills it",
        option="maxmemory {half}mb",  # its child that writes files may need the other half
    ),
    Rule(
        "memory",
        find_memory_limit,
        "one job may put {job} into Redis, which has maxmemory {limit}; producers fill at most "
        f"{MAX_FILL:.0%} of it",
        "set maxmemory to {wanted} or more, or lower DIGITQ_BUDGET_BYTES",
    ),
    Rule(
        "memory",
        when(lambda d: 0 < MAX_FILL * d.redis["maxmemory"] < d.redis["used_memory"]),
        "Redis holds {d.redis[used_memory_human]}B, "
        f"over {MAX_FILL:.0%} of its maxmemory: producers wait",
        "collect or cancel jobs that `digitq jobs` lists, or give it more memory",
    ),
    Rule(
        "clocks",
        find_clocks,
        "the clock of {name} is {skew}: Flower and `digitq status` show wrong times",
        "run an NTP service on both hosts",
    ),
    Rule(
        "workers",
        find_waiting_work,
        "no worker lives, and {waiting}",
        "start one: `digitq worker --broker {url}`",
    ),
    Rule(
        "workers",
        lambda d: [{"worker": worker} for worker in d.overview.workers if worker.missing],
        "{worker.name} is not ready: {worker.missing}",
        "restart it if it stays so",
    ),
    Rule(
        "frozen",
        find_frozen_workers,
        "{name} was silent for {silence}: it is frozen or dead",
        "if it is frozen, `kill -CONT` its processes or restart it; another worker gets its chunk "
        "at the deadline",
    ),
    Rule(
        "versions",
        when(lambda d: int(str(d.redis["redis_version"]).partition(".")[0]) < OLDEST_REDIS),
        "Redis is version {d.redis[redis_version]}: no worker can connect to it",
        f"install Redis {OLDEST_REDIS} or newer",
    ),
    Rule(
        "versions",
        find_unknown_workers,
        "{names}: is no worker of digitq {own}, or of an older build: its answers may differ",
        "install this version there and restart it; if it is another Celery app, give it another "
        "database",
    ),
    Rule(
        "versions",
        find_other_versions,
        "{names}: runs digitq {version}, this is {own}: its answers may differ",
        "install the same version everywhere",
    ),
    Rule(
        "fingerprints",
        find_kinds,
        "workers differ, so their answers may: {kinds}",
        "run the same digitq, weights, torch and ONNX Runtime on the same kind of processor",
    ),
    Rule(
        "models",
        lambda d: [{"name": w.name, "fault": f} for w in d.overview.workers for f in w.faults],
        "{name}: {fault}",
        "restart it then",
    ),
    Rule(
        "threads",
        find_crowds,
        "{names}: {threads} threads share {cores}: chunks take longer and may miss their deadline",
        "run fewer workers there, or lower `--concurrency`",
    ),
    Rule(
        "deadline",
        find_short_deadline,
        "a worker on job {job.id} was silent for {job.silent_seconds:,.1f} s, but the deadline is "
        "{deadline:g} s ({name}): work may be done twice",
        "set DIGITQ_DEADLINE_SECONDS={wanted} everywhere, or lower DIGITQ_CHUNK_ROWS",
    ),
    Rule(
        "redis-password",
        when(lambda d: d.redis_open_at, where=lambda d: ", ".join(d.redis_open_at)),
        "Redis needs no password at {where}: anyone who reaches it can read jobs, or change them",
        "set `requirepass` and put the password in DIGITQ_BROKER_URL, or set `bind 127.0.0.1`",
    ),
    Rule(
        "redis-password",
        find_users_without_password,
        "anyone can log in to Redis as the user {name}, who needs no password",
        "run `ACL SETUSER {name} resetpass >PASSWORD`, or `ACL SETUSER {name} off`, and change "
        "redis.conf or the file of users",
    ),
    Rule(
        "redis-password",
        when(is_password_short, where=lambda d: ", ".join(d.redis_seen_at)),
        "the password of Redis has {d.password_characters} characters, which others may guess at "
        "{where}",
        f"take {MIN_PASSWORD_CHARACTERS} or more, for example those of `openssl rand -hex 16`; "
        "without TLS, the network can read it too",
    ),
    Rule(
        "tls",
        when(
            lambda d: (
                d.address.tls.get("ssl_cert_reqs") == "none"
                or d.address.tls.get("ssl_check_hostname") is False
            )
        ),
        "TLS does not check which server answers: whoever stands between can be Redis",
        "remove ssl_cert_reqs=none and ssl_check_hostname=false from the URL, and name the CA of a "
        "certificate with Redis's name, ssl_ca_certs=/path/ca.pem",
    ),
    Rule(
        "flower-password",
        lambda d: [{"pages": ", ".join(d.flower.open_at)}] if d.flower and d.flower.open_at else [],
        "Flower needs no password for {pages}: anyone may watch workers, or even control them",
        "start it with `digitq flower` and FLOWER_BASIC_AUTH=USER:PASSWORD, and without "
        "FLOWER_UNAUTHENTICATED_API",
    ),
    Rule(
        "packages",
        find_owners,
        "{owner} has a package `{name}`, too: the later installation replaced files",
        "install digitq in a virtual environment without {owner}",
    ),
)


def group(pairs: Iterable[tuple[T, str]]) -> dict[str, list[T]]:
    """The first parts of pairs, grouped by the second parts."""
    groups = defaultdict(list)
    for member, kind in pairs:
        groups[kind].append(member)
    return groups


def shortest_deadline(d: Deployment) -> tuple[float, str]:
    """The shortest deadline of a chunk in seconds, and whose it is."""
    deadlines = [(worker.deadline_seconds, worker.name) for worker in d.overview.workers]
    return min([(settings().deadline_seconds, "here"), *deadlines])


def how_to_set(d: Deployment, line: str) -> str:
    """How to set an option of Redis."""
    if not d.may_configure:
        return f"put `{line}` into redis.conf and start Redis again, as this login may not set it"
    address = d.address
    way = ["-h", d.redis_host, "-p", str(d.redis_port)]
    if address.socket_path:
        way = ["-s", address.socket_path]
    if address.user:
        way += ["--user", address.user]
    if address.user is not None:
        way += ["--askpass"]
    if tls := address.tls:
        given = [(option, tls[name]) for name, option in REDIS_CLI_TLS.items() if name in tls]
        way += ["--tls", *chain.from_iterable(given)]
        way += ["--insecure"] if tls["ssl_cert_reqs"] == "none" else []
    command = shlex.join(["redis-cli", *way, "config", "set", *line.split()])
    return f"run `{command}`, and put `{line}` into redis.conf"


def in_mb(size: float) -> str:
    """A number of bytes as text."""
    return f"{size / 2**20:,.0f} MB"
