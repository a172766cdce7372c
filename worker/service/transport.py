"""Celery's connection to Redis in workers: what becomes of a message.

All messages enter a worker in `Channel.receive`. One that `read_message` does not accept is
dropped: the queue no longer has it, nothing waits for its acknowledgement, and the log has a line.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import redis, virtual
from redis import RedisError, ResponseError

from digitq.protocol.app import CLASSIFY, app
from digitq.protocol.broker.connection import refuse_unusable
from digitq.protocol.errors import DigitqError
from digitq.worker.service.messages import IS_NAME, as_json, read_message, shorten

REDIS_ERRORS = OSError, RedisError  # what is raised if Redis is lost, or refuses a command
# How the names of queues end from which `celery inspect` takes answers; a worker reads none of them
REPLIES = f".{app.control.mailbox.reply_exchange.name}"

logger = get_logger(__name__)


class QoS(redis.QoS):
    """Records in Redis which images are not acknowledged. Chunks have the ledger, and a full Redis,
    which refuses records, must get rid of them."""

    restore_unacked: Any = virtual.QoS.restore_unacked  # it has `Channel` restore each message

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self.unrecorded: dict[str, Any] = {}  # images that were taken while Redis was full, by tag

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            keeper_of(message).append(self, message, delivery_tag)
        except ResponseError:  # until Redis has room, this image is lost if the worker dies
            logger.warning("Redis can't record that an image was taken")
            early: Any = virtual.QoS
            early.append(self, message, delivery_tag)
            self.unrecorded[delivery_tag] = message

    def ack(self, delivery_tag: str) -> None:
        self.unrecorded.pop(delivery_tag, None)
        delivered: Any = self._delivered
        message = delivered.get(delivery_tag)  # none if it was restored at a reconnect
        (keeper_of(message) if message else redis.QoS).ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Let go of an image. If Redis is full, its record stays, and is sent again later."""
        with suppress(ResponseError):
            if not requeue:
                self._remove_from_indices(delivery_tag).execute()  # type: ignore[no-untyped-call]
            elif delivery_tag not in self.unrecorded:
                self.restore_by_tag(delivery_tag, leftmost=True)
        early: Any = virtual.QoS
        early.ack(self, delivery_tag)

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Return an image to its queue. A record of it that can't be read is dropped."""
        try:
            super().restore_by_tag(tag, client, leftmost)  # type: ignore[no-untyped-call]
        except REDIS_ERRORS:
            raise
        except Exception as error:
            logger.error("dropped the record of an image: %s", shorten(str(error)))
            self._remove_from_indices(tag).execute()  # type: ignore[no-untyped-call]

    def restore_visible(self, *args: Any, **options: Any) -> None:
        with suppress(ResponseError):  # Redis is full, or has become a replica: later, then
            self._record_taken()
            super().restore_visible(*args, **options)  # type: ignore[no-untyped-call]

    def _record_taken(self) -> None:
        """Make up for the records that a full Redis refused. Raises `ResponseError`."""
        for tag, message in [*self.unrecorded.items()]:
            delivery = message.delivery_info
            content = [message._raw, delivery["exchange"], delivery["routing_key"]]
            with self.pipe_or_acquire() as pipe:
                pipe.zadd(self.unacked_index_key, {tag: time.time()})
                pipe.hset(self.unacked_key, tag, as_json(content)).execute()
            del self.unrecorded[tag]


def keeper_of(message: Any) -> Any:
    """The class whose methods know what becomes of the message until it is acknowledged."""
    return virtual.QoS if message.headers.get("task") == CLASSIFY else redis.QoS


class Channel(redis.Channel):
    """kombu's channel, which drops what it can't read."""

    QoS = QoS

    def __init__(self, *args: Any, **options: Any) -> None:
        try:  # Redis may have started after the worker, and Celery would retry what it refuses
            refuse_unusable(app.conf.digitq_database_url)
        except DigitqError as error:
            logger.critical("%s", error)
            raise SystemExit(1) from None
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> None:
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
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (Empty, *self.connection_errors):
            raise
        except RedisError as error:  # Redis is full, or has become a replica
            logger.warning("Redis gives no messages: %s", error)
            time.sleep(1)  # kombu asks again at once
        except Exception as error:
            logger.error("dropped a message that can't be read: %s", shorten(str(error)))
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
            tag = message.delivery_tag
            if keeper_of(message) is redis.QoS and tag not in self.qos.unrecorded:
                self.qos.restore_by_tag(tag, client, leftmost)
                return
            self._do_restore_message(message._raw, "", delivery["routing_key"], client, leftmost)

    def _do_restore_message(
        self, content: Any, exchange: Any, queue: Any, client: Any, leftmost: bool = False
    ) -> None:
        """Put a message back into its queue. Raises `ValueError` as `read_message`."""
        if not (isinstance(queue, str) and IS_NAME(queue)):
            raise ValueError("it does not name its queue")
        restore: Any = super()._do_restore_message
        restore(read_message(content, queue), "", queue, client, leftmost)


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
