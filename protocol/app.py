"""What Celery needs to know in producer, worker and Flower: the app."""

from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue

from digitq.protocol.broker.address import Address, read_address
from digitq.protocol.broker.connection import TIMEOUT_SECONDS
from digitq.protocol.keys import BOOKED_QUEUE, CALLS_PRIORITY, IMAGES_QUEUE, PRIORITIES, QUEUE
from digitq.protocol.settings import DEFAULT_BROKER, settings

CLASSIFY = "digitq.classify"
CLASSIFY_IMAGE = "digitq.classify_image"  # one image, for programs without digitq


def make_app(broker_url: str) -> Celery:
    """The app for one broker. Raises `UsageError` if the URL is not of Redis.

    It accepts JSON only. The results of jobs are in the ledger, not in the result backend. Messages
    are acknowledged when they are received: the ledger finds lost ones, and with late
    acknowledgements Celery would run long chunks twice.
    """
    address = read_address(broker_url)
    exchange: Any = Exchange  # kombu has no types here
    queue: Any = Queue
    app = Celery("digitq", broker=address.celery_url, set_as_current=False)
    app.conf.update(
        broker_use_ssl=address.tls or None,  # kombu has it from the URL, Flower only from here
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=QUEUE,
        task_queues=[queue(name, exchange(name), name) for name in (QUEUE, BOOKED_QUEUE)],
        task_routes={CLASSIFY_IMAGE: {"queue": IMAGES_QUEUE}},
        **result_options(address),
        redis_socket_timeout=TIMEOUT_SECONDS,
        redis_socket_connect_timeout=TIMEOUT_SECONDS,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # wait if Redis is full or has become a replica
        broker_transport_options={
            # The lists that workers read, in this order
            "priority_steps": [CALLS_PRIORITY, *PRIORITIES],
            "body_encoding": "utf-8",
            "ack_emulation": False,  # kombu keeps no records of its own, which a full Redis refuses
            "socket_timeout": TIMEOUT_SECONDS,  # without it, a dead connection blocks for ever
            "socket_connect_timeout": TIMEOUT_SECONDS,
            "health_check_interval": TIMEOUT_SECONDS,  # by default a dead one is found after 51 s
            **sentinel_options(address),
        },
    )
    return app


def result_options(address: Address) -> dict[str, Any]:
    """Celery's settings that put results into the same Redis."""
    return {
        "result_backend": address.celery_url,
        "result_backend_transport_options": sentinel_options(address),
    }


def sentinel_options(address: Address) -> dict[str, Any]:
    """What kombu must know of Sentinels besides their hosts, as options of its transport."""
    if not (sentinels := address.sentinels):
        return {}
    sentinel_kwargs = {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        **sentinels.sentinel_login,
    }
    return {"master_name": sentinels.master_name, "sentinel_kwargs": sentinel_kwargs}


app = make_app(settings().broker_url or DEFAULT_BROKER)
