"""Connections to Redis that wait while Redis is lost, and raise errors a person can act on."""

import logging
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import PythonRespSerializer
from redis.exceptions import NoScriptError
from redis.retry import Retry

from protocol.broker.address import read_address, without_password
from protocol.broker.failures import explain, first_line, is_passing
from protocol.errors import BrokerError

OLDEST_REDIS = 6  # the first version with HELLO, with which Celery's connections begin
TIMEOUT_SECONDS = 5  # the longest time without an answer; every blocking read is shorter
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.05, 1.0  # the pause between two tries doubles
TELL_LOSS_SECONDS = 2.0  # a loss that is shorter is not reported
SEND_BYTES = 1 << 19  # sent at a time over a network; each part has the timeout to itself
# The first keeps the kernel from buffering more than one part: otherwise the wait for a reply
# would begin while most of a chunk is still to be sent. The others are the defaults of redis-py:
# after 30 s of silence, Redis is asked every 5 s, 3 times, whether it is alive.
TCP_OPTIONS = {
    "TCP_NOTSENT_LOWAT": SEND_BYTES,
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
}

logger = logging.getLogger(__name__)

Command = tuple[bytes | memoryview | str | float, ...]


class Packer(PythonRespSerializer):
    """Encodes commands as redis-py does without hiredis, and splits them into parts.

    hiredis would copy each chunk twice, which takes a producer 20 % of its time. The timeout of a
    socket is for one part, so a slow network needs small ones. Over a Unix socket, parts made a job
    5 % slower, because other threads run in between.
    """

    def __init__(self, part_bytes: int) -> None:
        super().__init__(buffer_cutoff=1 << 16, encode=_encode)
        self._part_bytes = part_bytes

    def pack(self, *args: Any) -> list[memoryview]:
        """The parts of one command."""
        pack: Any = super().pack  # redis-py has no types here
        pieces = [memoryview(piece) for piece in pack(*args)]
        return [
            piece[start : start + self._part_bytes]
            for piece in pieces
            for start in range(0, len(piece), self._part_bytes)
        ]


def _encode(argument: bytes | memoryview | str | float) -> bytes | memoryview:
    return argument if isinstance(argument, bytes | memoryview) else str(argument).encode()


class RetryingRedis(redis.Redis):
    """A client that waits while Redis is lost or can't write, for example because its memory is
    full. After `retry_seconds` it raises `BrokerError`.

    A command may be sent twice, which all steps of the ledger allow. `on_disconnect` is called once
    for each loss with a message; without it, the message is logged.
    """

    url = ""
    retry_seconds = 0.0
    on_disconnect: Callable[[str], None] | None = None
    _has_told = False

    def execute_command(self, *args: Any, **options: Any) -> Any:
        send: Any = super().execute_command  # redis-py has no types here
        return self._retry(lambda: send(*args, **options))

    def execute_pair(self, first: Command, second: Command) -> tuple[Any, float, Any]:
        """Run two commands in one round trip.

        Returns the first reply, the time it came at (of `time.monotonic`), and the second reply.
        The first command is not sent again once it is answered.
        """
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
            except BaseException:  # the next command must not get a reply to this one
                connection.disconnect()
                raise
            finally:
                if not own:
                    pool.release(connection)

        return cast(tuple[Any, float, Any], self._retry(send))

    def transact(self, *commands: Command) -> list[Any]:
        """Run commands as one transaction; returns their replies."""

        def send() -> list[Any]:
            with self.pipeline() as pipeline:
                add: Any = pipeline.execute_command  # redis-py has no types here
                for command in commands:
                    add(*command)
                return pipeline.execute()

        return cast(list[Any], self._retry(send))

    def _retry(self, send: Callable[[], Any]) -> Any:
        try:
            return self._try_until_sent(send)
        except BaseException as error:  # the next command must not get a reply to this one
            own, pool = cast(Any, self.connection), cast(Any, self.connection_pool)
            if own:
                own.disconnect()
            elif not isinstance(error, BrokerError):  # Ctrl-C may come at any moment
                pool.disconnect(inuse_connections=False)
            raise

    def _try_until_sent(self, send: Callable[[], Any]) -> Any:
        started = time.monotonic()
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                reply = send()
                self._has_told = False
                return reply
            except NoScriptError:  # the caller loads the script and tries again
                raise
            except redis.RedisError as error:
                waited = time.monotonic() - started
                shown = without_password(self.url)
                if not is_passing(error) or waited > self.retry_seconds:
                    raise explain(error, shown) from error
                if waited > TELL_LOSS_SECONDS and not self._has_told:
                    self._has_told = True
                    tell = self.on_disconnect or logger.warning
                    tell(f"waiting for Redis at {shown} ({first_line(error)})")
            time.sleep(pause)
            pause = min(2 * pause, MAX_RETRY_SECONDS)


def connect(url: str, retry_seconds: float = 0, one_thread: bool = False) -> RetryingRedis:
    """A client that waits up to `retry_seconds` each time Redis is lost.

    With `one_thread` it is for one thread only and keeps one connection: to get one from its pool,
    redis-py takes as long as for a small command. Raises `UsageError` if the URL is not of Redis.
    """
    address = read_address(url)
    is_local = address.scheme == "unix"
    options: dict[str, Any] = {"command_packer": Packer(sys.maxsize if is_local else SEND_BYTES)}
    if not is_local:
        options |= {
            "socket_keepalive": True,
            "socket_keepalive_options": {
                getattr(socket, name): value
                for name, value in TCP_OPTIONS.items()
                if hasattr(socket, name)  # which of them there are depends on the system
            },
        }
    client = RetryingRedis.from_url(
        address.redis_url,
        retry=Retry(NoBackoff(), 1),
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        socket_read_size=1 << 18,  # bytes; with redis-py's 64 kB, results take 50 % longer
        max_connections=10_000,  # as many as Redis accepts; the default of redis-py is 100
        protocol=2,
        **options,
    )
    if one_thread:
        client.connection = cast(redis.Connection, client.connection_pool.make_connection())
    retrying = cast(RetryingRedis, client)
    retrying.url, retrying.retry_seconds = url, retry_seconds
    return retrying
