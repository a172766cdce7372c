"""The address of a Redis: its URL, read once, and spelled for redis-py and for kombu.

The two read the database and options from different parts of a URL, so that one URL, passed on
unchanged, could be two databases.
"""

import re
import shlex
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from digitq.protocol.errors import UsageError

UNIX_SCHEMES = ("unix", "redis+socket")
VALKEY_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}
# The options that kombu passes on to redis-py in the form that redis-py takes
TLS_OPTIONS = {
    *("ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password"),
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers"),
}
CERT_REQS = ("required", "optional", "none")
SENTINEL_PORT = 26379
SENTINEL_OPTIONS = {"master_name", "sentinel_username", "sentinel_password"}
SENTINEL_EXAMPLE = "sentinel://host1:26379,host2:26379/0?master_name=mymaster"
NO_URL = (
    "it is not a Redis URL such as redis://localhost:6379/0; the characters / ? # @ of a password "
    "must be %2F %3F %23 %40"
)
LOGIN = re.compile(r"^(\w[\w+.-]*://|//)?.*@", re.DOTALL)
ONE_URL = (
    "it has a space: name one URL, of one Redis; a second Redis is a deployment of its own, and a "
    "space in a password is %20"
)
SECRET = re.compile(r"([?&][^?&=]*password[^?&=]*=)[^&]*", re.IGNORECASE)
HIDDEN_URL = "_DIGITQ_HIDDEN_URL"  # the variable with a URL whose password the arguments hide


class Sentinels(NamedTuple):
    """The Sentinels that know which Redis is the master, in the form that redis-py takes."""

    hosts: tuple[tuple[str, int], ...]
    master_name: str
    sentinel_login: dict[str, str]  # the arguments `username` and `password` for Sentinels
    redis_login: dict[str, str | int]  # arguments for the master: the login, and its `db`


class Address(NamedTuple):
    """One database of one Redis. Two URLs of the same database give equal addresses."""

    redis_url: str  # for redis-py, unless there are Sentinels
    celery_url: str  # for kombu
    sentinels: Sentinels | None = None

    @property
    def tls(self) -> dict[str, Any]:
        """The options of TLS as arguments for redis-py; empty without TLS."""
        parts = urlsplit(self.redis_url)
        options: dict[str, Any] = dict(parse_qsl(parts.query)) if parts.scheme == "rediss" else {}
        if check := options.get("ssl_check_hostname"):
            options["ssl_check_hostname"] = check == "true"
        return options


def read_address(url: str, origin: str = "--broker or DIGITQ_BROKER_URL") -> Address:
    """The address in a URL, which `origin` gave. Raises `UsageError` if it can't be used."""
    try:
        return _parse(url)
    except ValueError as error:
        raise UsageError(f"broker {without_password(url)!r} ({origin}): {error}") from None


def without_password(url: str) -> str:
    """The URL with each login and password replaced by `***`."""
    return LOGIN.sub(r"\1***@", SECRET.sub(r"\1***", url))


def url_in_command(url: str) -> str:
    """The URL as a command shows it, quoted for a shell; `URL` if it has a password or had one."""
    return "URL" if "***" in without_password(url) else shlex.quote(url)


def _parse(url: str) -> Address:
    """The address in a URL. Raises `ValueError`, as the functions that it calls."""
    if len(url.split()) > 1:
        raise ValueError(ONE_URL)
    if url.startswith("sentinel:"):
        return _parse_sentinels(url)
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


def _parse_sentinels(url: str) -> Address:
    """The address of the master that Sentinels know. Raises `ValueError` as `_parse`."""
    # Python 3.13 takes no list of hosts if one of them is in brackets
    _, _, rest = url.partition("://")
    hosts = re.split("[/?#]", rest, maxsplit=1)[0]
    parts = urlsplit(f"sentinel://{rest.removeprefix(hosts)}")
    login, at, places = hosts.replace(";", "%3B").rpartition("@")
    each = [_split(f"redis://{login}{at}{place}{parts.path}") for place in places.split(",")]
    if "#" in url or not all(one.hostname for one in each):
        raise ValueError(NO_URL)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    databases = [options.pop("db")] if "db" in options else []
    database = _read_database([*databases, *filter(None, [parts.path.strip("/")])])
    if {*options} - SENTINEL_OPTIONS or not options.get("master_name"):
        raise ValueError(
            f"after the ? it must have master_name, as in {SENTINEL_EXAMPLE}, and can have "
            "db, sentinel_username and sentinel_password; Sentinels with TLS are not supported"
        )
    hosts = tuple((str(one.hostname), one.port or SENTINEL_PORT) for one in each)
    named = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts]
    query = urlencode(dict(sorted(options.items())))
    user, colon, password = map(unquote, login.partition(":"))
    redis_login = {"username": user} if user else {}
    redis_login |= {"password": password} if colon else {}
    master_name = options.pop("master_name")
    sentinel_login = {name.removeprefix("sentinel_"): text for name, text in options.items()}
    return Address(
        f"sentinel://{login}{at}{','.join(named)}/{database}?{query}",
        ";".join(f"sentinel://{login}{at}{place}/{database}" for place in named),
        Sentinels(hosts, master_name, sentinel_login, {**redis_login, "db": database}),
    )


def _split(url: str) -> SplitResult:
    """The parts of the URL. The message of `urlsplit` is dropped: it could show a password."""
    try:
        parts = urlsplit(url)
        parts = parts._replace(scheme=VALKEY_SCHEMES.get(parts.scheme, parts.scheme))
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
