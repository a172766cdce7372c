"""Celery's connection to Redis in workers: what becomes of a message.

All messages enter a worker in `Channel.receive`. One that `read_message` does not accept is
dropped: the queue no longer has it, and the log has a line.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import redis
from redis import RedisError, ResponseError

from digitq.protocol.app import app
from digitq.protocol.broker.connection import refuse_unusable
from digitq.protocol.errors import DigitqError
from digitq.worker.service.messages import read_message, shorten

REDIS_ERRORS = OSError, RedisError  # what is raised if Redis is lost, or refuses a command
# How the names of queues end from which `celery inspect` takes answers; a worker reads none of them
REPLIES = f".{app.control.mailbox.reply_exchange.name}"

logger = get_logger(__name__)


class Channel(redis.Channel):
    """kombu's channel, which drops what it can't read."""

    _told = ""  # why Redis gave no message, as the log has it

    def __init__(self, *args: Any, **options: Any) -> None:
        """Look at Redis first: Celery tries again for ever, even if Redis can't be a broker."""
        try:  # Redis may have started after the worker
            refuse_unusable(app.conf.digitq_database_url)
        except DigitqError as error:
            logger.critical("%s", error)
            raise SystemExit(1) from None
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> None:
        """Put `receive` before what takes the queue's messages; kombu has no public way to."""
        super().basic_consume(queue, *args, **options)  # type: ignore[no-untyped-call]
        # Celery's remote control has orders in the former, and answers in the latter
        if not (queue in self._fanout_queues or queue.endswith(REPLIES)):
            callbacks = self.connection._callbacks
            callbacks[queue] = partial(self.receive, queue, callbacks[queue])

    def receive(self, queue: str, deliver: Callable[[Any], None], content: object) -> None:
        """Give Celery a message of the queue. Raises `ValueError` for one that can't be read."""
        message = read_message(content, queue)
        try:
            deliver(message)
        except REDIS_ERRORS:
            raise
        except Exception as error:  # else it would keep one of the worker's processes for ever
            self.qos.reject(message["properties"]["delivery_tag"])
            raise ValueError(repr(error)) from None  # a `KeyError` means lost to kombu

    def _brpop_read(self, **options: Any) -> Any:
        """Read a message. One that can't be read would end Celery, so it is logged."""
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (Empty, *self.connection_errors):
            raise
        except RedisError as error:  # Redis is full, a replica, or a key has another type
            reason = str(error)
            try:
                refuse_unusable(app.conf.digitq_database_url)
            except DigitqError as clearer:
                reason = str(clearer)
            if reason != self._told:
                self._told = reason
                logger.warning("Redis gives no messages: %s", reason)
            time.sleep(1)  # kombu asks again at once
        except Exception as error:
            logger.error("dropped a message that can't be read: %s", shorten(str(error)))
        raise Empty

    # Celery calls these two as it connects, and connects again at once if they raise an error
    def _size(self, queue: str) -> Any:
        with pause_at_refusal():
            return super()._size(queue)  # type: ignore[no-untyped-call]

    def _queue_bind(self, *args: Any) -> None:
        with pause_at_refusal():
            super()._queue_bind(*args)  # type: ignore[no-untyped-call]

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        """Return a message to the front of its queue; kombu without records puts it at the end. If
        Redis is lost or full, the ledger sends it again."""
        queue = message.delivery_info["routing_key"]
        lost = *self.connection_errors, ResponseError
        with suppress(*lost), self.conn_or_acquire() as client:
            restore: Any = self._do_restore_message
            restore(message._raw, "", queue, client, leftmost)


@contextmanager
def pause_at_refusal() -> Iterator[None]:
    """If Redis is full, or has become a replica, wait before the error is raised: Celery logs it
    and connects again at once."""
    try:
        yield
    except ResponseError:
        time.sleep(1)
        raise


class Transport(redis.Transport):
    """kombu's transport with this `Channel`."""

    Channel = Channel


class SentinelChannel(Channel, redis.SentinelChannel):
    """A `Channel` to a Redis that is found through Sentinels."""


class SentinelTransport(redis.SentinelTransport):
    """kombu's transport with this `SentinelChannel`."""

    Channel = SentinelChannel
