"""The Celery app, with the configuration that producer, worker and Flower share."""

from celery import Celery

from protocol.broker.address import read_address
from protocol.broker.connection import TIMEOUT_SECONDS
from protocol.ledger import CALLS_PRIORITY, QUEUE
from protocol.settings import DEFAULT_BROKER, settings

CLASSIFY = "digitq.classify"


def make_app(broker_url: str) -> Celery:
    """The app for one broker. It accepts JSON only, and has no result backend: results are in the
    ledger.

    Messages are acknowledged when they are received: the ledger finds lost ones, and with late
    acknowledgements Celery would run long chunks twice. Raises `UsageError` if the URL is not of
    Redis.
    """
    app = Celery("digitq", broker=read_address(broker_url).celery_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=QUEUE,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # wait if Redis is full or has become a replica
        broker_transport_options={
            "priority_steps": [CALLS_PRIORITY, 0],  # the lists that workers read, in this order
            "body_encoding": "utf-8",
            "ack_emulation": False,  # kombu need not record unacknowledged messages
            "socket_timeout": TIMEOUT_SECONDS,  # without it, a dead connection blocks for ever
            "socket_connect_timeout": TIMEOUT_SECONDS,
            "health_check_interval": TIMEOUT_SECONDS,  # by default a dead one is found after 51 s
        },
    )
    return app


app = make_app(settings().broker_url or DEFAULT_BROKER)
