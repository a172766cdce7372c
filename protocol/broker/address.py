"""The address of a Redis: its URL, read once, and spelled for redis-py and for kombu.

The two read the database and options from different parts of a URL, so that one URL, passed on
unchanged, could be two databases.
"""

import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from protocol.errors import UsageError

UNIX_SCHEMES = ("unix", "redis+socket")
# The options that kombu passes on to redis-py in the form that redis-py takes
TLS_OPTIONS = {
    *("ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password"),
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers"),
}
CERT_REQS = ("required", "optional", "none")
NO_URL = (
    "it is not a Redis URL such as redis://localhost:6379/0; the characters / ? # @ of a password "
    "must be %2F %3F %23 %40"
)
LOGIN = re.compile(r"^(\w[\w+.-]*://|//)?.*@", re.DOTALL)
SECRET = re.compile(r"([?&][^?&=]*password[^?&=]*=)[^&]*", re.IGNORECASE)


class Address(NamedTuple):
    """One database of one Redis. Two URLs of the same database give equal addresses."""

    redis_url: str  # for redis-py
    celery_url: str  # for kombu


def read_address(url: str, origin: str = "--broker or DIGITQ_BROKER_URL") -> Address:
    """The address in a URL, which `origin` gave. Raises `UsageError` if it can't be used."""
    try:
        return _parse(url)
    except ValueError as error:
        raise UsageError(f"broker {without_password(url)!r} ({origin}): {error}") from None


def without_password(url: str) -> str:
    """The URL with each login and password replaced by `***`."""
    return LOGIN.sub(r"\1***@", SECRET.sub(r"\1***", url))


def _parse(url: str) -> Address:
    """The address in a URL. Raises `ValueError`, as the functions that it calls."""
    parts = _split(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    databases = [options.pop(name) for name in ("db", "virtual_host") if name in options]
    place = parts.netloc.replace(";", "%3B")  # kombu splits a list of URLs there
    tls = _read_tls(parts.scheme, options)
    if parts.scheme in UNIX_SCHEMES:
        if parts.hostname or not parts.path:
            raise ValueError("it has no path of a socket, unlike unix:///run/redis.sock?db=0")
        place += quote(unquote(parts.path))
        database = _read_database(databases)
        return Address(
            f"unix://{place}?db={database}", f"redis+socket://{place}?virtual_host={database}"
        )
    if path := parts.path.strip("/"):
        databases.append(path)
    query = f"?{urlencode(tls)}" if tls else ""
    url = f"{parts.scheme}://{place}/{_read_database(databases)}{query}"
    return Address(url, url)


def _split(url: str) -> SplitResult:
    """The parts of the URL. The message of `urlsplit` is dropped: it could show a password."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # fails now rather than when it is looked up
        known = parts.scheme in ("redis", "rediss", *UNIX_SCHEMES) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError(NO_URL)
    if "#" in url:
        raise ValueError("a # in it must be written %23")
    return parts


def _read_database(named: list[str]) -> int:
    if not all(number.isascii() and number.isdecimal() for number in named):
        raise ValueError("its database is not a number, unlike redis://localhost:6379/0")
    numbers = {int(number) for number in named} or {0}
    if len(numbers) > 1:
        raise ValueError("it names two databases: leave one out")
    return numbers.pop()


def _read_tls(scheme: str, options: dict[str, str]) -> dict[str, str]:
    """The options of TLS, which say whom to trust: by default kombu would trust any server."""
    known = TLS_OPTIONS if scheme == "rediss" else set[str]()
    if unknown := sorted({*options} - known):
        if "@" in "".join(unknown):  # the rest of a password with a ? in it
            raise ValueError(NO_URL)
        raise ValueError(
            f"it can't have {', '.join(unknown)} after the ?: only db, and with rediss:// also "
            "ssl_ca_certs, ssl_cert_reqs and the like; a login stands before the host"
        )
    if scheme != "rediss":
        return {}
    tls = {"ssl_cert_reqs": "required", **dict(sorted(options.items()))}
    if tls["ssl_cert_reqs"] not in CERT_REQS:
        raise ValueError(f"its ssl_cert_reqs is not one of {', '.join(CERT_REQS)}")
    # redis-py and kombu disagree about other values
    if tls.get("ssl_check_hostname", "true") not in ("true", "false"):
        raise ValueError("its ssl_check_hostname is neither true nor false")
    return tls
