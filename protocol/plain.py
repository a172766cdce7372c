"""Plain Celery as most tutorials have it, for `digitq bench` to compare with: a task for each
image, its pixels as a list in the message, the answer through a result backend."""

from celery import Celery

from protocol.broker.address import read_address

CLASSIFY = "plain.classify"


def make_plain_app(broker_url: str) -> Celery:
    """The app, with Celery's own defaults; Redis is its broker and its result backend."""
    url = read_address(broker_url).celery_url
    app = Celery("plain", broker=url, backend=url, set_as_current=False)
    app.conf.broker_connection_retry_on_startup = True  # its default, said to stay silent
    return app
