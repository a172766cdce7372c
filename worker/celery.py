"""The worker's Celery app: `celery -A worker worker`."""

import ctypes
import os
import sys
from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.signals import celeryd_init, worker_process_init
from celery.utils.log import get_logger

from protocol.broker.address import Address
from protocol.broker.connection import connect, read_address
from protocol.celery import app
from protocol.chunk import PIXELS, PIXELS_FIELD, Chunk, encode
from protocol.errors import BrokerError, UsageError
from protocol.host.cores import usable_cores
from protocol.host.process import MALLOC_MMAP_BYTES, MALLOC_TRIM_BYTES
from protocol.ledger import SWEEP_LOCK, Ledger
from protocol.settings import DEFAULT_BROKER, settings
from worker import transport

WARM_UP_ROWS = 256
LONGEST_LOCK_MS = 1000  # of the sweep's
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)

logger = get_logger(__name__)

transport.register()
app.conf.update(
    # this module, too: on macOS a pool's processes are no forks, and have only what is named here
    include=["worker.celery", "worker.tasks", "worker.control", "worker.watchdog"],
    # Of the ledger: by this name Celery and Flower show no more than stars
    digitq_database_url=settings().broker_url or DEFAULT_BROKER,
    worker_proc_alive_timeout=120,  # seconds for torch and the weights to load
)


class Sweeper(bootsteps.StartStopStep):
    """Publishes overdue chunks again, on the worker's timer; one worker at a time does it."""

    requires = {"celery.worker.components:Timer"}

    def __init__(self, parent: Any, **options: Any) -> None:
        self._entry: Any = None
        self._redis = connect(app.conf.digitq_database_url)

    def start(self, parent: Any) -> None:
        self._entry = parent.timer.call_repeatedly(self._interval_seconds(), self._sweep)

    def stop(self, parent: Any) -> None:
        if self._entry:
            self._entry.cancel()

    def _interval_seconds(self) -> float:
        return min(1.0, settings().deadline_seconds / 3)

    def _sweep(self) -> None:
        try:
            milliseconds = max(1, int(self._interval_seconds() * 900))
            if self._redis.set(SWEEP_LOCK, os.getpid(), nx=True, px=milliseconds):
                Ledger(self._redis).sweep(settings().deadline_seconds)
            elif self._redis.pttl(SWEEP_LOCK) > LONGEST_LOCK_MS:  # Redis's clock was set back
                self._redis.delete(SWEEP_LOCK)
        except BrokerError as error:
            logger.warning("no sweep: %s", error)


app.steps["worker"].add(Sweeper)


@celeryd_init.connect
def prepare_worker(conf: Any, **_: Any) -> None:
    """Before the fork: with GPUs, a process for each of them, unless `--concurrency` says
    otherwise."""
    from worker.models.card import card_path
    from worker.models.device import count_gpus

    sys.argv = sys.orig_argv[1:]  # as Celery starts anew at SIGHUP; of `python -c` it knew less
    try:
        follow_celery(conf)
        card_path(settings().model)
        conf.worker_concurrency = count_gpus() or usable_cores()
    except UsageError as error:  # Celery would only log it
        sys.exit(f"digitq: {error}")


def follow_celery(conf: Any) -> None:
    """Keep the ledger where the queue is: `celery -b URL`, and variables, may name another broker
    than the app has. Raises `UsageError` where settings name one, too."""
    try:
        told = Address.parse(conf.broker_read_url)
    except ValueError as error:
        raise UsageError(f"the broker of -b, BROKER_URL or CELERY_BROKER_URL: {error}") from None
    if told == read_address(conf.digitq_database_url):
        return
    if settings().broker_url:
        raise UsageError(
            "Celery is told of another broker than DIGITQ_BROKER_URL, by -b, BROKER_URL or "
            "CELERY_BROKER_URL: leave one out"
        )
    conf.digitq_database_url = told.redis_url
    os.environ["DIGITQ_BROKER_URL"] = told.redis_url  # for processes that are no forks
    os.environ["CELERY_BROKER_URL"] = told.celery_url  # kombu reads some URLs in its own way


def keep_freed_memory() -> None:
    """Have glibc hand a chunk's memory to the next chunk, not back to the kernel. (With this, and
    the private Redis told the same, a job of `mlp` in a virtual machine is 7 % faster.)"""
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MALLOC_MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, MALLOC_TRIM_BYTES)


@worker_process_init.connect
def prepare_process(**_: Any) -> None:
    """After the fork: one thread for each process, and the usual model loaded and warm."""
    import pyarrow as pa
    import torch

    from worker.classify import classify_chunk
    from worker.models.model import TORCH_THREADS

    torch.set_num_threads(TORCH_THREADS)
    keep_freed_memory()
    rows = WARM_UP_ROWS
    pixels = pa.array([bytes(PIXELS)] * rows, PIXELS_FIELD.type)
    batch = pa.record_batch({"id": [""] * rows, PIXELS_FIELD.name: pixels})
    encode(classify_chunk(Chunk(0, batch), settings().model))
