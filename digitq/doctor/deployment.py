"""What `digitq doctor` looks at: Redis, its workers, and Flower."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from digitq.doctor.exposure import FLOWER_URL, Flower, look_at_flower, redis_open_at
from producer.client import Client
from protocol.broker.address import without_password
from protocol.broker.failures import first_line
from protocol.celery import make_app
from protocol.errors import BrokerError
from protocol.ledger import JobRecord, Ledger
from protocol.stats import STATS, WorkerStats
from protocol.text import plural

MAX_REPLY_SECONDS = 2.0  # time to wait for the first worker's reply, and after each for the next


@dataclass(frozen=True)
class Worker:
    """A worker of this version that replied."""

    name: str
    stats: WorkerStats
    clock_seconds: float  # its clock is at least that far ahead of Redis's


@dataclass(frozen=True)
class Deployment:
    """All that the rules judge."""

    redis_url: str  # without its password
    redis: dict[str, Any]  # the reply to INFO
    appendfsync: str | None  # None if Redis refuses CONFIG
    redis_open_at: Sequence[str]  # hosts at which others can read it without a password
    clock_seconds: float  # this host's clock is at least that far ahead of Redis's
    jobs: Sequence[JobRecord]
    workers_asked: bool  # False if Redis did not pass on the question
    workers: Sequence[Worker]
    unknown_workers: Sequence[tuple[str, str]]  # name, and version of digitq or ""
    flower: Flower | None
    unseen: Sequence[str]  # what could not be looked at, and why

    def describe(self) -> str:
        """One line that says what was looked at, and what was not."""
        seen = [
            f"Redis {self.redis['redis_version']} at {self.redis_url}",
            plural(len(self.workers) + len(self.unknown_workers), "worker"),
            *([f"Flower at {self.flower.url}"] if self.flower else []),
        ]
        unseen = f"; could not see {', '.join(self.unseen)}" if self.unseen else ""
        return f"looked at {', '.join(seen)}{unseen}"


def look_at(broker_url: str | None, flower_url: str | None) -> Deployment:
    """Ask Redis, the workers and Flower.

    Raises `BrokerError` if Redis can't be reached, and `UsageError` if no Flower answers at a
    `flower_url` that is given.
    """
    flower = look_at_flower(flower_url or FLOWER_URL, required=bool(flower_url))
    client = Client(broker_url, retry_seconds=0)
    ledger = client.ledger
    info = ledger.redis.info()
    appendfsync = _read_appendfsync(ledger)
    unseen = [] if appendfsync else ["appendfsync (Redis refuses CONFIG)"]
    if flower is None:
        unseen.append(f"Flower (none answers at {FLOWER_URL}; name its URL with --flower)")
    elif not flower_url:
        unseen.append("whether this Flower watches this Redis (name the right one with --flower)")
    workers_asked, workers, unknown = True, list[Worker](), list[tuple[str, str]]()
    try:
        workers, unknown = ask_workers(make_app(client.url), ledger)
    except BrokerError as error:  # for example, Redis is full or a replica
        workers_asked = False
        unseen.append(f"the workers ({error})")
    before, reading, after = time.time(), _redis_time(ledger), time.time()
    return Deployment(
        redis_url=without_password(client.url),
        redis=info,
        appendfsync=appendfsync,
        redis_open_at=redis_open_at(client.url, info["tcp_port"]),
        clock_seconds=-_seconds_ahead(reading, before, after),
        jobs=client.jobs(),
        workers_asked=workers_asked,
        workers=workers,
        unknown_workers=unknown,
        flower=flower,
        unseen=unseen,
    )


def ask_workers(app: Celery, ledger: Ledger) -> tuple[list[Worker], list[tuple[str, str]]]:
    """The workers that reply, of this version and others, sorted by name. Raises `BrokerError`."""
    workers: list[Worker] = []
    unknown: list[tuple[str, str]] = []
    asked, started = _redis_time(ledger), time.monotonic()

    def note(replies: dict[str, Any]) -> None:
        replied = asked + time.monotonic() - started
        for name, reply in replies.items():
            if stats := WorkerStats.parse(reply):
                workers.append(Worker(name, stats, _seconds_ahead(stats.time, asked, replied)))
            else:
                unknown.append((name, reply.get("version") or ""))

    try:
        app.control.broadcast(STATS, reply=True, timeout=MAX_REPLY_SECONDS, callback=note)
    except (OperationalError, redis.RedisError) as error:
        raise BrokerError(f"can't ask the workers: {first_line(error)}") from error
    return sorted(workers, key=attrgetter("name")), sorted(unknown)


def _read_appendfsync(ledger: Ledger) -> str | None:
    """None if Redis refuses CONFIG."""
    try:
        return str(ledger.redis.config_get("appendfsync")["appendfsync"])
    except BrokerError as error:
        if isinstance(error.__cause__, redis.ResponseError):
            return None
        raise


def _redis_time(ledger: Ledger) -> float:
    seconds, microseconds = ledger.redis.time()
    return float(seconds + microseconds / 1e6)


def _seconds_ahead(reading: float, before: float, after: float) -> float:
    """How far a clock is ahead of another, at least, if it was read between two times of that."""
    return max(0.0, reading - after) - max(0.0, before - reading)
