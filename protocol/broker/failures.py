"""What an error of redis-py means: whether to try again, and what to tell a person."""

import re

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)

from protocol.errors import BrokerError

LOST = (redis.ConnectionError, redis.TimeoutError)
REFUSED = (AuthenticationError, AuthorizationError)
UNABLE = (OutOfMemoryError, ReadOnlyError, TryAgainError, ClusterDownError)
# Some of these have no class in redis-py, and errors of scripts have none; the last three are seen
# during a failover
UNABLE_WORDS = re.compile(r"\b(OOM|MISCONF|BUSY|READONLY|UNBLOCKED|NOREPLICAS|MASTERDOWN) ")
# Redis 6 puts the place before the message, Redis 7 and later after it
SCRIPT_PLACE = re.compile(r"^Error running script.*@user_script: ?\d+: -?|( script: \w{40}.*)$")


def is_passing(error: redis.RedisError) -> bool:
    """Whether the same command may succeed later."""
    if isinstance(error, REFUSED):
        return False
    return isinstance(error, (*LOST, *UNABLE)) or bool(UNABLE_WORDS.search(str(error)))


def is_loading(error: BrokerError) -> bool:
    """Whether Redis is running but still loads its file."""
    return isinstance(error.__cause__, BusyLoadingError)


def explain(error: redis.RedisError, url: str) -> BrokerError:
    """The error as a message that says what to do. The URL must be free of passwords."""
    reason = first_line(error).rstrip(".")
    if isinstance(error, REFUSED):
        return BrokerError(
            f"Redis at {url} refuses the login ({reason}): "
            "put the password in the URL, redis://:PASSWORD@host:6379/0"
        )
    if "OOM " in reason or isinstance(error, OutOfMemoryError):
        return BrokerError(
            f"Redis at {url} is full: collect or cancel jobs (`digitq jobs`), "
            "or raise its maxmemory"
        )
    if isinstance(error, BusyLoadingError):
        return BrokerError(f"Redis at {url} still loads its file: try again when it has")
    if isinstance(error, LOST):
        return BrokerError(
            f"can't reach Redis at {url} ({reason}): is it running? "
            "`digitq up` starts one, `--broker` names another"
        )
    return BrokerError(f"Redis at {url} says: {reason}")


def first_line(error: Exception) -> str:
    """The first line of what Redis says, without what redis-py and a script put around it."""
    line = str(error).partition("\n")[0]
    line = line.rpartition(" of pipeline caused error: ")[2]
    return SCRIPT_PLACE.sub("", line)
