"""Connections to Redis: one URL for Celery and for the ledger, and errors a person can act on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    RedisError,
    TimeoutError,
)
from redis.retry import Retry

from protocol.errors import BrokerError, UsageError

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
SCHEMES = ("redis", "rediss", "unix", "redis+socket")


def celery_url(url: str) -> str:
    """The URL as kombu spells it: `unix://` is `redis+socket://` there."""
    return url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=")


def redis_url(url: str) -> str:
    """The URL as redis-py spells it."""
    return url.replace("redis+socket://", "unix://", 1).replace("?virtual_host=", "?db=")


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"***@{host}" if user else host))


class PatientRedis(redis.Redis):
    """A client that waits for a lost Redis. All of the ledger's steps may be sent again."""

    patience_seconds = 0.0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        end = time.monotonic() + self.patience_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
            except (AuthenticationError, AuthorizationError):
                raise
            except (ConnectionError, TimeoutError):
                if time.monotonic() > end:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def connect(url: str, patience_seconds: float = 0) -> PatientRedis:
    """A client that waits so long for a lost Redis, each time.

    Raises `UsageError` where the URL is none of Redis.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise UsageError(f"broker {url!r} is no Redis URL such as redis://localhost:6379/0")
    try:
        client = cast(
            PatientRedis, PatientRedis.from_url(redis_url(url), retry=Retry(NoBackoff(), 1))
        )
    except ValueError as error:
        raise UsageError(f"broker {without_password(url)!r}: {error}") from None
    client.patience_seconds = patience_seconds
    return client


@contextmanager
def broker_errors(url: str) -> Iterator[None]:
    """Turn what redis-py and kombu raise for an unusable Redis into a `BrokerError`."""
    shown = without_password(url)
    try:
        yield
    except (AuthenticationError, AuthorizationError) as error:
        raise BrokerError(
            f"Redis at {shown} refuses the login ({error}): "
            "put the password in the URL, redis://:PASSWORD@host:6379/0"
        ) from error
    except (ConnectionError, TimeoutError) as error:
        raise BrokerError(
            f"can't reach Redis at {shown} ({_first_line(error)}): is it running? "
            "`digitq up` starts one, `--broker` names another"
        ) from error
    except RedisError as error:
        raise BrokerError(f"Redis at {shown} says: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
