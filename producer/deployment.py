"""Looks at a deployment for `digitq doctor`: Redis, the workers that it connects, and Flower."""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from operator import attrgetter
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from producer.client import Client
from protocol.broker.connection import (
    TIMEOUT_SECONDS,
    connect,
    first_line,
    read_address,
    without_password,
)
from protocol.celery import make_app
from protocol.errors import BrokerError, UsageError
from protocol.ledger import JOBS, JobRecord, Ledger
from protocol.stats import STATS, WorkerStats
from protocol.text import plural

ANSWER_SECONDS = 2.0  # after a worker's answer the next one is waited for so long
FLOWER_URL = "http://localhost:5555"
# Nobody is there, and nothing is sent: the way there shows this host's own address.
FAR = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


@dataclass(frozen=True)
class Worker:
    """A worker that answered. Its clock is ahead of Redis's by `clock_seconds`, at least."""

    name: str
    stats: WorkerStats
    clock_seconds: float


@dataclass(frozen=True)
class Stranger:
    """A worker whose answer was another than a worker's of this version; it may have said which
    version it is of."""

    name: str
    version: str | None


@dataclass(frozen=True)
class Flower:
    """A Flower. `open_at` are the hosts at which others see it without a password; `open_api`
    whether anyone may control workers through it."""

    url: str
    open_at: Sequence[str]
    open_api: bool


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
    strangers: Sequence[Stranger]
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
    client = Client(broker_url, patience_seconds=0)
    server = client.ledger.redis
    info = server.info()
    appendfsync = _read_appendfsync(server)
    unseen = [] if appendfsync else ["appendfsync (Redis refuses CONFIG)"]
    if flower is None:
        unseen.append(f"Flower (none answers at {FLOWER_URL}; --flower names another)")
    elif not flower_url:
        unseen.append("whether that Flower is of this Redis (--flower says which one is)")
    asked, workers, strangers = True, list[Worker](), list[Stranger]()
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


def ask_workers(app: Celery, ledger: Ledger) -> tuple[list[Worker], list[Stranger]]:
    """Every worker that answers, by name. Raises `BrokerError`."""
    workers: list[Worker] = []
    strangers: list[Stranger] = []
    asked, started = _redis_time(ledger), time.monotonic()

    def note(replies: dict[str, Any]) -> None:
        answered = asked + time.monotonic() - started
        for name, reply in replies.items():
            if stats := WorkerStats.parse(reply):
                workers.append(Worker(name, stats, _ahead(stats.time, asked, answered)))
            else:
                strangers.append(Stranger(name, reply.get("version")))

    try:
        app.control.broadcast(STATS, reply=True, timeout=ANSWER_SECONDS, callback=note)
    except (OperationalError, redis.RedisError) as error:
        raise BrokerError(f"can't ask the workers: {first_line(error)}") from error
    return sorted(workers, key=attrgetter("name")), sorted(strangers, key=attrgetter("name"))


def look_at_flower(url: str, required: bool) -> Flower | None:
    """None where no Flower answers. Raises `UsageError` where it is `required`, or the URL is
    none."""
    parts, host = _split(url)
    if _status(parts, host, "/healthcheck") != 200:
        if required:
            raise UsageError(f"--flower {without_password(url)}: no Flower answers there")
        return None
    # With a password / is 401, or 302 where one logs in elsewhere.
    open_at = [way for way in _ways_from_outside(host) if _status(parts, way, "/") == 200]
    open_api = _status(parts, host, "/api/workers") == 200
    return Flower(without_password(url), open_at, open_api)


def _split(url: str) -> tuple[SplitResult, str]:
    """A URL of Flower's, and its host. Raises `UsageError`."""
    with suppress(ValueError):  # of the host, its idna among it, or of the port
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.port != 0
        if known and parts.hostname and parts.hostname.encode("idna"):
            return parts, parts.hostname
    raise UsageError(f"--flower {without_password(url)!r}: it is no URL such as {FLOWER_URL}")


def _status(parts: SplitResult, host: str, path: str) -> int | None:
    """The HTTP status of a path for one who has no password; None where nothing answers."""
    kind: Any = http.client.HTTPConnection
    if parts.scheme == "https":  # whose certificate it is, a stranger need not care
        kind = partial(http.client.HTTPSConnection, context=ssl._create_unverified_context())
    try:
        with closing(kind(_bracket(host), parts.port, timeout=TIMEOUT_SECONDS)) as connection:
            prefix = quote(parts.path.rstrip("/"), safe="/%", errors="surrogateescape")
            connection.request("GET", prefix + path)
            return int(connection.getresponse().status)
    except (OSError, http.client.HTTPException):
        return None


def _read_appendfsync(server: Any) -> str | None:
    """None where Redis refuses to say."""
    try:
        return str(server.config_get("appendfsync")["appendfsync"])
    except BrokerError as error:
        if isinstance(error.__cause__, redis.ResponseError):
            return None
        raise


def _redis_open_at(url: str, port: int) -> list[str]:
    """The hosts at which one who has no password may read the ledger, from elsewhere."""
    parts = urlsplit(read_address(url).redis_url)
    if parts.hostname:
        port = parts.port or 6379
    secure = parts.scheme == "rediss"  # a stranger need not care whose certificate it is
    scheme, query = ("rediss", "?ssl_cert_reqs=none") if secure else ("redis", "")
    hosts = _ways_from_outside(parts.hostname or "localhost") if port else []
    return [host for host in hosts if _lets_in(f"{scheme}://{_bracket(host)}:{port}{query}")]


def _lets_in(url: str) -> bool:
    with suppress(BrokerError), connect(url) as stranger:
        stranger.exists(JOBS)
        return True
    return False


def _ways_from_outside(host: str) -> list[str]:
    """The host; or this host's own addresses in a network, where it is known by loopback."""
    if not all(ipaddress.ip_address(address).is_loopback for address in _resolve(host)):
        return [host]
    own = set(_resolve(socket.gethostname()))
    for family, far in FAR:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            own.add(probe.getsockname()[0])
    return sorted(address for address in own if not ipaddress.ip_address(address).is_loopback)


def _resolve(host: str) -> list[str]:
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None)]
    except OSError:
        return []


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


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
