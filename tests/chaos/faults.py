"""What may happen to a deployment: each fault is a function that does it, and has it undone."""

import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any

from digitq.protocol.app import CLASSIFY, make_app
from digitq.protocol.keys import QUEUE, record_key
from tests.chaos.deployment import Deployment

Strike = Callable[[Deployment, Random], None]


@dataclass(frozen=True)
class Fault:
    """`kills` counts as a kill; `forgets` loses what a job without its producer needs; `ends` may
    end the producer."""

    name: str
    strike: Strike
    kills: bool = False
    forgets: bool = False
    ends: bool = False


def _any_worker(deployment: Deployment, random: Random) -> str:
    return random.choice(deployment.worker_names())


def kill_child(deployment: Deployment, random: Random) -> None:
    deployment.signal(deployment.child(_any_worker(deployment, random)), SIGKILL)


def kill_main(deployment: Deployment, random: Random) -> None:
    deployment.signal(deployment.pid(_any_worker(deployment, random)), SIGKILL)


def kill_all_workers(deployment: Deployment, random: Random) -> None:
    for name in deployment.worker_names():
        child = deployment.child(name)
        deployment.signal(deployment.pid(name), SIGKILL)
        deployment.signal(child, SIGKILL)


def terminate(deployment: Deployment, random: Random) -> None:
    deployment.signal(deployment.pid(_any_worker(deployment, random)), SIGTERM)


def stop_child(deployment: Deployment, random: Random) -> None:
    deployment.stop(deployment.child(_any_worker(deployment, random)), deployment.stop_seconds)


def stop_main(deployment: Deployment, random: Random) -> None:
    deployment.stop(deployment.pid(_any_worker(deployment, random)), deployment.stop_seconds)


def stop_redis(deployment: Deployment, random: Random) -> None:
    deployment.stop(deployment.pid("redis"), 2 * deployment.stop_seconds)


def kill_redis(deployment: Deployment, random: Random) -> None:
    deployment.signal(deployment.pid("redis"), SIGKILL)


def empty_redis(deployment: Deployment, random: Random) -> None:
    deployment.forgets = True
    deployment.signal(deployment.pid("redis"), SIGKILL)


def kill_clients(deployment: Deployment, random: Random) -> None:
    deployment.ledger().redis.client_kill_filter(_type="normal", skipme=True)


def fill_memory(deployment: Deployment, random: Random) -> None:
    redis = deployment.ledger().redis
    redis.config_set("maxmemory", redis.info("memory")["used_memory"] // 2)
    deployment.later(2, lambda: deployment.ledger().redis.config_set("maxmemory", 0))


def fill_redis_disk(deployment: Deployment, random: Random) -> None:
    """A snapshot can't be written, since a folder has its name: Redis refuses to write anything."""
    (deployment.folder / "dump.rdb").mkdir(exist_ok=True)
    deployment.ledger().redis.config_set("save", "1 1")
    deployment.later(4, lambda: deployment.ledger().redis.config_set("save", ""))


def kill_producer(deployment: Deployment, random: Random) -> None:
    deployment.signal(deployment.producer, SIGKILL)


def interrupt_producer(deployment: Deployment, random: Random) -> None:
    deployment.signal(deployment.producer, SIGINT)


def fill_disk(deployment: Deployment, random: Random) -> None:
    """The producer's files can grow by a few bytes; a write goes half through, the next fails."""
    if deployment.producer:
        begun = 1000  # bytes: a file that can't even be begun is a wrong command
        limit = max([begun, *deployment.written()]) + random.randrange(5000)
        with suppress(ProcessLookupError):
            resource.prlimit(deployment.producer, resource.RLIMIT_FSIZE, (limit, limit))


def cut_network(deployment: Deployment, random: Random) -> None:
    deployment.proxy.cut()


def delay_network(deployment: Deployment, random: Random) -> None:
    proxy = deployment.proxy
    proxy.delay_seconds = random.uniform(0.05, 0.3)
    deployment.later(2, lambda: setattr(proxy, "delay_seconds", 0.0))


def halve_streams(deployment: Deployment, random: Random) -> None:
    deployment.proxy.halves += random.randint(1, 8)


def swallow(deployment: Deployment, random: Random) -> None:
    """As a firewall does that has forgotten the connections, or a host that has lost its power."""
    deployment.proxy.swallow()


def _messages(deployment: Deployment) -> list[bytes]:
    found: Any = deployment.ledger().redis.lrange(QUEUE, 0, -1)
    return list(found)


def double_messages(deployment: Deployment, random: Random) -> None:
    redis = deployment.ledger().redis
    for message in _messages(deployment):
        redis.lpush(QUEUE, message)
        redis.rpush(QUEUE, message)


def drop_messages(deployment: Deployment, random: Random) -> None:
    deployment.ledger().redis.delete(QUEUE)


def delay_messages(deployment: Deployment, random: Random) -> None:
    """Taken out of the queue, and back when they are long done."""
    messages = _messages(deployment)
    deployment.ledger().redis.delete(QUEUE)

    def come_back() -> None:
        for message in messages:
            deployment.ledger().redis.lpush(QUEUE, message)

    deployment.later(3, come_back)


def repeat_chunks(deployment: Deployment, random: Random) -> None:
    """Messages of chunks that are done, running, and never were."""
    app = make_app(deployment.direct_url)
    for job_id in deployment.ledger().active():
        stored = int(deployment.ledger().redis.hget(record_key(job_id), "stored") or 0)
        numbers = {random.randrange(stored + 3) for _ in range(20)}
        for number in numbers:
            app.send_task(CLASSIFY, (job_id, number), ignore_result=True)


def push_rubbish(deployment: Deployment, random: Random) -> None:
    redis = deployment.ledger().redis
    for rubbish in (random.randbytes(200), b"", b"{}", b'{"body": 1}', b"[]", b"null"):
        redis.lpush(QUEUE, rubbish)


def push_other_version(deployment: Deployment, random: Random) -> None:
    app = make_app(deployment.direct_url)
    for arguments in ("no such job", 0), ("wrong",), ({}, "wrong"):
        app.send_task("digitq.classify", arguments, ignore_result=True)
    app.send_task("digitq.classify_chunks", (1, 2), {"version": 9}, ignore_result=True)


FAULTS = (
    Fault("a worker's child is killed", kill_child, kills=True),
    Fault("a worker's main process is killed", kill_main, kills=True),
    Fault("all workers are killed at once", kill_all_workers, kills=True),
    Fault("a worker is told to end", terminate),
    Fault("a worker's child stands still", stop_child),
    Fault("a worker's main process stands still", stop_main),
    Fault("the producer is killed", kill_producer, kills=True, ends=True),
    Fault("the producer gets Ctrl-C", interrupt_producer, ends=True),
    Fault("the disk is full", fill_disk, ends=True),
    Fault("Redis is killed", kill_redis, kills=True),
    Fault("Redis starts empty", empty_redis, kills=True, forgets=True),
    Fault("Redis stands still", stop_redis),
    Fault("Redis drops its clients", kill_clients),
    Fault("Redis's memory is full", fill_memory),
    Fault("Redis's disk is full", fill_redis_disk),
    Fault("connections are cut", cut_network),
    Fault("the network is slow", delay_network),
    Fault("streams are cut in half", halve_streams),
    Fault("nobody answers any more", swallow),
    Fault("messages come twice", double_messages),
    Fault("messages are dropped", drop_messages),
    Fault("messages come late", delay_messages),
    Fault("chunks that are done come again", repeat_chunks),
    Fault("rubbish in the queue", push_rubbish),
    Fault("messages of another version", push_other_version),
)
