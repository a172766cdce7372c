"""Says in Redis that this worker lives and how fast it is, for metrics and for those who watch."""

import platform
import threading
import time
from importlib.metadata import version
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger

from protocol.broker.connection import connect
from protocol.celery import app
from protocol.errors import BrokerError
from protocol.heartbeat import SIGN_SECONDS
from protocol.ledger import Ledger
from protocol.meter import Meter
from worker.service.identity import own_fingerprint

logger = get_logger(__name__)


class Presence(bootsteps.StartStopStep):
    """A step of Celery's worker: it starts a thread, which runs even if Redis is lost."""

    requires = ("celery.worker.components:Pool",)  # no thread may run before the fork

    def start(self, parent: Any) -> None:
        threading.Thread(target=give_signs, args=(parent,), name="presence", daemon=True).start()


def give_signs(worker: Any) -> None:
    """Give signs of life until the process ends. Signs are skipped while Redis is lost, which other
    parts of the worker log. Logs once what else prevents a sign."""
    ledger, meter, started = Ledger(connect(app.conf.digitq_database_url)), Meter(), time.time()
    problem = None
    while True:
        before, problem = problem, None
        try:
            images = ledger.beat(
                worker.hostname,
                host=platform.node(),
                version=version("digitq"),
                fingerprint=own_fingerprint(),
                processes=worker.pool.num_processes,
                started=started,
                images_per_second=round(meter.rate, 3),
            )
            meter.read(images, time.monotonic())
        except BrokerError:
            problem = before
        except Exception as error:  # Celery's pool may have another form, or be closed already
            problem = f"{type(error).__name__}: {error}"
            if problem != before:
                logger.warning("metrics and `--watch` can't see this worker: %s", problem)
        time.sleep(SIGN_SECONDS)
