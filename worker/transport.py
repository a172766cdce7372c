"""Celery's connection to Redis in workers: a message that can't be read is dropped.

With kombu 5.7, a message that is not JSON, or lacks a field, ends the worker.
"""

import time
from contextlib import suppress
from queue import Empty
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import redis
from redis import RedisError

from protocol.broker.connection import refuse_unusable
from protocol.celery import app
from protocol.errors import DigitqError

logger = get_logger(__name__)


class Channel(redis.Channel):
    """kombu's channel, which drops what it can't read. The message has left the queue by then."""

    def __init__(self, *args: Any, **options: Any) -> None:
        try:  # Redis may have started after the worker, and Celery would retry what it refuses
            refuse_unusable(app.conf.digitq_database_url)
        except DigitqError as error:
            logger.critical("%s", error)
            raise SystemExit(1) from None
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (Empty, *self.connection_errors):
            raise
        except RedisError as error:  # Redis is full, or has become a replica
            logger.warning("Redis gives no messages: %s", error)
            time.sleep(1)  # kombu asks again at once
        except Exception as error:
            logger.error("dropped a message that can't be read: %r", error)
        raise Empty

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        """Return a message to the front of its queue, unlike kombu, which puts it at the end.
        If Redis is lost, the message is lost too, and the ledger queues its chunk again."""
        delivery = message.delivery_info
        with suppress(*self.connection_errors), self.conn_or_acquire() as client:
            restore: Any = self._do_restore_message
            restore(message._raw, delivery["exchange"], delivery["routing_key"], client, leftmost)


class Transport(redis.Transport):
    """kombu's transport with this `Channel`."""

    Channel = Channel


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same for a Redis that is found through Sentinels."""


class SentinelTransport(redis.SentinelTransport):
    """kombu's transport with this `SentinelChannel`."""

    Channel = SentinelChannel
