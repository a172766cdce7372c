"""What `digitq doctor` looks at: Redis, what its workers say there, and Flower.

It connects as others would, to see whether they get in without a password: a hosted Redis refuses
CONFIG, and access depends on `bind`, protected mode, ACL rules and port forwards together.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from digitq.protocol.broker.address import Address, read_address, without_password
from digitq.protocol.broker.connection import (
    TIMEOUT_SECONDS,
    RetryingRedis,
    check_server,
    connect,
    find_foreign,
)
from digitq.protocol.errors import BrokerError, UsageError
from digitq.protocol.heartbeat import seconds_ahead
from digitq.protocol.keys import ACTIVE, JOBS, LIVING, QUEUE, record_key
from digitq.protocol.ledger import Ledger
from digitq.protocol.overview import Overview, look_around
from digitq.protocol.settings import DEFAULT_BROKER, settings
from digitq.protocol.text import plural

FLOWER_URL = "http://localhost:5555"
DEFAULT_PORTS = {"http": 80, "https": 443}
# Addresses that nobody has (RFC 5737, RFC 3849). A UDP socket that is "connected" to one sends
# nothing, but shows the address that this host has in its network.
NOWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
# Whoever may run one of these without a password can read jobs. They change nothing.
READS = (
    ("EXISTS", JOBS),
    ("GET", JOBS),
    ("HGETALL", record_key("none")),
    ("HGET", record_key("none:results"), "0"),
    ("LRANGE", QUEUE, "0", "0"),
)
# What Redis must be allowed to do as the user `default` when it reads its append-only file
REPLAYED = (
    ("HSET", record_key("none"), "state", "done"),
    ("ZADD", JOBS, "0", "none"),
    ("LPUSH", QUEUE, "none"),
)


@dataclass(frozen=True)
class Flower:
    """A Flower, and the pages that others see without a password."""

    url: str
    open_at: list[str]


@dataclass(frozen=True)
class Facts:
    """All that the rules judge."""

    redis_url: str  # without its password
    address: Address
    password_characters: int  # 0 without a password
    redis: dict[str, Any]  # the reply to INFO
    appendfsync: str | None  # None if Redis refuses to tell it
    users: Sequence[str] | None  # each with its rights; None if Redis refuses to tell them
    can_replay: bool  # false if Redis is known to forget jobs when it reads its append-only file
    redis_seen_at: list[str]  # hosts at which others reach it
    redis_open_at: list[str]  # hosts at which others can read it without a password
    clock_seconds: float  # this host's clock is at least that far ahead of Redis's
    foreign: Sequence[str]  # keys that jobs share and that have another type
    elsewhere: Sequence[str]  # other databases with workers or jobs, if no worker lives in this one
    overview: Overview
    flower: Flower | None
    unseen: Sequence[str]  # what could not be looked at, and why

    def describe(self) -> str:
        """One line that says what was looked at, and what was not."""
        seen = [
            f"Redis {self.redis['redis_version']} at {self.redis_url}",
            plural(len(self.overview.workers), "worker"),
            *([f"Flower at {self.flower.url}"] if self.flower else []),
        ]
        unseen = f"; could not see {', '.join(self.unseen)}" if self.unseen else ""
        return f"looked at {', '.join(seen)}{unseen}"


def gather_facts(broker_url: str | None, flower_url: str | None) -> Facts:
    """Ask Redis and Flower. Raises `BrokerError` and as `look_at_flower`."""
    flower = look_at_flower(flower_url or FLOWER_URL, required=bool(flower_url))
    url = broker_url or settings().broker_url or DEFAULT_BROKER
    with connect(url) as client:  # it is closed if this raises
        check_server(client)
    address, ledger = read_address(url), Ledger(client)
    info = ledger.redis.info()
    configured = ask(ledger.redis, "CONFIG GET", "appendfsync")
    users = ask(ledger.redis, "ACL LIST")
    replays = [ask(ledger.redis, "ACL DRYRUN", "default", *command) for command in REPLAYED]
    unseen = list[str]()
    if configured is None:
        unseen.append("appendfsync (Redis refuses CONFIG)")
    if users is None:
        unseen.append("the rights of users (Redis refuses ACL)")
    if flower is None:
        unseen.append(f"Flower (none answers at {FLOWER_URL}; name its URL with --flower)")
    elif not flower_url:
        unseen.append("whether this Flower watches this Redis (name the right one with --flower)")
    before, (seconds, microseconds), after = time.time(), ledger.redis.time(), time.time()
    host, port = find_redis(ledger.redis, info["tcp_port"])
    seen_at, open_at = look_at_network(host, port, bool(address.tls))
    foreign = find_foreign(ledger.redis)
    overview = Overview() if foreign else look_around(ledger)
    return Facts(
        redis_url=without_password(url),
        address=address,
        password_characters=len(unquote(urlsplit(address.redis_url).password or "")),
        redis=info,
        appendfsync=configured and str(configured["appendfsync"]),
        users=users,
        can_replay=all(reply in (None, b"OK") for reply in replays),
        redis_seen_at=seen_at,
        redis_open_at=open_at,
        clock_seconds=seconds_ahead(before, seconds + microseconds / 1e6, after),
        foreign=foreign,
        elsewhere=[] if overview.workers else find_elsewhere(ledger.redis, info),
        overview=overview,
        flower=flower,
        unseen=unseen,
    )


def find_elsewhere(client: Any, info: dict[str, Any]) -> list[str]:
    """The other databases of this Redis in which there are workers or jobs."""
    found = []
    own = f"db{client.connection_pool.connection_kwargs.get('db') or 0}"
    for name in info.keys() - {own}:
        if name.startswith("db") and name[2:].isdecimal():
            with client.client() as other:
                if ask(other, "SELECT", name[2:]) and other.exists(LIVING, JOBS, ACTIVE, QUEUE):
                    found.append(name[2:])
                other.connection.disconnect()  # the pool must not get it with this database
    return sorted(found)


def ask(client: RetryingRedis, *command: str) -> Any:
    """The reply to a command; None if Redis refuses it. Raises `BrokerError` if Redis is lost."""
    try:
        return client.execute_command(*command)
    except BrokerError as error:
        if isinstance(error.__cause__, redis.ResponseError):
            return None
        raise


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
    # With a password, / gives 401, or 302 where another site does the login. The API needs one even
    # on this host: a web page in a browser here could stop workers.
    others = hosts_seen_by_others(host)
    pages = [(other, path) for path in ("/", "/metrics") for other in others]
    pages.append((host, "/api/workers"))
    open_at = [
        f"{path} at {other}"
        for other, path in pages
        if _http_status(parts, other, port, path) == 200
    ]
    return Flower(shown, open_at)


def find_redis(client: RetryingRedis, tcp_port: int) -> tuple[str, int]:
    """The host and port of Redis, which listens on `tcp_port` if its URL is of a socket."""
    address = read_address(client.url)
    if address.sentinels:
        host, port = client.connection_pool.get_master_address()
        return str(host), int(port)
    parts = urlsplit(address.redis_url)
    return (parts.hostname, parts.port or 6379) if parts.hostname else ("localhost", tcp_port)


def look_at_network(host: str, port: int, tls: bool) -> tuple[list[str], list[str]]:
    """The hosts at which others reach Redis, and those of them where they need no password."""
    scheme, query = ("rediss", "?ssl_cert_reqs=none") if tls else ("redis", "")
    seen_at, open_at = [], []
    for other_host in hosts_seen_by_others(host) if port else []:
        address = f"[{other_host}]" if ":" in other_host else other_host
        with connect(f"{scheme}://{address}:{port}{query}") as other:
            can_read = try_to_read(other)
        if can_read is not None:
            seen_at.append(other_host)
        if can_read:
            open_at.append(other_host)
    return seen_at, open_at


def try_to_read(client: RetryingRedis) -> bool | None:
    """Whether Redis carries out any command that reads; None if it can't be reached."""
    for command in READS:
        try:
            client.execute_command(*command)
            return True
        except BrokerError as error:
            if "WRONGTYPE" in str(error):
                return True
            if not isinstance(error.__cause__, (AuthenticationError, NoPermissionError)):
                return None
    return False


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
