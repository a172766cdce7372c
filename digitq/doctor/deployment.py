"""Looks at a deployment for `digitq doctor`: Redis, the workers that it connects, and Flower."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from operator import attrgetter
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from digitq.doctor.exposure import FLOWER_URL, Flower, _redis_open_at, look_at_flower
from producer.client import Client
from protocol.broker.address import without_password
from protocol.broker.failures import first_line
from protocol.celery import make_app
from protocol.errors import BrokerError
from protocol.ledger import JobRecord, Ledger
from protocol.stats import STATS, WorkerStats
from protocol.text import plural

ANSWER_SECONDS = 2.0  # after a worker's answer the next one is waited for so long


@dataclass(frozen=True)
class Worker:
    """A worker that answered. Its clock is ahead of Redis's by `clock_seconds`, at least."""

    name: str
    stats: WorkerStats
    clock_seconds: float


@dataclass(frozen=True)
class UnknownWorker:
    """A worker whose answer was another than a worker's of this version; it may have said which
    version it is of."""

    name: str
    version: str | None


@dataclass(frozen=True)
class Deployment:
    """What there is to judge. `unseen` says what could not be looked at, and why."""

    version: str  # of the digitq that looks
    redis_url: str  # without its password
    redis: dict[str, Any]  # what INFO says
    appendfsync: str | None
    redis_open_at: Sequence[str]  # the hosts at which others reach it without a password
    clock_seconds: float  # how far this host's clock is ahead of Redis's, at least
    jobs: Sequence[JobRecord]
    asked: bool  # whether the workers could be
    workers: Sequence[Worker]
    strangers: Sequence[UnknownWorker]
    flower: Flower | None
    unseen: Sequence[str]

    def describe(self) -> str:
        """What was looked at, and what was not, in a line."""
        seen = [
            f"Redis {self.redis['redis_version']} at {self.redis_url}",
            plural(len(self.workers) + len(self.strangers), "worker"),
            *([f"Flower at {self.flower.url}"] if self.flower else []),
        ]
        unseen = f"; not at {', '.join(self.unseen)}" if self.unseen else ""
        return f"looked at {', '.join(seen)}{unseen}"


def look_at(broker_url: str | None, flower_url: str | None) -> Deployment:
    """Ask Redis, the workers and Flower.

    Raises `BrokerError` where Redis can't be reached, `UsageError` where no Flower is at the URL
    that was given.
    """
    flower = look_at_flower(flower_url or FLOWER_URL, required=bool(flower_url))
    client = Client(broker_url, retry_seconds=0)
    server = client.ledger.redis
    info = server.info()
    appendfsync = _read_appendfsync(server)
    unseen = [] if appendfsync else ["appendfsync (Redis refuses CONFIG)"]
    if flower is None:
        unseen.append(f"Flower (none answers at {FLOWER_URL}; --flower names another)")
    elif not flower_url:
        unseen.append("whether that Flower is of this Redis (--flower says which one is)")
    asked, workers, strangers = True, list[Worker](), list[UnknownWorker]()
    try:
        workers, strangers = ask_workers(make_app(client.url), client.ledger)
    except BrokerError as error:  # Redis is full perhaps, or a replica
        asked = False
        unseen.append(f"the workers ({error})")
    return Deployment(
        version=version("digitq"),
        redis_url=without_password(client.url),
        redis=info,
        appendfsync=appendfsync,
        redis_open_at=_redis_open_at(client.url, info["tcp_port"]),
        clock_seconds=_own_clock(client.ledger),
        jobs=client.jobs(),
        asked=asked,
        workers=workers,
        strangers=strangers,
        flower=flower,
        unseen=unseen,
    )


def ask_workers(app: Celery, ledger: Ledger) -> tuple[list[Worker], list[UnknownWorker]]:
    """Every worker that answers, by name. Raises `BrokerError`."""
    workers: list[Worker] = []
    strangers: list[UnknownWorker] = []
    asked, started = _redis_time(ledger), time.monotonic()

    def note(replies: dict[str, Any]) -> None:
        answered = asked + time.monotonic() - started
        for name, reply in replies.items():
            if stats := WorkerStats.parse(reply):
                workers.append(Worker(name, stats, _ahead(stats.time, asked, answered)))
            else:
                strangers.append(UnknownWorker(name, reply.get("version")))

    try:
        app.control.broadcast(STATS, reply=True, timeout=ANSWER_SECONDS, callback=note)
    except (OperationalError, redis.RedisError) as error:
        raise BrokerError(f"can't ask the workers: {first_line(error)}") from error
    return sorted(workers, key=attrgetter("name")), sorted(strangers, key=attrgetter("name"))


def _read_appendfsync(server: Any) -> str | None:
    """None where Redis refuses to say."""
    try:
        return str(server.config_get("appendfsync")["appendfsync"])
    except BrokerError as error:
        if isinstance(error.__cause__, redis.ResponseError):
            return None
        raise


def _own_clock(ledger: Ledger) -> float:
    before = time.time()
    reading = _redis_time(ledger)
    return -_ahead(reading, before, time.time())


def _redis_time(ledger: Ledger) -> float:
    seconds, microseconds = ledger.redis.time()
    return float(seconds + microseconds / 1e6)


def _ahead(reading: float, before: float, after: float) -> float:
    """How far a clock is ahead at least, that was read between two moments of another."""
    return max(0.0, reading - after) - max(0.0, before - reading)
