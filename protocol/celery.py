"""The Celery app: what producer, worker and Flower must configure alike."""

from celery import Celery

from protocol.broker.address import read_address
from protocol.broker.connection import TIMEOUT_SECONDS
from protocol.ledger import CALLS_PRIORITY, QUEUE
from protocol.settings import DEFAULT_BROKER, settings

CLASSIFY = "digitq.classify"


def make_app(broker_url: str) -> Celery:
    """The app over one broker. JSON only, no result backend: results are the ledger's.

    Messages are acknowledged as they are taken up: a lost one is the ledger's to find, and a late
    acknowledgement would only have Celery run long chunks twice.
    """
    app = Celery("digitq", broker=read_address(broker_url).celery_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=QUEUE,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # a Redis that is full, or a replica now, is waited for
        broker_transport_options={
            "priority_steps": [CALLS_PRIORITY, 0],  # two lists to pop from, single calls first
            "body_encoding": "utf-8",
            "ack_emulation": False,  # kombu's own books of what is unacknowledged
            "socket_timeout": TIMEOUT_SECONDS,  # else a dead connection is waited for without end
            "socket_connect_timeout": TIMEOUT_SECONDS,
            "health_check_interval": TIMEOUT_SECONDS,  # seconds; else one is noticed after 51
        },
    )
    return app


app = make_app(settings().broker_url or DEFAULT_BROKER)
