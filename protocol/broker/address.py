"""Where a Redis is: its URL, read once, and spelled for redis-py and for kombu.

The two take a database and options from different places of a URL, so that one that is passed on
as it came may be two databases to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

TCP_SCHEMES = ("redis", "rediss")
UNIX_SCHEMES = ("unix", "redis+socket")
# Of redis-py's options those that kombu hands on to it, and in the form that it takes
TLS_OPTIONS = {
    "ssl_ca_certs",
    "ssl_ca_data",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_keyfile",
    "ssl_password",
}
CERT_REQS = ("required", "optional", "none")
NO_URL = (
    "it is no Redis URL such as redis://localhost:6379/0, where the / ? # @ of a password are "
    "%2F %3F %23 %40"
)


@dataclass(frozen=True)
class Address:
    """One database of one Redis, and how TLS goes with it."""

    scheme: str  # redis, rediss or unix
    place: str  # quoted: the login, then host and port, or the path of a socket
    database: int
    tls: Mapping[str, str]

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises `ValueError` for what one of the two would not understand."""
        parts = _split(url)
        scheme = "unix" if parts.scheme in UNIX_SCHEMES else parts.scheme
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        databases = [options.pop(name) for name in ("db", "virtual_host") if name in options]
        place = parts.netloc.replace(";", "%3B")  # kombu's sign between two URLs
        if scheme == "unix":
            if parts.hostname or not parts.path:
                raise ValueError("it has no path of a socket, as unix:///run/redis.sock?db=0 has")
            place += quote(unquote(parts.path))
        elif path := parts.path.strip("/"):
            databases.append(path)
        return cls(scheme, place, _read_database(databases), _read_tls(scheme, options))

    @property
    def redis_url(self) -> str:
        """As redis-py spells it."""
        if self.scheme == "unix":
            return f"unix://{self.place}?db={self.database}"
        return f"{self.scheme}://{self.place}/{self.database}{self._query}"

    @property
    def celery_url(self) -> str:
        """As kombu spells it."""
        if self.scheme == "unix":
            return f"redis+socket://{self.place}?virtual_host={self.database}"
        return self.redis_url

    @property
    def _query(self) -> str:
        return f"?{urlencode(self.tls)}" if self.tls else ""


def _split(url: str) -> SplitResult:
    """The URL's parts. What `urlsplit` says where it has none could show a password."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # as it is looked up
        known = parts.scheme in (*TCP_SCHEMES, *UNIX_SCHEMES) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError(NO_URL)
    if "#" in url:
        raise ValueError("a # in it must be %23")
    return parts


def _read_database(named: list[str]) -> int:
    """The one number that is named, or 0."""
    if not all(number.isascii() and number.isdecimal() for number in named):
        raise ValueError("its database is no number, as it is in redis://localhost:6379/0")
    numbers = {int(number) for number in named} or {0}
    if len(numbers) > 1:
        raise ValueError("it names two databases: leave one out")
    return numbers.pop()


def _read_tls(scheme: str, options: dict[str, str]) -> dict[str, str]:
    """What is left of a URL's options. For `rediss://` it says whom to trust: unsaid, kombu trusts
    anybody."""
    known = TLS_OPTIONS if scheme == "rediss" else set[str]()
    if unknown := sorted({*options} - known):
        if "@" in "".join(unknown):  # a password's end
            raise ValueError(NO_URL)
        raise ValueError(
            f"it can't have {', '.join(unknown)} after the ?, but db=0, and with rediss:// "
            "ssl_ca_certs, ssl_cert_reqs and the like; a login comes before the host"
        )
    if scheme != "rediss":
        return {}
    tls = {"ssl_cert_reqs": "required", **options}
    if tls["ssl_cert_reqs"] not in CERT_REQS:
        raise ValueError(f"its ssl_cert_reqs is not one of {', '.join(CERT_REQS)}")
    if tls.get("ssl_check_hostname", "true") not in ("true", "false"):  # the two differ on others
        raise ValueError("its ssl_check_hostname is neither true nor false")
    return tls
