"""Who gets in without a password: the ways to Redis and to Flower from outside."""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from protocol.broker.address import read_address, without_password
from protocol.broker.connection import TIMEOUT_SECONDS, connect
from protocol.errors import BrokerError, UsageError
from protocol.ledger import JOBS

FLOWER_URL = "http://localhost:5555"
# Nobody is there, and nothing is sent: the way there shows this host's own address.
FAR = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


@dataclass(frozen=True)
class Flower:
    """A Flower. `open_at` are the hosts at which others see it without a password; `open_api`
    whether anyone may control workers through it."""

    url: str
    open_at: Sequence[str]
    open_api: bool


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
