"""Says in Redis that this worker lives and how fast it is, for metrics and for those who watch."""

import platform
import threading
import time
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from celery import bootsteps

from protocol.broker.connection import connect
from protocol.celery import app
from protocol.errors import BrokerError
from protocol.ledger import Ledger
from protocol.meter import Meter
from protocol.signs import SIGN_SECONDS
from worker.identity import own_fingerprint


class Presence(bootsteps.StartStopStep):
    """A step of Celery's worker: it starts a thread, which runs even if Redis is lost."""

    requires = ("celery.worker.components:Pool",)  # no thread may run before the fork

    def start(self, parent: Any) -> None:
        threading.Thread(target=give_signs, args=(parent,), name="presence", daemon=True).start()


def give_signs(worker: Any) -> None:
    """Give signs of life until the process ends. If Redis is lost, nobody could read them, and
    others say that it is."""
    ledger, meter, started = Ledger(connect(app.conf.digitq_database_url)), Meter(), time.time()
    while True:
        with suppress(BrokerError):
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
        time.sleep(SIGN_SECONDS)
