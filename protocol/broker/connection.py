"""Connections to Redis that wait while Redis is lost, and raise errors a person can act on."""

import logging
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, NoReturn, TypeVar, cast, get_args

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer, PythonRespSerializer
from redis.exceptions import NoPermissionError, NoScriptError
from redis.retry import Retry
from redis.sentinel import Sentinel

from digitq.protocol.broker.address import SENTINEL_EXAMPLE, read_address, without_password
from digitq.protocol.broker.tls import check_tls_options, describe_refusal
from digitq.protocol.errors import BrokerError, UsageError
from digitq.protocol.keys import TYPES

OLDEST_REDIS = 6  # the first version with HELLO, with which Celery's connections begin
TIMEOUT_SECONDS = 5  # the longest time without an answer; every blocking read is shorter
# The pause between two tries doubles, so that clients do not overload a Redis that is starting
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.05, 1.0
TELL_LOSS_SECONDS = 2.0  # a loss that is shorter is not reported
MAX_COPIED_BYTES = 1 << 16  # a larger argument is sent as it is
SEND_BYTES = 1 << 19  # a command is sent over a network in such parts; each has its own timeout
TCP_OPTIONS = {
    # Keeps the kernel from buffering more than one part: otherwise the wait for a reply would
    # begin while most of a chunk is still to be sent
    "TCP_NOTSENT_LOWAT": SEND_BYTES,
    # After 30 s of silence, Redis is asked every 5 s, 3 times, whether it is alive
    **{"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3},
}
NO_HOST = {socket.EAI_NONAME, socket.EAI_NODATA}  # the codes for a name that no host has
CUT_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # while TLS began
LOST = (redis.ConnectionError, redis.TimeoutError)
REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError)
UNABLE = (exceptions.OutOfMemoryError, exceptions.ReadOnlyError)
# Some of these have no class in redis-py, and errors of scripts have none; the last three are seen
# during a failover
UNABLE_WORDS = re.compile(r"\b(OOM|MISCONF|BUSY|READONLY|UNBLOCKED|NOREPLICAS|MASTERDOWN) ")
# Redis 6 puts the place before the message, Redis 7 and later after it
SCRIPT_PLACE = re.compile(r"^Error running script.*@user_script: ?\d+: -?|( script: \w{40}.*)$")

Payload = bytes | memoryview
PAYLOADS = get_args(Payload)
Command = tuple[Payload | str | float, ...]
Reply = TypeVar("Reply")

logger = logging.getLogger(__name__)


class Packer(PythonRespSerializer):
    """Encodes commands as redis-py does without hiredis, and splits them into parts.

    hiredis would copy each chunk twice, which takes a producer 20 % of its time. The timeout of a
    socket is for one part, so a slow network needs small ones. Over a Unix socket, parts cost 5 %.
    """

    def __init__(self, part_bytes: int) -> None:
        super().__init__(buffer_cutoff=1 << 16, encode=_encode)
        self._part_bytes = part_bytes
        self._small: Any = HiredisRespSerializer()  # it copies, but small ones take half as long

    def pack(self, *args: Any) -> list[memoryview]:
        """The parts of one command."""
        if not any(type(arg) in PAYLOADS and len(arg) > MAX_COPIED_BYTES for arg in args):
            return cast(list[memoryview], self._small.pack(*args))
        pack: Any = super().pack  # redis-py has no types here
        return [
            memoryview(piece)[start : start + self._part_bytes]
            for piece in pack(*args)
            for start in range(0, len(piece), self._part_bytes)
        ]


def _encode(argument: Payload | str | float) -> Payload:
    return argument if isinstance(argument, Payload) else str(argument).encode()


class RetryingRedis(redis.Redis):
    """A client that waits while Redis is lost or can't write, for example because its memory is
    full. After `retry_seconds` it raises `BrokerError`.

    A command may be sent twice, which all steps of the ledger allow. For each loss, the `watchers`
    are called once with a message; without any, `on_disconnect` is; without it, the message is
    logged. Once a loss is final, `on_loss` is called, which may raise a clearer error.
    """

    url = ""
    retry_seconds = 0.0
    on_disconnect: Callable[[str], None] | None = None
    on_loss: Callable[[], None] | None = None
    watchers: list[Callable[[str], None]]  # the jobs that show the loss themselves
    awaits_script = False  # whether it waits for a missing script, which this login may not load
    connection: Any  # None, unless the client is for one thread
    connection_pool: Any
    _has_told = False

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self._retry(partial(super().execute_command, *args, **options))

    def execute(self, *commands: Command) -> list[tuple[Any, float]]:
        """Run commands in one round trip. Once one is answered, it is not sent again.

        Returns the replies, each with the time of `time.monotonic` when it came. redis-py's own
        way takes several times as long for small commands.
        """
        answered: list[tuple[Any, float]] = []

        def send() -> list[tuple[Any, float]]:
            self._exchange(commands[len(answered) :], answered)
            return answered

        return self._retry(send)

    def transact(self, *commands: Command) -> list[Any]:
        """Run commands as one transaction; returns their replies."""

        def send() -> list[Any]:
            answered: list[tuple[Any, float]] = []
            self._exchange([("MULTI",), *commands, ("EXEC",)], answered)
            replies: list[Any] = answered[-1][0]
            for reply in replies:
                if isinstance(reply, redis.RedisError):
                    raise reply
            return replies

        return self._retry(send)

    def _exchange(self, commands: Sequence[Command], answered: list[tuple[Any, float]]) -> None:
        """Send commands, and note each reply with its time when it comes."""
        connection = self.connection or self.connection_pool.get_connection()
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            for _ in commands:
                answered.append((connection.read_response(), time.monotonic()))
        except BaseException:  # the next command must not get a reply to this one
            connection.disconnect()
            raise
        finally:
            if not self.connection:
                self.connection_pool.release(connection)

    def read(self, *commands: Command, skips_types: bool = False) -> list[Any]:
        """Run commands in one round trip; returns their replies, as redis-py gives them. A Redis
        that is full lets those pass that only read or delete, which Redis 6 refuses in a
        transaction. With `skips_types`, a command gives None if its key is of another type than it
        reads."""

        def send() -> list[Any]:
            with cast(Any, self.pipeline(transaction=False)) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies: list[Any] = pipeline.execute(raise_on_error=not skips_types)
            for number, reply in enumerate(replies):
                if isinstance(reply, redis.RedisError):
                    if not str(reply).startswith("WRONGTYPE"):
                        raise reply
                    replies[number] = None
            return replies

        return self._retry(send)

    def _retry(self, send: Callable[[], Reply]) -> Reply:
        started, pause = time.monotonic(), FIRST_RETRY_SECONDS
        while True:
            try:
                if self.connection:
                    self.connection.connect()  # sending would connect, but without Sentinels
                reply = ask(send)
                self._has_told = False
                return reply
            except BaseException as error:
                if self.connection:  # the next command must not get a reply to this one
                    self.connection.disconnect()
                else:
                    self.connection_pool.disconnect(inuse_connections=False)
                is_missing = isinstance(error, NoScriptError) and not self.awaits_script
                if not isinstance(error, redis.RedisError) or is_missing:
                    raise  # the caller loads a missing script and tries again
                waited = time.monotonic() - started
                if not is_passing(error) or waited > self.retry_seconds:
                    self._give_up(error)
                if waited > TELL_LOSS_SECONDS and not self._has_told:
                    self._has_told = True
                    for tell in [*self.watchers] or [self.on_disconnect or logger.warning]:
                        tell(describe_wait(self, error))
            time.sleep(pause)  # a Redis that is away can't tell that it is back
            pause = min(2 * pause, MAX_RETRY_SECONDS)

    def _give_up(self, error: redis.RedisError) -> NoReturn:
        """Raises the clearest error that there is."""
        if self.on_loss and isinstance(error, LOST):
            self.on_loss()
        if "WRONGTYPE" in str(error):
            refuse_foreign(self)
        raise explain(error, without_password(self.url)) from error


def ask(send: Callable[[], Reply]) -> Reply:
    """What `send` gives. Raises redis-py's error of a lost connection if it had no socket to send
    with."""
    try:
        return send()
    except AttributeError as error:
        if error.obj is None:
            raise redis.ConnectionError("another thread has closed the connection") from None
        raise


def connect(
    url: str,
    retry_seconds: float = 0,
    one_thread: bool = False,
    timeout_seconds: float | None = None,
) -> RetryingRedis:
    """A client that waits up to `retry_seconds` each time Redis is lost, which it is after
    `timeout_seconds` without an answer, by default `TIMEOUT_SECONDS`.

    With `one_thread` it is for one thread only and keeps one connection: to get one from its pool,
    redis-py takes as long as for a small command. Raises `UsageError` if the URL is not of Redis,
    or names a file that can't be used.
    """
    address, tcp = read_address(url), dict[str, Any]()
    timeout_seconds = timeout_seconds or TIMEOUT_SECONDS
    if address.tls:
        check_tls_options(address.tls)
    if not address.redis_url.startswith("unix:"):
        known = [name for name in TCP_OPTIONS if hasattr(socket, name)]  # depends on the system
        options = {getattr(socket, name): TCP_OPTIONS[name] for name in known}
        tcp = {"socket_keepalive": True, "socket_keepalive_options": options}
    common: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 1),
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "protocol": 2,
    }
    own = {
        "command_packer": Packer(SEND_BYTES if tcp else sys.maxsize),
        "socket_read_size": 1 << 18,  # bytes; with redis-py's 64 kB, results take 50 % longer
        "max_connections": 10_000,  # as many as Redis accepts; the default of redis-py is 100
        **common,
        **tcp,
    }
    client: Any  # redis-py has few types here
    if sentinels := address.sentinels:
        make_finder: Any = Sentinel
        finder = make_finder(
            sentinels.hosts, sentinel_kwargs={**common, **sentinels.sentinel_login}
        )
        client = finder.master_for(
            sentinels.master_name, RetryingRedis, **own, **sentinels.redis_login
        )
    else:
        client = RetryingRedis.from_url(address.redis_url, **own)
    client.url, client.retry_seconds, client.watchers = url, retry_seconds, []
    if one_thread:
        client.connection = client.connection_pool.make_connection()
    return cast(RetryingRedis, client)


def check_server(client: RetryingRedis) -> None:
    """Raises `BrokerError`, and `UsageError` for a server that can't be a broker."""
    client.ping()  # refused while Redis loads its file, unlike INFO
    info: Any = {}
    with unless_refused():
        info = client.info()
    at = f"Redis at {without_password(client.url)}"
    if info.get("cluster_enabled"):
        remedy = "Celery needs one without `cluster-enabled`; Sentinels can make it fail over"
        raise UsageError(f"{at} is a Redis Cluster: {remedy}")
    if "sentinel_masters" in info:
        raise UsageError(f"{at} is a Sentinel: its URL is {SENTINEL_EXAMPLE}")


def find_foreign(client: RetryingRedis) -> list[str]:
    """Says of each key that jobs share if it has another type than digitq gives it."""
    replies: list[tuple[bytes, float]] = []
    with unless_refused():
        replies = client.execute(*(("TYPE", key) for key in TYPES))
    return [
        f"{key!r} is a {kind.decode()}, and must be a {wanted}"
        for (key, wanted), (kind, _) in zip(TYPES.items(), replies, strict=False)
        if kind.decode() not in ("none", wanted)
    ]


def refuse_foreign(client: RetryingRedis) -> None:
    """Raises `BrokerError` if a key that jobs share has another type."""
    if foreign := find_foreign(client):
        raise BrokerError(
            f"Redis at {without_password(client.url)} can't be used: its key {foreign[0]}; delete "
            "it with `redis-cli DEL`, or give digitq a database of its own"
        )


@contextmanager
def unless_refused() -> Iterator[None]:
    """Leave out what this login may not do."""
    try:
        yield
    except BrokerError as error:
        if not isinstance(error.__cause__, NoPermissionError):
            raise


def wait_for_server(client: RetryingRedis) -> None:
    """`check_server` for a client that has just been made. A Redis that is away is waited for as
    after any loss, which is told at once. Raises at once if it is no use to wait."""
    seconds, client.retry_seconds = client.retry_seconds, 0
    try:
        check_server(client)
    except BrokerError as error:
        cause = error.__cause__
        if not (seconds and isinstance(cause, redis.RedisError) and may_come(client, cause)):
            raise
        client.retry_seconds, client._has_told = seconds, True
        question = f": {' '.join(ask_after(client.url))}" if isinstance(cause, LOST) else ""
        logger.warning("%s%s", describe_wait(client, cause), question)
        check_server(client)
    finally:
        client.retry_seconds = seconds


def refuse_unusable(url: str) -> None:
    """Raises as `check_server`, unless it may be different later."""
    try:
        with connect(url) as client:
            check_server(client)
            refuse_foreign(client)
    except BrokerError as error:
        if not (isinstance(error.__cause__, redis.RedisError) and is_passing(error.__cause__)):
            raise


def may_come(client: RetryingRedis, error: redis.RedisError) -> bool:
    """Whether a Redis that was never reached may be there later: a wrong name of a host, or of a
    master that Sentinels do not know, stays wrong."""
    pool = client.connection_pool
    if not hasattr(pool, "sentinel_manager"):
        return is_passing(error) and not stays_wrong(error)
    refusals = []
    for sentinel in pool.sentinel_manager.sentinels:
        try:
            return pool.service_name in sentinel.sentinel_masters() and is_passing(error)
        except redis.RedisError as refusal:
            refusals.append(refusal)
    return all(map(is_passing, refusals)) and not all(map(stays_wrong, refusals))


def stays_wrong(error: BaseException) -> bool:
    """Whether the connection failed because no host has the name in the address, or because one of
    both sides does not use TLS, or not so that the other accepts it."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, (socket.gaierror, ssl.SSLError)):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, socket.gaierror):
        return cause.errno in NO_HOST
    return isinstance(cause, ssl.SSLError) and not isinstance(cause, CUT_OFF)


def is_passing(error: redis.RedisError) -> bool:
    """Whether the same command may succeed later."""
    if isinstance(error, REFUSED) or describe_refusal(error):
        return False
    return isinstance(error, (*LOST, *UNABLE, NoScriptError)) or bool(
        UNABLE_WORDS.search(str(error))
    )


def explain(error: redis.RedisError, url: str) -> BrokerError:
    """The error as a message that says what to do. The URL must be free of passwords."""
    reason = first_line(error).rstrip(".")
    if isinstance(error, REFUSED):
        text = (
            f"refuses the login ({reason}): "
            "put the password in the URL, redis://:PASSWORD@host:6379/0"
        )
    elif "OOM " in reason or isinstance(error, exceptions.OutOfMemoryError):
        text = "is full: collect or cancel jobs (`digitq jobs`), or raise its maxmemory"
    elif isinstance(error, exceptions.BusyLoadingError):
        text = "still loads its file: try again when it has"
    elif isinstance(error, NoScriptError):
        text = f"{reason}: start one of this version"
    elif refusal := describe_refusal(error):
        text = refusal
    elif isinstance(error, LOST):
        question, remedy = ask_after(url)
        return BrokerError(f"can't reach Redis at {url} ({reason}): {question} {remedy}")
    else:
        text = f"says: {reason}"
    return BrokerError(f"Redis at {url} {text}")


def ask_after(url: str) -> tuple[str, str]:
    """What a person should look at if no Redis is reached at this URL, and what may help."""
    if url.startswith(("rediss:", "valkeys:")):
        remedy = "Add ssl_certfile and ssl_keyfile if it asks for a client certificate"
        return "is it running with TLS?", remedy
    if url.startswith("sentinel:"):
        question = "do the Sentinels run, and is one of their masters called so?"
        return question, "Add sentinel_password if they ask for one"
    return "is it running?", "`digitq up` starts one, `--broker` names another"


def describe_wait(client: RetryingRedis, error: Exception) -> str:
    """Says what is waited for, why, and for how long."""
    at = f"Redis at {without_password(client.url)}"
    return f"waiting for {at} ({first_line(error)}), at most {client.retry_seconds:g} s"


def first_line(error: Exception) -> str:
    """The first line of what Redis says, without what redis-py and a script put around it."""
    if isinstance(error, NoScriptError):
        return f"lacks the ledger's steps of digitq {version('digitq')}, which a worker loads"
    line = str(error).partition("\n")[0]
    line = line.rpartition(" of pipeline caused error: ")[2]
    line = line.partition(" : <")[0]  # what follows is the representation of a Sentinel
    return SCRIPT_PLACE.sub("", line)
