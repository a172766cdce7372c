"""Connections to Redis: one URL for Celery and for the ledger, and errors a person can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    RedisError,
    TimeoutError,
)
from redis.retry import Retry

from protocol.errors import BrokerError, UsageError

LONGEST_PAUSE_SECONDS = 1
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


def connect(url: str, patience_seconds: float = 0) -> redis.Redis:
    """A client that retries a lost connection for about `patience_seconds`.

    Raises `UsageError` where the URL is none of Redis.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise UsageError(f"broker {url!r} is no Redis URL such as redis://localhost:6379/0")
    retry = Retry(
        ExponentialBackoff(cap=LONGEST_PAUSE_SECONDS, base=0.05),
        round(patience_seconds / LONGEST_PAUSE_SECONDS),
    )
    retryable = [ConnectionError, TimeoutError, BusyLoadingError]
    try:
        client = redis.Redis.from_url(
            redis_url(url), retry=retry, retry_on_error=retryable, health_check_interval=30
        )
    except ValueError as error:
        raise UsageError(f"broker {without_password(url)!r}: {error}") from None
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
