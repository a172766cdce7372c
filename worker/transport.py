"""Celery's way to Redis, for workers: a message that can't be read costs itself only.

In kombu 5.7 one that is no JSON, or not of a message's form, ends the worker.
"""

import time
from contextlib import suppress
from queue import Empty
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import TRANSPORT_ALIASES, redis
from redis import RedisError

PAUSE_SECONDS = 1.0  # before it is asked again

logger = get_logger(__name__)


class Channel(redis.Channel):
    """Drops what it can't read; it has left the queue already."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (Empty, *self.connection_errors):
            raise
        except RedisError as error:  # full, or a replica now: it is no message's fault
            logger.warning("Redis gives no messages: %s", error)
            time.sleep(PAUSE_SECONDS)
            raise Empty from None
        except Exception as error:
            logger.error("dropped a message that can't be read: %r", error)
            raise Empty from None

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        """Hand a message back, to the front of its queue. Where Redis is lost, so is the message:
        the ledger finds it. (kombu would put it last, or dump it to a file.)"""
        delivery = message.delivery_info
        with suppress(*self.connection_errors), self.conn_or_acquire() as client:
            restore: Any = self._do_restore_message
            restore(message._raw, delivery["exchange"], delivery["routing_key"], client, leftmost)


class Transport(redis.Transport):
    """kombu's, with this `Channel`."""

    Channel = Channel


def register() -> None:
    """Use it for `redis://`, `rediss://` and `redis+socket://`, in this process."""
    name = f"{__name__}:{Transport.__qualname__}"
    TRANSPORT_ALIASES.update(redis=name, rediss=name)
