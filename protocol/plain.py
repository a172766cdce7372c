"""Plain Celery as in most tutorials, with which `digitq bench` compares: a task for each image, the
pixels as a list in the message, the answer through a result backend."""

from celery import Celery

from protocol.broker.address import read_address

PLAIN_CLASSIFY = "plain.classify"


def make_plain_app(broker_url: str) -> Celery:
    """The app with Celery's defaults. Redis is its broker and its result backend."""
    url = read_address(broker_url).celery_url
    app = Celery("plain", broker=url, backend=url, set_as_current=False)
    app.conf.broker_connection_retry_on_startup = True  # the default, set to avoid a warning
    return app
