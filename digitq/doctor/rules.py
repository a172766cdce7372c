"""The rules of `digitq doctor`: what in a deployment could lose work or let someone in.

A rule gives, for each thing it finds wrong, the problem and its remedy.
"""

import math
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from urllib.parse import unquote, urlsplit

from digitq.doctor.deployment import Deployment, Worker
from producer.feeder import FULL
from protocol.broker.address import UNIX_SCHEMES
from protocol.broker.connection import OLDEST_REDIS
from protocol.ledger import PATIENCE, QUEUE
from protocol.settings import MODELS, settings
from protocol.stats import WorkerStats
from protocol.text import plural

CLOCK_SECONDS = 1.0  # that two clocks may be apart

Advice = Iterator[tuple[str, str]]  # problem, remedy
Rule = Callable[[Deployment], Advice]


@dataclass(frozen=True)
class Finding:
    """What a rule found: one line to read, with what helps."""

    rule: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}; {self.remedy}"


def examine(deployment: Deployment) -> list[Finding]:
    """Everything that the rules find, in their order."""
    return [
        Finding(name, problem, remedy)
        for name, rule in RULES.items()
        for problem, remedy in rule(deployment)
    ]


def check_role(deployment: Deployment) -> Advice:
    """Redis can be written to."""
    info = deployment.redis
    if info["role"] != "master":
        yield (
            "Redis is a replica: what is written there is refused, or lost",
            f"name its master as the broker, on {info['master_host']}:{info['master_port']}",
        )


def check_append_only(deployment: Deployment) -> Advice:
    """Redis writes what it knows to a file, at least every second."""
    if not deployment.redis["aof_enabled"]:
        yield (
            "Redis keeps no append-only file: its restart loses every job",
            _set(deployment, "appendonly yes") + " (`digitq up` keeps nothing)",
        )
    elif deployment.appendfsync == "no":
        yield (
            "Redis leaves it to the system when its file reaches the disk (appendfsync no): a "
            "crash of its host loses what hasn't",
            _set(deployment, "appendfsync everysec"),
        )


def check_eviction(deployment: Deployment) -> Advice:
    """Redis drops no key of a job."""
    policy = deployment.redis["maxmemory_policy"]
    if policy != "noeviction":
        yield (
            f"Redis may evict the keys of a job (maxmemory-policy {policy})",
            _set(deployment, "maxmemory-policy noeviction"),
        )


def check_memory(deployment: Deployment) -> Advice:
    """Redis has room for what it holds, and for a job."""
    used, limit = deployment.redis["used_memory"], deployment.redis["maxmemory"]
    job = max(settings().budget_bytes, settings().window_chunks * settings().chunk_bytes)
    if limit and job > FULL * limit:
        yield (
            f"one job may put {_mb(job)} into Redis, which has maxmemory {_mb(limit)} and is fed "
            f"up to {FULL:.0%} of it",
            f"maxmemory from {_mb(math.ceil(job / FULL))} on, or a smaller DIGITQ_BUDGET_BYTES",
        )
    name, room = "its maxmemory", limit
    if not limit:
        name, room = "the machine's memory", deployment.redis["total_system_memory"]
    if used > FULL * room:
        yield (
            f"Redis holds {_mb(used)}, over {FULL:.0%} of {name}: producers wait, or it is killed",
            "`digitq collect` or `digitq cancel` what `digitq jobs` lists, or more memory",
        )


def check_clocks(deployment: Deployment) -> Advice:
    """All clocks tell the same time as Redis's."""
    apart = {worker.name: worker.clock_seconds for worker in deployment.workers}
    for name, seconds in {"this host": deployment.clock_seconds, **apart}.items():
        if abs(seconds) > CLOCK_SECONDS:
            yield (
                f"the clock of {name} is {abs(seconds):,.1f} s "
                f"{'ahead of' if seconds > 0 else 'behind'} that of Redis: "
                "times in Flower and `digitq status` are wrong",
                "run an NTP service on both",
            )


def check_answers(deployment: Deployment) -> Advice:
    """Some worker is there where there is work."""
    waiting = [
        job.id for job in deployment.jobs if job.done_chunks < job.chunks and not job.is_stopped
    ]
    if waiting and deployment.asked and not deployment.workers:
        yield (
            f"no worker answers, and work waits in job {', '.join(waiting)}",
            f"start one: `digitq worker --broker {deployment.redis_url}`",
        )
    if idle := [worker.name for worker in deployment.workers if not worker.stats.takes_work]:
        yield (
            f"{', '.join(idle)}: takes nothing from the queue {QUEUE}",
            f"`DIGITQ_BROKER_URL={shlex.quote(deployment.redis_url)} celery -A worker control "
            f"add_consumer {QUEUE} -d {','.join(idle)}`",
        )


def check_versions(deployment: Deployment) -> Advice:
    """All run this version of digitq, with a Redis that is not too old."""
    redis = str(deployment.redis["redis_version"])
    if int(redis.partition(".")[0]) < OLDEST_REDIS:
        yield f"Redis is {redis}: no worker can connect to it", f"Redis {OLDEST_REDIS} or newer"
    versions = [(worker.stats.version, worker.name) for worker in deployment.workers]
    versions += [(stranger.version or "", stranger.name) for stranger in deployment.strangers]
    for version, names in _group(versions):
        if not version:
            yield (
                f"{names}: answers as no worker of digitq {deployment.version} does",
                "install this version there, or give another Celery app a database of its own",
            )
        elif version != deployment.version:
            yield (
                f"{names}: runs digitq {version}, this is {deployment.version}",
                "install the same version everywhere",
            )


def check_arithmetic(deployment: Deployment) -> Advice:
    """All compute the same bits."""
    kinds = _group((worker.stats.torch, worker.name) for worker in deployment.workers)
    if len(kinds) > 1:
        have = ", ".join(f"torch {torch} ({names})" for torch, names in kinds)
        yield (
            f"answers may differ in their last bits from worker to worker: {have}",
            "run one build of torch, on processors of one kind",
        )


def check_models(deployment: Deployment) -> Advice:
    """Every worker can use every model, and all have the same."""
    for worker in deployment.workers:
        for model in MODELS:
            if fault := worker.stats.models.get(model, "it has none; install this digitq there"):
                problem, _, remedy = fault.partition("; ")
                yield f"{worker.name} can't use the model {model}: {problem}", remedy
    for model in MODELS:
        kinds = _group(
            (worker.stats.cards.get(model, ""), worker.name) for worker in deployment.workers
        )
        if len(kinds) > 1:
            have = "; ".join(names for _, names in kinds)
            yield (
                f"the weights or cards of {model} differ: {have}",
                "set DIGITQ_WEIGHTS alike everywhere",
            )


def check_threads(deployment: Deployment) -> Advice:
    """No more threads compute than there are cores, in a share of a machine and in all of it."""
    yield from (
        list(_crowded(deployment.workers, attrgetter("share"), attrgetter("cores")))
        or _crowded(deployment.workers, attrgetter("machine"), attrgetter("machine_cores"))
    )


def _crowded(
    workers: Iterable[Worker],
    place: Callable[[WorkerStats], str],
    room: Callable[[WorkerStats], int],
) -> Advice:
    """The places where workers have more threads than there are cores for them."""
    together = defaultdict(list)
    for worker in workers:
        together[place(worker.stats)].append(worker)
    for crowd in together.values():
        threads = sum(worker.stats.processes * worker.stats.threads for worker in crowd)
        cores = min(room(worker.stats) for worker in crowd)
        if threads > cores:
            yield (
                f"{', '.join(worker.name for worker in crowd)}: {threads} threads share "
                f"{plural(cores, 'core')}: chunks take longer and may pass their deadline",
                "fewer workers there, or a smaller `--concurrency`",
            )


def check_deadline(deployment: Deployment) -> Advice:
    """A worker is heard of well before its chunk is taken to be lost."""
    deadlines = {"here": settings().deadline_seconds}
    deadlines |= {worker.name: worker.stats.deadline_seconds for worker in deployment.workers}
    name, deadline = min(deadlines.items(), key=lambda item: item[1])
    slowest = max(deployment.jobs, key=lambda job: job.silent_seconds, default=None)
    if slowest and slowest.silent_seconds > deadline:
        better = math.ceil(PATIENCE * slowest.silent_seconds)
        yield (
            f"of a chunk of job {slowest.id} nothing was heard for {slowest.silent_seconds:,.1f} "
            f"s, the deadline is {deadline:g} s ({name}): work may be done twice",
            f"DIGITQ_DEADLINE_SECONDS={better} everywhere, or a smaller DIGITQ_CHUNK_ROWS",
        )


def check_redis_password(deployment: Deployment) -> Advice:
    """Nobody reads or writes jobs without a password."""
    if deployment.redis_open_at:
        yield (
            f"Redis asks for no password at {', '.join(deployment.redis_open_at)}: whoever "
            "reaches it can read and change every job",
            "give it `requirepass` and put the password in DIGITQ_BROKER_URL, or `bind 127.0.0.1`",
        )


def check_flower_password(deployment: Deployment) -> Advice:
    """Nobody watches or controls workers without a password."""
    flower = deployment.flower
    if flower and flower.open_api:
        yield (
            f"Flower at {flower.url} lets anyone stop workers: its API asks for no password, "
            "not even of a page in your browser",
            "unset FLOWER_UNAUTHENTICATED_API or set FLOWER_BASIC_AUTH=USER:PASSWORD for it",
        )
    elif flower and flower.open_at:
        yield (
            f"Flower asks for no password at {', '.join(flower.open_at)}",
            "set FLOWER_BASIC_AUTH=USER:PASSWORD for it, or give it `--address=127.0.0.1`",
        )


RULES: dict[str, Rule] = {
    "replica": check_role,
    "append-only": check_append_only,
    "eviction": check_eviction,
    "memory": check_memory,
    "clocks": check_clocks,
    "workers": check_answers,
    "versions": check_versions,
    "arithmetic": check_arithmetic,
    "models": check_models,
    "threads": check_threads,
    "deadline": check_deadline,
    "redis-password": check_redis_password,
    "flower-password": check_flower_password,
}


def _group(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each kind that comes with a name, and its names."""
    names = defaultdict(list)
    for kind, name in pairs:
        names[kind].append(name)
    return [(kind, ", ".join(found)) for kind, found in names.items()]


def _set(deployment: Deployment, line: str) -> str:
    """How to set what Redis does."""
    url = deployment.redis_url
    way = f"-u {shlex.quote(url)}"
    if url.startswith(UNIX_SCHEMES):
        way = f"-s {shlex.quote(unquote(urlsplit(url).path))}"
    return f"`redis-cli {way} config set {line}`, and `{line}` in redis.conf"


def _mb(size: float) -> str:
    return f"{size / 2**20:,.0f} MB"
