"""Where Redis and Flower let others in without a password: tries it from the network's side.

Their configuration does not tell: a hosted Redis refuses CONFIG, and what counts is whether another
host gets through, past `bind`, protected mode, ACL rules and port forwards.
"""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

from protocol.broker.address import read_address, without_password
from protocol.broker.connection import TIMEOUT_SECONDS, connect
from protocol.errors import BrokerError, UsageError
from protocol.ledger import JOBS

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
    open_api: bool  # whether anyone may control workers through its API


def look_at_flower(url: str, required: bool) -> Flower | None:
    """None if no Flower answers.

    Raises `UsageError` if it is `required` and does not answer, or if the URL is none.
    """
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
    open_at = [other for other in hosts if _http_status(parts, other, port, "/") == 200]
    return Flower(shown, open_at, _http_status(parts, host, port, "/api/workers") == 200)


def redis_open_at(url: str, tcp_port: int) -> list[str]:
    """The hosts at which others can read the ledger without a password.

    `tcp_port` is the port that Redis says it listens on, for a URL that names a socket; 0 if none.
    """
    parts = urlsplit(read_address(url).redis_url)
    port = parts.port or 6379 if parts.hostname else tcp_port
    scheme, query = ("rediss", "?ssl_cert_reqs=none") if parts.scheme == "rediss" else ("redis", "")
    found = []
    for host in hosts_seen_by_others(parts.hostname or "localhost") if port else []:
        address = f"[{host}]" if ":" in host else host
        with suppress(BrokerError), connect(f"{scheme}://{address}:{port}{query}") as other:
            other.exists(JOBS)
            found.append(host)
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
