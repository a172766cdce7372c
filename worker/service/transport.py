"""Celery's connection to Redis in workers: what becomes of a message.

A message that can't be read is dropped: with kombu 5.7, one that is not JSON, or lacks a field,
ends the worker.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import redis, virtual
from redis import RedisError, ResponseError

from protocol.broker.connection import refuse_unusable
from protocol.celery import CLASSIFY, app
from protocol.errors import DigitqError

logger = get_logger(__name__)


class QoS(redis.QoS):
    """Records in Redis which images are not acknowledged. Chunks have the ledger, and a full Redis,
    which refuses records, must get rid of them."""

    restore_unacked: Any = virtual.QoS.restore_unacked  # it has `Channel` restore each message

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            keeper_of(message).append(self, message, delivery_tag)
        except ResponseError:  # Redis is full: this image is lost if the worker dies
            logger.warning("Redis can't record that an image was taken")
            early: Any = virtual.QoS
            early.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        delivered: Any = self._delivered
        message = delivered.get(delivery_tag)  # none if it was restored at a reconnect
        (keeper_of(message) if message else redis.QoS).ack(self, delivery_tag)

    def restore_visible(self, *args: Any, **options: Any) -> None:
        with suppress(ResponseError):  # Redis is full, or has become a replica: later, then
            super().restore_visible(*args, **options)  # type: ignore[no-untyped-call]


def keeper_of(message: Any) -> Any:
    """The class whose methods know what becomes of the message until it is acknowledged."""
    return virtual.QoS if message.headers.get("task") == CLASSIFY else redis.QoS


class Channel(redis.Channel):
    """kombu's channel, which drops what it can't read. The message has left the queue by then."""

    QoS = QoS

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

    # Celery calls these as it connects
    def _size(self, queue: str) -> Any:
        with pause_at_refusal():
            return super()._size(queue)  # type: ignore[no-untyped-call]

    def _queue_bind(self, *args: Any) -> None:
        with pause_at_refusal():
            super()._queue_bind(*args)  # type: ignore[no-untyped-call]

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        """Return a message to the front of its queue, unlike kombu, which puts a chunk at the end.
        If Redis is lost, it is sent again later: the ledger does so with a chunk. An image stays
        on record if Redis is full, and is sent again too."""
        delivery = message.delivery_info
        lost = *self.connection_errors, ResponseError
        with suppress(*lost), self.conn_or_acquire() as client:
            if keeper_of(message) is redis.QoS:
                self.qos.restore_by_tag(message.delivery_tag, client, leftmost)
                return
            restore: Any = self._do_restore_message
            restore(message._raw, delivery["exchange"], delivery["routing_key"], client, leftmost)


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
    """The same for a Redis that is found through Sentinels."""


class SentinelTransport(redis.SentinelTransport):
    """kombu's transport with this `SentinelChannel`."""

    Channel = SentinelChannel
