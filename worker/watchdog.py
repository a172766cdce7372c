"""A worker that does nothing though there is work is started again, from within."""

import ctypes
import os
import signal
import sys
import threading
import time
from typing import Any

from billiard import active_children
from celery.signals import worker_ready
from celery.utils.log import get_logger
from celery.worker import state

from protocol.broker.connection import RetryingRedis, connect
from protocol.celery import CLASSIFY, app
from protocol.errors import BrokerError
from protocol.ledger import CALLS_QUEUE, QUEUE, Ledger

IDLE_SECONDS = 60.0
LOOK_SECONDS = 5.0  # or less: a tenth of the time above
PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2  # prctl(2)

logger = get_logger(__name__)


class Watchdog(threading.Thread):
    """A thread of the worker's main process, which looks on whatever becomes of its event loop.

    A pool process whose chunk was taken from it, since it was not heard of until the deadline,
    and which still hangs, is killed; Celery starts another. A worker that gets no message for a
    minute though the queue holds some, and though Redis answers, starts itself again, unless it
    was told to take none.
    """

    def __init__(self) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._end_with_parent = parent_death_signal()
        self._hanging: dict[str, float] = {}  # since when, for the ids of Celery's requests
        self._taken = 0  # messages, until the last look
        self._busy = time.monotonic()  # when there was last no reason to complain

    def run(self) -> None:
        redis = connect(app.conf.digitq_database_url)
        while True:
            time.sleep(min(LOOK_SECONDS, IDLE_SECONDS / 10))
            try:
                self._look(redis)
            except BrokerError:  # Celery connects again by itself
                self._busy = time.monotonic()
                self._hanging.clear()
            except Exception:  # Celery's sets may change while they are looked at
                logger.exception("the watchdog could not look")

    def _look(self, redis: RetryingRedis) -> None:
        now = time.monotonic()
        requests = [
            request
            for request in list(state.active_requests)
            if request.name == CLASSIFY and len(request.args) == 2  # anything may be in a queue
        ]
        self._hanging = {
            request.id: self._hanging.get(request.id, now)
            for request in requests
            if not Ledger(redis).is_running(*request.args)
        }
        for request in requests:
            pid = request.worker_pid
            hangs = now - self._hanging.get(request.id, now) > IDLE_SECONDS
            if hangs and pid not in (None, os.getpid()):
                logger.error("process %d hangs: killed", pid)
                os.kill(pid, signal.SIGKILL)
        taken = sum(state.total_count.values())
        told_none = QUEUE not in app.amqp.queues.consume_from
        if requests or taken != self._taken or told_none or not redis.exists(QUEUE, CALLS_QUEUE):
            self._busy = now
        self._taken = taken
        if now - self._busy > IDLE_SECONDS:
            logger.error("no message for %.0f s, though there are some: restart", IDLE_SECONDS)
            restart(self._end_with_parent)


@worker_ready.connect
def watch(**_: Any) -> None:
    """Begin when the worker takes messages."""
    Watchdog().start()


def parent_death_signal() -> int:
    """What the kernel sends this process when its parent is gone; 0 for nothing. For the main
    thread."""
    number = ctypes.c_int(0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(number))
    return number.value


def restart(end_with_parent: int) -> None:
    """Become this program anew, without the pool's processes."""
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    if sys.platform == "linux":  # it is the thread's, and another's does not outlive exec
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, end_with_parent)
    os.execv(sys.executable, sys.orig_argv)
