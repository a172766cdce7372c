"""A worker's heartbeat: a file for `--check`, and a key in Redis for all others who watch.

Each has a thread of its own, since a lost Redis must not delay the file: a probe would restart the
worker. No tensor may be made here: torch must not be used before the pool is forked.
"""

import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.signals import celeryd_init
from celery.utils.log import get_logger

from digitq.protocol.app import app
from digitq.protocol.broker.connection import connect
from digitq.protocol.errors import BrokerError, DigitqError
from digitq.protocol.heartbeat import WORKER_HEARTBEAT_SECONDS, seconds_ahead
from digitq.protocol.host.cores import MEMBERSHIP, read_text, usable_cores, usable_cpus
from digitq.protocol.host.probe import HeartbeatFile
from digitq.protocol.ledger import Ledger
from digitq.protocol.settings import ALL_MODELS, settings
from digitq.worker.models.card import card_path
from digitq.worker.models.model import TORCH_THREADS, read_weights
from digitq.worker.service.identity import own_fingerprint, own_kind, shorten
from digitq.worker.service.meter import Meter

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # all containers of a machine have one

TWIN = "another worker has this name: start each with a --hostname of its own"

logger = get_logger(__name__)
connected = threading.Event()  # set while this worker is connected to Redis


@celeryd_init.connect
def say_not_ready(sender: str, **_: Any) -> None:
    """If this process was restarted in place, its file still says that the worker, whose name is
    `sender`, is ready."""
    with suppress(OSError):  # the heartbeat logs it
        if HeartbeatFile(sender).find_fault("live") is None:
            HeartbeatFile(sender).write("it is starting")


class Connected(bootsteps.StartStopStep):
    """A step of Celery's consumer, which stops when Redis is lost and starts when it is back."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        connected.set()

    def stop(self, parent: Any) -> None:
        connected.clear()


class Heartbeat(bootsteps.StartStopStep):
    """A step of Celery's worker: it starts two threads, which run even if Redis is lost."""

    requires = ("celery.worker.components:Pool",)  # no thread may run before the fork

    def start(self, parent: Any) -> None:
        missing = partial(find_missing, parent.pool, frozenset(app.amqp.queues.consume_from))
        in_redis = RedisHeartbeat(parent, missing)
        for write, watcher in (
            (lambda: HeartbeatFile(parent.hostname).write(missing()), "`--check`"),
            (in_redis.write, "metrics and `--watch`"),
        ):
            threading.Thread(target=repeat, args=(write, watcher), daemon=True).start()


def repeat(write: Callable[[], None], watcher: str) -> None:
    """Write heartbeats until the process ends. Logs once what prevents them; but other parts of the
    worker log that Redis is lost."""
    problem = None
    while True:
        before, problem = problem, None
        try:
            write()
        except BrokerError:
            problem = before
        except Exception as error:  # Celery's pool may have another form, or be closed already
            problem = f"{type(error).__name__}: {error}"
            if problem != before:
                logger.warning("%s can't see this worker: %s", watcher, problem)
        time.sleep(WORKER_HEARTBEAT_SECONDS)


class RedisHeartbeat:
    """The heartbeat of a worker in Redis; see `WorkerState`."""

    def __init__(self, worker: Any, missing: Callable[[], str]) -> None:
        self._worker, self._missing = worker, missing
        self._ledger = Ledger(connect(app.conf.digitq_database_url))
        self._meter, self._started, self._clock_seconds = Meter(), time.time(), 0.0
        self._has_begun = self._has_twin = False

    def write(self) -> None:
        """Write one. Raises `BrokerError`."""
        about = describe_self() | {
            "processes": self._worker.pool.num_processes,
            "started": self._started,
            "images_per_second": round(self._meter.rate, 3),
            "missing": self._missing() or TWIN * self._has_twin,
            "clock_seconds": self._clock_seconds,
        }
        before = time.time()
        images, redis_time, said = self._ledger.note_worker(self._worker.hostname, about)
        # The first time, a worker of this name may have ended some seconds ago
        has_twin = self._has_begun and bool(said) and f'"started": {self._started}' not in said
        if has_twin and not self._has_twin:
            logger.error("%s: %s", self._worker.hostname, TWIN)
        self._has_begun, self._has_twin = True, has_twin
        self._clock_seconds = seconds_ahead(before, redis_time, time.time())
        self._meter.read(images, time.monotonic())


@cache
def describe_self() -> dict[str, Any]:
    """The fields of `WorkerState` that do not change."""
    host = platform.node()
    return {
        "host": host,
        "version": version("digitq"),
        "fingerprint": own_fingerprint(),
        "kind": own_kind(),
        "machine": read_text(BOOT_ID).strip() or host,
        "machine_cores": os.cpu_count() or 1,
        "share": shorten(f"{host} {usable_cpus()} {read_text(MEMBERSHIP)}"),
        "cores": usable_cores(),
        "threads": TORCH_THREADS,
        "faults": [*filter(None, map(find_fault, ALL_MODELS))],
        "deadline_seconds": settings().deadline_seconds,
    }


def find_fault(model: str) -> str | None:
    """Why the model can't be used; None if it can."""
    try:
        if model != "random":  # its weights are in no file
            read_weights(card_path(model))
    except DigitqError as error:
        return f"can't use the model {model}: {error}"
    return None


def find_missing(pool: Any, queues: frozenset[str]) -> str:
    """What a worker lacks to be ready for work from these queues; nothing if it is."""
    if not connected.is_set():
        return "not connected to Redis"
    if not has_loaded(pool):
        return "the networks are not loaded"
    if left := queues - {*app.amqp.queues.consume_from}:
        return f"it was told to take nothing from the queue {', '.join(sorted(left))}"
    if stopped := [str(pid) for pid in pool.info.get("processes", ()) if is_stopped(pid)]:
        return f"process {', '.join(stopped)} is stopped"
    return ""


def has_loaded(pool: Any) -> bool:
    """Whether all processes of a pool have started, as they load the networks before they say so.
    Pools of threads are taken to have."""
    writes = pool.info.get("writes")
    if writes is None:
        return True
    return isinstance(writes, dict) and writes["inqueues"]["total"] >= pool.num_processes


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, as after SIGSTOP; without /proc it is not known."""
    return read_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[:1] == ["T"]
