"""A thread in each worker that books the images of other programs in the ledger as they come."""

import threading
import time
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger

from digitq.protocol.app import app
from digitq.protocol.broker.connection import connect
from digitq.protocol.errors import BrokerError
from digitq.protocol.ledger import Ledger
from digitq.worker.service.messages import read_image

FULL_PAUSE_SECONDS = 0.02  # the pause while the ledger takes no more images
REFUSED_PAUSE_SECONDS = 1.0  # the pause while Redis is lost or refuses to wake this thread

logger = get_logger(__name__)


class Intake(bootsteps.StartStopStep):
    """A step of Celery's worker: it starts the thread. Celery itself never takes these messages: it
    would lose one if the worker died in the moment between taking it and noting so."""

    requires = ("celery.worker.components:Pool",)  # no thread may run before the fork

    def start(self, parent: Any) -> None:
        threading.Thread(target=book_for_ever, name="intake", daemon=True).start()


def book_for_ever() -> None:
    """Book images whenever some come. A full Redis still lets `book_images` pass."""
    ledger, reported = Ledger(connect(app.conf.digitq_database_url)), ""
    while True:
        try:
            left, dropped = ledger.book_images()
            for content in dropped:
                logger.error("dropped a message that can't be read: %s", find_fault(content))
            if left:
                time.sleep(FULL_PAUSE_SECONDS)
            else:
                ledger.await_image()
        except BrokerError as error:  # such as a missing right, of which nobody else hears
            if reported != str(error):
                reported = str(error)
                logger.warning("images of other programs wait: %s", reported)
            time.sleep(REFUSED_PAUSE_SECONDS)
        except Exception:  # without the thread, this worker would book no more images
            logger.exception("the intake could not book an image")
            time.sleep(REFUSED_PAUSE_SECONDS)


def find_fault(content: bytes) -> str:
    """What is wrong with a message that was dropped."""
    try:
        read_image(content)
    except ValueError as error:
        return str(error)
    return "it holds no image"
