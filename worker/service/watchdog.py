"""A watchdog in each worker: it kills processes that hang, returns the chunks of dead ones to the
queue, and restarts a worker that is stuck."""

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from billiard import active_children
from billiard.exceptions import WorkerLostError
from celery.signals import task_failure, worker_ready
from celery.utils.log import get_logger
from celery.worker import state

from digitq.protocol.app import CLASSIFY, CLASSIFY_IMAGE, app
from digitq.protocol.broker.connection import RetryingRedis, connect
from digitq.protocol.errors import BrokerError
from digitq.protocol.keys import lists_of
from digitq.protocol.ledger import Ledger
from digitq.worker.service.worker_log import log_death

IDLE_SECONDS = 60.0  # a process may hang, or a worker ignore the queue, for this long
TASKS = CLASSIFY, CLASSIFY_IMAGE  # their arguments are a job and the number of a chunk
PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2  # the options of prctl(2)

logger = get_logger(__name__)


class Watchdog(threading.Thread):
    """A thread of the worker's main process that works even if the event loop hangs.

    It kills a pool process that still hangs `IDLE_SECONDS` after its chunk was taken from it at the
    deadline; Celery starts another. It restarts the worker if all of this holds for `IDLE_SECONDS`:
    - a queue that it reads has messages, but none arrives
    - no task is running
    - Redis answers
    """

    def __init__(self) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._end_with_parent = parent_death_signal()
        self._hanging: dict[str, float] = {}  # when each request began to hang, by Celery's id
        self._taken = 0  # how many messages had arrived at the last look
        self._busy = time.monotonic()  # when the worker was last seen to be well

    def run(self) -> None:
        redis = connect(app.conf.digitq_database_url)
        while True:
            time.sleep(min(5, IDLE_SECONDS / 10))
            try:
                self._look(redis)
            except BrokerError:  # Celery connects again itself
                self._busy = time.monotonic()
                self._hanging.clear()
            except Exception:  # another thread may change Celery's sets during the look
                logger.exception("the watchdog could not look")

    def _look(self, redis: RetryingRedis) -> None:
        now, ledger = time.monotonic(), Ledger(redis)
        requests = [
            request
            for request in list(state.active_requests)
            if request.name in TASKS and len(request.args) == 2  # other tasks may have any form
        ]
        self._hanging = {
            request.id: self._hanging.get(request.id, now)
            for request in requests
            if not ledger.is_running(*request.args)
        }
        for request in requests:
            pid, since = request.worker_pid, self._hanging.get(request.id, now)
            if now - since > IDLE_SECONDS and pid not in (None, os.getpid()):
                where = "chunk {1} of job {0}".format(*request.args)
                logger.error("process %d hangs at %s: killing it", pid, where)
                os.kill(pid, signal.SIGKILL)
        taken = sum(state.total_count.values())
        # none if somebody has told the worker to take nothing
        lists = [name for queue in app.amqp.queues.consume_from for name in lists_of(queue)]
        is_busy = bool(state.active_requests) or taken != self._taken
        if is_busy or not lists or not redis.exists(*lists):
            self._busy = now
        self._taken = taken
        if now - self._busy > IDLE_SECONDS:
            logger.error("no message arrives, though the queue has some: restarting")
            restart(self._end_with_parent)


@task_failure.connect
def requeue_chunk(sender: Any, task_id: str, args: Any, exception: BaseException, **_: Any) -> None:
    """If a process of the pool died at a chunk, queue the chunk again before its deadline."""
    if sender.name in TASKS and isinstance(exception, WorkerLostError) and len(args) == 2:
        job_id, number = args
        # The log knows an image of another program by its task, as `log_chunk` does
        log_death(task_id if sender.name == CLASSIFY_IMAGE else job_id, number, exception)
        # if Redis is lost, the sweep does it
        with suppress(BrokerError), connect(app.conf.digitq_database_url) as redis:
            Ledger(redis).requeue(job_id, number, sender.request.hostname)


@worker_ready.connect
def start_watchdog(**_: Any) -> None:
    """Start the watchdog when the worker starts to read the queue."""
    Watchdog().start()


def parent_death_signal() -> int:
    """The signal that the kernel sends this thread when its parent ends; 0 for none."""
    number = ctypes.c_int(0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(number))
    return number.value


def restart(end_with_parent: int) -> None:
    """Replace this process by a new start of its program; the processes of its pool are killed."""
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    if sys.platform == "linux":  # exec keeps the signal of the calling thread only
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, end_with_parent)
    os.execv(sys.executable, sys.orig_argv)
