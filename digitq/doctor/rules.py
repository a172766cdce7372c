"""The rules of `digitq doctor`. A rule's docstring says what holds in a sound deployment. If it
does not hold, the rule yields the problem and its remedy."""

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from itertools import chain
from math import ceil
from typing import TypeVar

from digitq import __version__
from digitq.doctor.deployment import Deployment
from protocol.broker.address import url_in_command
from protocol.broker.connection import OLDEST_REDIS
from protocol.heartbeat import MAX_SIGN_AGE_SECONDS
from protocol.ledger import PATIENCE, QUEUE
from protocol.room import MAX_FILL
from protocol.settings import ALL_MODELS, settings
from protocol.text import plural

MAX_CLOCK_SKEW_SECONDS = 1.0  # clocks that differ by less are taken to show the same time
# The options of redis-cli that are those of a URL
REDIS_CLI_TLS = {
    "ssl_ca_certs": "--cacert",
    "ssl_ca_path": "--cacertdir",
    "ssl_certfile": "--cert",
    "ssl_keyfile": "--key",
}

Advice = Iterator[tuple[str, str]]  # problem, remedy
T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """What a rule found; as a string, one line with the remedy."""

    rule: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}; {self.remedy}"


def examine(deployment: Deployment) -> list[Finding]:
    """All findings, in the order of `RULES`."""
    return [Finding(name, *advice) for name, rule in RULES.items() for advice in rule(deployment)]


def check_role(deployment: Deployment) -> Advice:
    """Redis accepts writes and keeps them."""
    info = deployment.redis
    if info["role"] != "master":
        remedy = f"name its master as the broker, on {info['master_host']}:{info['master_port']}"
        yield "Redis is a replica: it refuses or loses what is written to it", remedy


def check_append_only(deployment: Deployment) -> Advice:
    """Redis saves each write to disk within a second."""
    if not deployment.redis["aof_enabled"]:
        remedy = _set(deployment, "appendonly yes")
        problem = "Redis keeps no append-only file: a restart loses every job"
        yield problem, f"{remedy} (the Redis of `digitq up` never saves anything)"
    elif deployment.appendfsync == "no":
        problem = "a crash of Redis's host loses the latest writes (appendfsync no)"
        yield problem, _set(deployment, "appendfsync everysec")


def check_eviction(deployment: Deployment) -> Advice:
    """Redis never drops a job's keys."""
    policy = deployment.redis["maxmemory_policy"]
    if policy != "noeviction":
        problem = f"Redis may evict the keys of a job (maxmemory-policy {policy})"
        yield problem, _set(deployment, "maxmemory-policy noeviction")


def check_memory(deployment: Deployment) -> Advice:
    """Redis has a limit of its memory, and room for one more job below it."""
    used, limit = deployment.redis["used_memory"], deployment.redis["maxmemory"]
    job = max(settings().budget_bytes, settings().window_chunks * settings().chunk_bytes)
    share = f"{MAX_FILL:.0%}"
    if not limit:
        machine = deployment.redis["total_system_memory"]
        problem = (
            "Redis has no maxmemory: producers never wait, and if its machine's memory is full"
        )
        line = f"maxmemory {machine // 2**21}mb"  # its child that writes files may need the rest
        yield f"{problem}, the system kills it", _set(deployment, line)
        return
    if job > MAX_FILL * limit:
        has = f"which has maxmemory {_mb(limit)}; producers fill at most {share} of it"
        more = f"set maxmemory to {_mb(job / MAX_FILL)} or more, or lower DIGITQ_BUDGET_BYTES"
        yield f"one job may put {_mb(job)} into Redis, {has}", more
    if used > MAX_FILL * limit:
        too_much = f"over {share} of its maxmemory: producers wait"
        remedy = "collect or cancel jobs that `digitq jobs` lists, or give it more memory"
        yield f"Redis holds {_mb(used)}, {too_much}", remedy


def check_clocks(deployment: Deployment) -> Advice:
    """All clocks show the same time as that of Redis."""
    apart = {worker.name: worker.clock_seconds for worker in deployment.workers}
    for name, seconds in {"this host": deployment.clock_seconds, **apart}.items():
        if abs(seconds) > MAX_CLOCK_SKEW_SECONDS:
            skew = f"{abs(seconds):,.1f} s {'ahead of' if seconds > 0 else 'behind'} that of Redis"
            effect = "Flower and `digitq status` show wrong times"
            yield f"the clock of {name} is {skew}: {effect}", "run an NTP service on both hosts"


def check_answers(deployment: Deployment) -> Advice:
    """If there is work, there is a worker, and every worker takes work and replies."""
    jobs = [job.id for job in deployment.overview.jobs if job.waiting_images]
    waiting = [f"job {', '.join(jobs)} waits"] if jobs else []
    if images := deployment.overview.queued_images:
        waiting.append(f"{plural(images, 'image')} of other programs wait")
    if waiting and deployment.workers_asked and not deployment.workers:
        problem = f"no worker replies, and {', '.join(waiting)}"
        yield problem, f"start one: `digitq worker --broker {url_in_command(deployment.redis_url)}`"
    if idle := [worker.name for worker in deployment.workers if not worker.stats.takes_work]:
        broker = f"DIGITQ_BROKER_URL={url_in_command(deployment.redis_url)}"
        control = f"celery -A worker control add_consumer {QUEUE} -d {','.join(idle)}"
        yield f"{', '.join(idle)}: takes no work from the queue {QUEUE}", f"`{broker} {control}`"
    known = {sign.name for sign in deployment.overview.workers}
    if silent := [name for name in deployment.silent_workers if name in known]:
        problem = f"{', '.join(silent)}: lives, but does not reply, so Flower can't control it"
        yield problem, "restart it"


def check_frozen(deployment: Deployment) -> Advice:
    """Every worker that has a chunk goes on with it."""
    deadline, _ = _shortest_deadline(deployment)
    usual = {job.id: job.silent_seconds for job in deployment.overview.jobs}
    for chunk in deployment.overview.running:
        if chunk.silent_seconds > max(deadline / PATIENCE, usual[chunk.job_id]):
            silent = f"{chunk.silent_seconds:,.0f} s at chunk {chunk.number} of job {chunk.job_id}"
            problem = f"{chunk.worker or 'a worker'} was silent for {silent}: it is frozen or dead"
            after = "another worker gets the chunk at its deadline"
            yield problem, f"if it is frozen, `kill -CONT` its processes or restart it; {after}"


def check_versions(deployment: Deployment) -> Advice:
    """All workers run this version of digitq, with a Redis that is new enough.

    A worker of this version replies, gives signs of life in Redis, and has its name at its chunks.
    """
    redis, overview = str(deployment.redis["redis_version"]), deployment.overview
    if int(redis.partition(".")[0]) < OLDEST_REDIS:
        problem = f"Redis is version {redis}: no worker can connect to it"
        yield problem, f"install Redis {OLDEST_REDIS} or newer"
    busy = [chunk for chunk in overview.running if chunk.silent_seconds < MAX_SIGN_AGE_SECONDS / 2]
    versions = {chunk.worker or f"the worker of job {chunk.job_id}": "" for chunk in busy}
    versions |= dict.fromkeys(deployment.silent_workers, "")
    for worker in deployment.workers:
        is_other = worker.stats.version != __version__
        versions[worker.name] = worker.stats.version if is_other else ""  # if it gives no signs
    versions |= {sign.name: sign.version for sign in overview.workers}
    versions |= dict(deployment.unknown_workers)
    for version, group in _group(versions.items()).items():
        names, effect = ", ".join(group), "its answers may differ"
        if not version:
            problem = (
                f"{names}: is no worker of digitq {__version__}, or of an older build: {effect}"
            )
            other = "if it is another Celery app, give it another database"
            yield problem, f"install this version there and restart it; {other}"
        elif version != __version__:
            problem = f"{names}: runs digitq {version}, this is {__version__}: {effect}"
            yield problem, "install the same version everywhere"


def check_fingerprints(deployment: Deployment) -> Advice:
    """All workers give the same answers, to the last bit."""
    torch = {worker.name: f", torch {worker.stats.torch}" for worker in deployment.workers}
    kinds = _group((sign.name, sign.fingerprint) for sign in deployment.overview.workers)
    if len(kinds) > 1:
        have = (
            f"{', '.join(kind)} ({mark}{torch.get(kind[0], '')})" for mark, kind in kinds.items()
        )
        problem = f"workers differ, so their answers may: {'; '.join(have)}"
        same = "the same digitq, weights, torch and ONNX Runtime on the same kind of processor"
        yield problem, f"run {same}"


def check_models(deployment: Deployment) -> Advice:
    """Every worker can use every model, with the same weights."""
    for worker in deployment.workers:
        for model in ALL_MODELS:
            if fault := worker.stats.models.get(model, "unknown; install this digitq there"):
                problem, _, remedy = fault.partition("; ")
                yield f"{worker.name} can't use the model {model}: {problem}", remedy
    for model in ALL_MODELS:
        cards = [(worker.name, worker.stats.cards.get(model, "")) for worker in deployment.workers]
        if len(kinds := _group(cards)) > 1:
            have = "; ".join(map(", ".join, kinds.values()))
            problem = f"the weights or cards of {model} differ: {have}"
            yield problem, "set DIGITQ_WEIGHTS to the same networks everywhere"


def check_threads(deployment: Deployment) -> Advice:
    """Neither a container nor a machine has more computing threads than cores."""
    found = False
    for place, room in (("share", "cores"), ("machine", "machine_cores")):
        crowds = _group((worker, getattr(worker.stats, place)) for worker in deployment.workers)
        for crowd in crowds.values():
            threads = sum(worker.stats.processes * worker.stats.threads for worker in crowd)
            cores = min(getattr(worker.stats, room) for worker in crowd)
            if threads > cores:
                found = True
                names = ", ".join(worker.name for worker in crowd)
                effect = "chunks take longer and may miss their deadline"
                problem = f"{names}: {threads} threads share {plural(cores, 'core')}: {effect}"
                yield problem, "run fewer workers there, or lower `--concurrency`"
        if found:  # a crowded container also crowds its machine
            return


def check_deadline(deployment: Deployment) -> Advice:
    """Every worker reports well within the deadline of its chunk."""
    deadline, name = _shortest_deadline(deployment)
    slowest = max(deployment.overview.jobs, key=lambda job: job.silent_seconds, default=None)
    if slowest and (silent := slowest.silent_seconds) > deadline:
        problem = f"a worker on job {slowest.id} was silent for {silent:,.1f} s"
        effect = f"but the deadline is {deadline:g} s ({name}): work may be done twice"
        more = f"set DIGITQ_DEADLINE_SECONDS={ceil(PATIENCE * silent)} everywhere"
        yield f"{problem}, {effect}", f"{more}, or lower DIGITQ_CHUNK_ROWS"


def check_redis_password(deployment: Deployment) -> Advice:
    """No other host can use Redis without a password."""
    if deployment.redis_open_at:
        where = f"Redis needs no password at {', '.join(deployment.redis_open_at)}"
        problem = f"{where}: anyone who reaches it can read and change every job"
        password = "set `requirepass` and put the password in DIGITQ_BROKER_URL"
        yield problem, f"{password}, or set `bind 127.0.0.1`"


def check_tls(deployment: Deployment) -> Advice:
    """A server that only pretends to be Redis is found out."""
    tls = deployment.redis_tls
    effect = "whoever stands between can be Redis"
    if tls.get("ssl_cert_reqs") == "none":
        problem = f"TLS accepts any certificate (ssl_cert_reqs=none): {effect}"
        yield problem, "remove this from the URL, and name the CA, ssl_ca_certs=/path/ca.pem"
    elif tls.get("ssl_check_hostname") is False:
        problem = f"TLS accepts other hosts' certificates (ssl_check_hostname=false): {effect}"
        yield problem, "remove this from the URL, and give Redis a certificate with its name"


def check_flower_password(deployment: Deployment) -> Advice:
    """Nobody can watch or control workers through Flower without a password."""
    flower, password = deployment.flower, "set FLOWER_BASIC_AUTH=USER:PASSWORD"
    if flower and flower.open_api:
        how = "its API needs no password, not even from a web page in your browser"
        problem = f"Flower at {flower.url} lets anyone stop workers: {how}"
        yield problem, f"unset FLOWER_UNAUTHENTICATED_API, or {password}"
    elif flower and flower.open_at:
        problem = f"Flower needs no password at {', '.join(flower.open_at)}"
        yield problem, f"{password}, or start it with `--address=127.0.0.1`"
    elif flower and flower.open_metrics_at:
        where = f"Flower's /metrics needs no password at {', '.join(flower.open_metrics_at)}"
        problem = f"{where}: anyone sees the names of workers and how much they do"
        yield problem, "start it with `digitq flower`, or with `--address=127.0.0.1`"


def check_packages(deployment: Deployment) -> Advice:
    """No other distribution on this host has overwritten digitq's packages, or may have."""
    owners = packages_distributions()
    for name in ("producer", "protocol", "worker"):
        for owner in sorted({*owners.get(name, ())} - {"digitq"}):
            problem = f"{owner} has a package `{name}`, too: the later installation replaced files"
            yield problem, f"install digitq in a virtual environment without {owner}"


RULES: dict[str, Callable[[Deployment], Advice]] = {
    "replica": check_role,
    "append-only": check_append_only,
    "eviction": check_eviction,
    "memory": check_memory,
    "clocks": check_clocks,
    "workers": check_answers,
    "frozen": check_frozen,
    "versions": check_versions,
    "fingerprints": check_fingerprints,
    "models": check_models,
    "threads": check_threads,
    "deadline": check_deadline,
    "redis-password": check_redis_password,
    "tls": check_tls,
    "flower-password": check_flower_password,
    "packages": check_packages,
}


def _group(pairs: Iterable[tuple[T, str]]) -> dict[str, list[T]]:
    """The first parts of pairs, grouped by the second parts."""
    groups = defaultdict(list)
    for member, kind in pairs:
        groups[kind].append(member)
    return groups


def _shortest_deadline(deployment: Deployment) -> tuple[float, str]:
    """The shortest deadline of a chunk in seconds, and whose it is."""
    deadlines = [(worker.stats.deadline_seconds, worker.name) for worker in deployment.workers]
    return min([(settings().deadline_seconds, "here"), *deadlines])


def _set(deployment: Deployment, line: str) -> str:
    """How to set an option of Redis."""
    way = ["-h", deployment.redis_host, "-p", str(deployment.redis_port)]
    if deployment.redis_socket:
        way = ["-s", deployment.redis_socket]
    if deployment.redis_user:
        way += ["--user", deployment.redis_user]
    if deployment.redis_user is not None:
        way += ["--askpass"]
    if tls := deployment.redis_tls:
        given = [(option, tls[name]) for name, option in REDIS_CLI_TLS.items() if name in tls]
        way += ["--tls", *chain.from_iterable(given)]
        way += ["--insecure"] if tls["ssl_cert_reqs"] == "none" else []
    command = shlex.join(["redis-cli", *way, "config", "set", *line.split()])
    return f"run `{command}`, and put `{line}` into redis.conf"


def _mb(size: float) -> str:
    return f"{size / 2**20:,.0f} MB"
