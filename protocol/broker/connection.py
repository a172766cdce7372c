"""Connections to Redis: one URL for Celery and for the ledger, and errors a person can act on."""

import logging
import re
import socket
import time
from collections.abc import Callable
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
from redis.retry import Retry

from protocol.broker.address import Address
from protocol.broker.wire import HIREDIS_READ_BYTES, READ_BYTES, SEND_BYTES, Packer, Parser
from protocol.errors import BrokerError, UsageError

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
OLDEST_REDIS = 6  # the first with HELLO, by which Celery's connections begin
TIMEOUT_SECONDS = 5  # longer than any blocking read
# The system takes no more ahead of a slow way: else a reply is awaited while most is still to go.
# The others are redis-py's own: a peer that is silent for so many seconds is asked whether it lives
TCP_OPTIONS = {
    "TCP_NOTSENT_LOWAT": SEND_BYTES,
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
}
MAX_CONNECTIONS = 10_000  # of one client, as many as Redis takes; redis-py's own limit is 100
LOST = (redis.ConnectionError, redis.TimeoutError)
REFUSED = (AuthenticationError, AuthorizationError)
UNABLE = (OutOfMemoryError, ReadOnlyError, TryAgainError, ClusterDownError)
UNABLE_WORDS = re.compile(  # of other types, and out of scripts; the last three of a failover
    r"\b(OOM|MISCONF|BUSY|READONLY|UNBLOCKED|NOREPLICAS|MASTERDOWN) "
)
TOLD_SECONDS = 2.0  # a Redis that is lost for longer is spoken of
LOGIN = re.compile(r"^(\w[\w+.-]*://|//)?.*@", re.DOTALL)
SCRIPT_ERROR = re.compile(r"^Error running script.*@user_script: ?\d+: -?|( script: \w{40}.*)$")
SECRET = re.compile(r"([?&][^?&=]*password[^?&=]*=)[^&]*", re.IGNORECASE)

logger = logging.getLogger(__name__)

Command = tuple[bytes | memoryview | str | float, ...]


def read_address(url: str) -> Address:
    """What a broker's URL says. Raises `UsageError` where it is none of Redis."""
    try:
        return Address.parse(url)
    except ValueError as error:
        raise UsageError(
            f"broker {without_password(url)!r} (of --broker or DIGITQ_BROKER_URL): {error}"
        ) from None


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return LOGIN.sub(r"\1***@", SECRET.sub(r"\1***", url))


class RetryingRedis(redis.Redis):
    """A client that waits for a Redis that is lost, or can't write (its memory or disk is full),
    and raises `BrokerError` in the end.

    All of the ledger's steps may be sent again. `on_disconnect` is called once for each loss, with
    what is waited for; without it, the log says so.
    """

    url = ""
    retry_seconds = 0.0
    on_disconnect: Callable[[str], None] | None = None
    _told = False

    def execute_command(self, *args: Any, **options: Any) -> Any:
        send: Any = super().execute_command  # redis-py has no types here
        return self._patiently(lambda: send(*args, **options))

    def execute_pair(self, first: Command, second: Command) -> tuple[Any, float, Any]:
        """Two commands in one round trip; gives the first's reply, when it came, by
        `time.monotonic`, and the second's. The first is not sent again once it is answered."""
        answered: list[Any] = []

        def send() -> tuple[Any, float, Any]:
            own, pool = cast(Any, self.connection), cast(Any, self.connection_pool)
            connection = own or pool.get_connection()
            try:
                commands = (second,) if answered else (first, second)
                connection.send_packed_command(connection.pack_commands(commands))
                if not answered:
                    answered[:] = connection.read_response(), time.monotonic()
                return answered[0], answered[1], connection.read_response()
            except BaseException:  # a reply may be under way
                connection.disconnect()
                raise
            finally:
                if not own:
                    pool.release(connection)

        return cast(tuple[Any, float, Any], self._patiently(send))

    def transact(self, *commands: Command) -> list[Any]:
        """Commands that nothing comes between; gives their replies."""

        def send() -> list[Any]:
            with self.pipeline() as pipeline:
                add: Any = pipeline.execute_command  # redis-py has no types here
                for command in commands:
                    add(*command)
                return pipeline.execute()

        return cast(list[Any], self._patiently(send))

    def _patiently(self, send: Callable[[], Any]) -> Any:
        try:
            return self._try_until_sent(send)
        except BaseException as error:  # a reply under way must not be taken for the next command's
            own, pool = cast(Any, self.connection), cast(Any, self.connection_pool)
            if own:
                own.disconnect()
            elif not isinstance(error, BrokerError):  # as Ctrl-C, at any moment
                pool.disconnect(inuse_connections=False)
            raise

    def _try_until_sent(self, send: Callable[[], Any]) -> Any:
        started = time.monotonic()
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                reply = send()
                self._told = False
                return reply
            except NoScriptError:  # who sent it loads the script and comes again
                raise
            except redis.RedisError as error:
                waited = time.monotonic() - started
                shown = without_password(self.url)
                if not is_passing(error) or waited > self.retry_seconds:
                    raise _explain(error, shown) from error
                if waited > TOLD_SECONDS and not self._told:
                    self._told = True
                    tell = self.on_disconnect or logger.warning
                    tell(f"waiting for Redis at {shown} ({first_line(error)})")
            time.sleep(pause)  # longer each time
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def is_passing(error: redis.RedisError) -> bool:
    """Whether the same command may well succeed later."""
    if isinstance(error, REFUSED):
        return False
    return isinstance(error, (*LOST, *UNABLE)) or bool(UNABLE_WORDS.search(str(error)))


def is_loading(error: BrokerError) -> bool:
    """Whether Redis is there, but still loads its file."""
    return isinstance(error.__cause__, BusyLoadingError)


def connect(url: str, retry_seconds: float = 0, takes_chunks: bool = False) -> RetryingRedis:
    """A client that waits so long for a lost Redis, each time.

    One that takes chunks is for one thread alone: it keeps to one connection, since redis-py takes
    as long to have one from its pool as for a small command, and `Parser` reads what comes.
    Raises `UsageError` where the URL is none of Redis.
    """
    options: dict[str, Any] = (
        {"parser_class": Parser, "socket_read_size": READ_BYTES}
        if takes_chunks
        else {"socket_read_size": HIREDIS_READ_BYTES}
    )
    address = read_address(url)
    if address.scheme == "unix":
        options |= {"command_packer": Packer()}
    else:
        options |= {
            "command_packer": Packer(SEND_BYTES),
            "socket_keepalive": True,
            "socket_keepalive_options": {
                getattr(socket, name): value
                for name, value in TCP_OPTIONS.items()
                if hasattr(socket, name)  # some systems have others
            },
        }
    client = RetryingRedis.from_url(
        address.redis_url,
        retry=Retry(NoBackoff(), 1),
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        max_connections=MAX_CONNECTIONS,
        protocol=2,
        **options,
    )
    if takes_chunks:
        client.connection = cast(redis.Connection, client.connection_pool.make_connection())
    patient = cast(RetryingRedis, client)
    patient.url, patient.retry_seconds = url, retry_seconds
    return patient


def _explain(error: redis.RedisError, shown: str) -> BrokerError:
    """What redis-py says, as a person can act on it."""
    reason = first_line(error).rstrip(".")
    if isinstance(error, REFUSED):
        return BrokerError(
            f"Redis at {shown} refuses the login ({reason}): "
            "put the password in the URL, redis://:PASSWORD@host:6379/0"
        )
    if "OOM " in reason or isinstance(error, OutOfMemoryError):
        return BrokerError(
            f"Redis at {shown} is full: collect or cancel jobs (`digitq jobs`), "
            "or raise its maxmemory"
        )
    if isinstance(error, BusyLoadingError):
        return BrokerError(f"Redis at {shown} still loads its file: try again when it has")
    if isinstance(error, LOST):
        return BrokerError(
            f"can't reach Redis at {shown} ({reason}): is it running? "
            "`digitq up` starts one, `--broker` names another"
        )
    return BrokerError(f"Redis at {shown} says: {reason}")


def first_line(error: Exception) -> str:
    """What Redis says, in a line."""
    line = str(error).partition("\n")[0]
    line = line.rpartition(" of pipeline caused error: ")[2]  # what redis-py says before is long
    return SCRIPT_ERROR.sub("", line)
