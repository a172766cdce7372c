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
from protocol.signs import SIGN_SECONDS
from worker.identity import own_fingerprint

RATE_SECONDS = 10.0  # the rate is the mean of about this long


class Meter:
    """The rate at which a count grows."""

    def __init__(self) -> None:
        self._readings: list[tuple[float, int]] = []  # time and count

    def read(self, count: int, now: float) -> None:
        """Note the count at a time in seconds."""
        recent = [reading for reading in self._readings if now - reading[0] <= RATE_SECONDS]
        if recent and recent[0][1] == recent[-1][1]:  # if work begins now, idle time is left out
            recent = recent[-1:]
        if recent and recent[-1][1] > count:  # Redis has lost the count
            recent = []
        self._readings = [*recent, (now, count)]

    @property
    def rate(self) -> float:
        """How much the count grows each second; 0 if it is not known."""
        (before, less), (now, more) = self._readings[:1] + self._readings[-1:] or [(0, 0), (0, 0)]
        return (more - less) / (now - before) if more > less else 0.0


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
