"""Gives a sign of life of this worker as long as its main process runs, for `--check`."""

import threading
import time
from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.signals import celeryd_init
from celery.utils.log import get_logger

from protocol.host.probe import BEAT_SECONDS, Pulse

logger = get_logger(__name__)
connected = threading.Event()  # set while this worker is connected to Redis


@celeryd_init.connect
def say_not_ready(sender: str, **_: Any) -> None:
    """If this process was restarted in place, its last sign still says that the worker, whose name
    is `sender`, is ready."""
    with suppress(OSError):  # `beat` logs it
        if Pulse(sender).find_fault("live") is None:
            Pulse(sender).beat("it is starting")


class Connected(bootsteps.StartStopStep):
    """A step of Celery's consumer, which stops when Redis is lost and starts when it is back."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        connected.set()

    def stop(self, parent: Any) -> None:
        connected.clear()


class Beating(bootsteps.StartStopStep):
    """A step of Celery's worker: it starts a thread, which runs even if Redis is lost."""

    requires = ("celery.worker.components:Pool",)  # no thread may run before the fork

    def start(self, parent: Any) -> None:
        threading.Thread(target=beat, args=(parent,), name="pulse", daemon=True).start()


def beat(worker: Any) -> None:
    """Give signs of life until the process ends. Logs once what prevents it."""
    problem = None
    while True:
        before, problem = problem, None
        try:
            pulse = Pulse(worker.hostname)
            if not pulse.beat(find_missing(worker.pool)):
                problem = f"another worker of this host is {worker.hostname}; set --hostname"
        except OSError as error:
            problem = f"no sign of life can be given: {error}"
        except Exception as error:  # Celery's pool may have another form; this thread must go on
            problem = f"no sign of life can be given: {type(error).__name__}: {error}"
        if problem and problem != before:
            logger.warning("`--check` can't see this worker: %s", problem)
        time.sleep(BEAT_SECONDS)


def find_missing(pool: Any) -> str:
    """What a worker lacks to be ready for work; nothing if it is."""
    if not connected.is_set():
        return "not connected to Redis"
    return "" if has_loaded(pool) else "the networks are not loaded"


def has_loaded(pool: Any) -> bool:
    """Whether all processes of a pool have started, as they load the networks before they say so.
    Pools of threads are taken to have."""
    writes = pool.info.get("writes")
    if writes is None:
        return True
    return isinstance(writes, dict) and writes["inqueues"]["total"] >= pool.num_processes
