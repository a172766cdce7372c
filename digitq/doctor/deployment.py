"""What `digitq doctor` looks at: Redis, its workers, and Flower.

It connects as others would, to see whether they get in without a password: a hosted Redis refuses
CONFIG, and access depends on `bind`, protected mode, ACL rules and port forwards together.
"""

import http.client
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import NoPermissionError

from producer.client import Client
from protocol.broker.address import read_address, without_password
from protocol.broker.connection import TIMEOUT_SECONDS, RetryingRedis, connect, first_line
from protocol.celery import STATS, WorkerStats, make_app
from protocol.errors import BrokerError, UsageError
from protocol.ledger import JOBS, Ledger
from protocol.overview import Overview, look_around
from protocol.text import plural

MAX_REPLY_SECONDS = 2.5  # time to wait for the first worker's reply, and after each for the next
MAX_LATE_REPLY_SECONDS = 10.0  # the same for workers that are known to live
# Each Celery worker of whatever version publishes here every two seconds; {} is the database
HEARTBEATS = "/{}.celeryev/worker.heartbeat"
FLOWER_URL = "http://localhost:5555"
DEFAULT_PORTS = {"http": 80, "https": 443}
# Addresses that nobody has (RFC 5737, RFC 3849). A UDP socket that is "connected" to one sends
# nothing, but shows the address that this host has in its network.
NOWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


@dataclass(frozen=True)
class Flower:
    """A Flower and who may use it without a password."""

    url: str
    open_at: Sequence[str]  # hosts at which others see it
    open_metrics_at: Sequence[str]  # hosts at which others see its metrics
    open_api: bool  # whether anyone may control workers through its API


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
    redis_host: str  # with Sentinels, that of the master
    redis_port: int  # 0 if Redis listens on a socket alone
    redis_socket: str  # the path of the socket in its URL, if that is of one
    redis_user: str | None  # "" with a password alone, None without a login
    redis_tls: Mapping[str, Any]  # the options of TLS; empty without TLS
    redis: dict[str, Any]  # the reply to INFO
    appendfsync: str | None  # None if Redis refuses to tell it
    redis_open_at: Sequence[str]  # hosts at which others can read it without a password
    clock_seconds: float  # this host's clock is at least that far ahead of Redis's
    overview: Overview
    workers_asked: bool  # False if Redis did not pass on the question
    workers: Sequence[Worker]
    unknown_workers: Sequence[tuple[str, str]]  # its name, and its version of digitq if known
    silent_workers: Sequence[str]  # those that live, but don't reply
    flower: Flower | None
    unseen: Sequence[str]  # what could not be looked at, and why

    def describe(self) -> str:
        """One line that says what was looked at, and what was not."""
        seen = [
            f"Redis {self.redis['redis_version']} at {self.redis_url}",
            plural(len([*self.workers, *self.unknown_workers, *self.silent_workers]), "worker"),
            *([f"Flower at {self.flower.url}"] if self.flower else []),
        ]
        unseen = f"; could not see {', '.join(self.unseen)}" if self.unseen else ""
        return f"looked at {', '.join(seen)}{unseen}"


def look_at(broker_url: str | None, flower_url: str | None) -> Deployment:
    """Ask Redis, the workers and Flower. Raises `BrokerError` and as `look_at_flower`."""
    flower = look_at_flower(flower_url or FLOWER_URL, required=bool(flower_url))
    client = Client(broker_url, retry_seconds=0)
    ledger = client.ledger
    info = ledger.redis.info()
    appendfsync, unseen = None, list[str]()
    try:
        appendfsync = str(ledger.redis.config_get("appendfsync")["appendfsync"])
    except BrokerError as error:
        if not isinstance(error.__cause__, redis.ResponseError):
            raise
        unseen.append("appendfsync (Redis refuses CONFIG)")
    if flower is None:
        unseen.append(f"Flower (none answers at {FLOWER_URL}; name its URL with --flower)")
    elif not flower_url:
        unseen.append("whether this Flower watches this Redis (name the right one with --flower)")
    replies, silent, workers_asked = dict[str, Worker | str](), list[str](), True
    try:
        replies, silent = find_workers(make_app(client.url), ledger, unseen)
    except BrokerError as error:  # for example, Redis is full or a replica
        workers_asked = False
        unseen.append(f"the workers ({error})")
    before, reading, after = time.time(), _redis_time(ledger), time.time()
    host, port = find_redis(ledger.redis, info["tcp_port"])
    address = read_address(client.url)
    return Deployment(
        redis_url=without_password(client.url),
        redis_host=host,
        redis_port=port,
        redis_socket=address.socket_path,
        redis_user=address.user,
        redis_tls=address.tls,
        redis=info,
        appendfsync=appendfsync,
        redis_open_at=redis_open_at(host, port, bool(address.tls)),
        clock_seconds=-_seconds_ahead(reading, before, after),
        overview=look_around(ledger),
        workers_asked=workers_asked,
        workers=[reply for reply in replies.values() if isinstance(reply, Worker)],
        unknown_workers=[(name, text) for name, text in replies.items() if isinstance(text, str)],
        silent_workers=silent,
        flower=flower,
        unseen=unseen,
    )


def find_workers(
    app: Celery, ledger: Ledger, unseen: list[str]
) -> tuple[dict[str, Worker | str], list[str]]:
    """The replies of all workers, and the names of those that live and don't reply, both sorted.

    Those that are known to live are asked again, with more patience. Adds to `unseen`. Raises
    `BrokerError`.
    """
    try:
        with ledger.redis.pubsub() as heartbeats:
            database = heartbeats.connection_pool.connection_kwargs["db"]
            heartbeats.subscribe(HEARTBEATS.format(database))
            replies, living = ask_workers(app, ledger), recent_signs(ledger)
            try:
                while message := heartbeats.get_message():
                    if message["type"] == "message":  # the first one says that it is subscribed
                        living.add(json.loads(message["data"])["headers"]["hostname"])
            except NoPermissionError:
                unseen.append("older workers that don't reply (Redis refuses Celery's events)")
        if late := living - replies.keys():
            replies |= ask_workers(app, ledger, *late)
    except (OperationalError, redis.RedisError) as error:
        raise BrokerError(f"can't ask the workers: {first_line(error)}") from error
    return dict(sorted(replies.items())), sorted(living - replies.keys())


def ask_workers(app: Celery, ledger: Ledger, *names: str) -> dict[str, Worker | str]:
    """The replies by name, of all workers or of these. Of a worker whose reply is not of this
    version, it is the version of digitq, or "" if it is not known."""
    replies: dict[str, Worker | str] = {}
    asked, started = _redis_time(ledger), time.monotonic()

    def note(reply: dict[str, Any]) -> None:
        replied = asked + time.monotonic() - started
        for name, told in reply.items():
            if stats := WorkerStats.parse(told):
                replies[name] = Worker(name, stats, _seconds_ahead(stats.time, asked, replied))
            else:
                replies[name] = told.get("version") or ""

    app.control.broadcast(
        STATS,
        destination=names or None,
        reply=True,
        timeout=MAX_LATE_REPLY_SECONDS if names else MAX_REPLY_SECONDS,
        limit=len(names) or None,
        callback=note,
    )
    return replies


def recent_signs(ledger: Ledger) -> set[str]:
    """The names of the workers that have just given a sign of life."""
    return {sign.name for sign in ledger.signs() if sign.silent_seconds < MAX_REPLY_SECONDS}


def _redis_time(ledger: Ledger) -> float:
    seconds, microseconds = ledger.redis.time()
    return float(seconds + microseconds / 1e6)


def _seconds_ahead(reading: float, before: float, after: float) -> float:
    """How far a clock is ahead of another, at least, if it was read between two times of that."""
    return max(0.0, reading - after) - max(0.0, before - reading)


def look_at_flower(url: str, required: bool) -> Flower | None:
    """None if none answers. Raises `UsageError` if one is `required`, or if the URL is wrong."""
    shown = without_password(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise UsageError(f"--flower {shown!r} is not a URL such as {FLOWER_URL}") from None
    if _http_status(parts, host, port, "/healthcheck") != 200:
        if required:
            raise UsageError(f"--flower {shown}: no Flower answers there")
        return None
    # With a password, / gives 401, or 302 where another site does the login
    hosts = hosts_seen_by_others(host)
    open_at, open_metrics_at = (
        [other for other in hosts if _http_status(parts, other, port, path) == 200]
        for path in ("/", "/metrics")
    )
    open_api = _http_status(parts, host, port, "/api/workers") == 200
    return Flower(shown, open_at, open_metrics_at, open_api)


def find_redis(client: RetryingRedis, tcp_port: int) -> tuple[str, int]:
    """The host and port of Redis, which listens on `tcp_port` if its URL is of a socket."""
    address = read_address(client.url)
    if address.sentinels:
        host, port = client.connection_pool.get_master_address()
        return str(host), int(port)
    parts = urlsplit(address.redis_url)
    return (parts.hostname, parts.port or 6379) if parts.hostname else ("localhost", tcp_port)


def redis_open_at(host: str, port: int, tls: bool) -> list[str]:
    """The hosts at which others can read the ledger without a password."""
    scheme, query = ("rediss", "?ssl_cert_reqs=none") if tls else ("redis", "")
    found = []
    for other_host in hosts_seen_by_others(host) if port else []:
        address = f"[{other_host}]" if ":" in other_host else other_host
        with suppress(BrokerError), connect(f"{scheme}://{address}:{port}{query}") as other:
            other.exists(JOBS)
            found.append(other_host)
    return found


def hosts_seen_by_others(host: str) -> list[str]:
    """The host; or, if it is this host's loopback, this host's addresses in its network."""
    if not all(ipaddress.ip_address(address).is_loopback for address in _resolve(host)):
        return [host]
    own = set(_resolve(socket.gethostname()))
    for family, address in NOWHERE:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            own.add(probe.getsockname()[0])
    return sorted(address for address in own if not ipaddress.ip_address(address).is_loopback)


def _http_status(parts: SplitResult, host: str, port: int, path: str) -> int | None:
    """The HTTP status of a path without a password; None if nothing answers."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # any certificate will do
    kind: Any = http.client.HTTPConnection
    if parts.scheme == "https":
        kind = partial(http.client.HTTPSConnection, context=context)
    try:
        with closing(kind(host, port, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request("GET", parts.path.rstrip("/") + path)
            return int(connection.getresponse().status)
    except (OSError, ValueError, http.client.HTTPException):  # also for a malformed host or path
        return None


def _resolve(host: str) -> list[str]:
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None)]
    except OSError:
        return []
