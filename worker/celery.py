"""The worker's Celery app: `celery -A digitq.worker worker`."""
# ruff: noqa: E402 (imports below `gc.disable()`)

import ctypes
import gc
import logging
import os
import sys
from contextlib import suppress
from typing import Any

is_collecting = gc.isenabled()
gc.disable()  # while modules are imported, which stay: to search them for garbage takes 0.3 s

import pyarrow as pa
from celery import bootsteps
from celery.signals import celeryd_init, worker_process_init
from celery.utils.log import get_logger
from celery.worker.consumer.gossip import Gossip
from celery.worker.consumer.mingle import Mingle
from kombu.transport import TRANSPORT_ALIASES

from digitq.protocol.app import app, result_options, sentinel_options
from digitq.protocol.broker.address import read_address
from digitq.protocol.broker.connection import connect, refuse_unusable
from digitq.protocol.chunk import PIXELS, PIXELS_FIELD, Chunk, encode
from digitq.protocol.errors import BrokerError, DigitqError, UnknownJobError, UsageError
from digitq.protocol.host.cores import usable_cores
from digitq.protocol.host.process import MALLOC_MMAP_BYTES, MALLOC_TRIM_BYTES, leave_pandas_out
from digitq.protocol.ledger import Ledger
from digitq.protocol.settings import DEFAULT_BROKER, settings
from digitq.worker.service.heartbeat_threads import Connected, Heartbeat
from digitq.worker.service.intake import Intake
from digitq.worker.service.worker_log import log_end

if is_collecting:
    gc.enable()
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # the options of mallopt(3)

logger = get_logger(__name__)

# This process uses the first for `redis://`, `rediss://` and `redis+socket://`
TRANSPORT_ALIASES.update(
    dict.fromkeys(("redis", "rediss"), "digitq.worker.service.transport:Transport")
)
TRANSPORT_ALIASES["sentinel"] = "digitq.worker.service.transport:SentinelTransport"
app.conf.update(
    # On macOS the pool's processes are not forks, and import only these modules
    include=[f"digitq.worker.{name}" for name in ("celery", "tasks", "images", "service.watchdog")],
    # The ledger is in this Redis; Celery and Flower mask settings with DATABASE in their names
    digitq_database_url=settings().broker_url or DEFAULT_BROKER,
    worker_proc_alive_timeout=120,  # seconds; torch and the weights may load slowly
    # Nothing is acknowledged late; but if this is unset, Celery warns whenever Redis is lost
    worker_cancel_long_running_tasks_on_connection_loss=True,
)


class Sweeper(bootsteps.StartStopStep):
    """Queues overdue chunks again and logs the end of jobs, on the worker's timer: one worker each
    time."""

    def start(self, parent: Any) -> None:
        ledger = Ledger(connect(app.conf.digitq_database_url))
        seconds = min(1.0, settings().deadline_seconds / 3)

        def sweep() -> None:
            try:
                if ledger.sweep(settings().deadline_seconds, 0.9 * seconds):
                    log_ends(ledger)
            except BrokerError as error:
                logger.warning("no sweep: %s", error)

        parent.timer.call_repeatedly(seconds, sweep)


# Workers have nothing to tell each other; with gossip, they end in a traceback if Redis is lost
Gossip.compatible_transports = Mingle.compatible_transports = set()
app.steps["worker"].update((Sweeper, Heartbeat, Intake))
app.steps["consumer"].add(Connected)


def log_ends(ledger: Ledger) -> None:
    """Log the end of the jobs that have ended, and forget each only then: this worker may die."""
    while job_id := ledger.next_ended():
        with suppress(UnknownJobError):  # it has expired since
            if not log_end(ledger.record(job_id)):
                return  # other workers may log it; failures come first
        ledger.forget_ended(job_id)


@worker_process_init.connect
@celeryd_init.connect
def import_no_pandas(**_: Any) -> None:
    """Runs in each process, since those of the pool may be no forks."""
    leave_pandas_out()


@celeryd_init.connect
def prepare_worker(conf: Any, **_: Any) -> None:
    """Runs before the fork. Without `--concurrency`, the pool gets a process for each GPU, or for
    each core if there is no GPU."""
    from digitq.worker.models.card import card_path
    from digitq.worker.models.model import count_gpus

    sys.argv = sys.orig_argv[1:]  # Celery restarts with these at SIGHUP
    if settings().log_format == "json":
        logging.captureWarnings(True)  # there is no log yet, and stderr is for JSON only
    try:
        follow_celery(conf)
        refuse_unusable(conf.digitq_database_url)
        card_path(settings().model)
        conf.worker_concurrency = count_gpus() or usable_cores()
    except DigitqError as error:  # Celery would log it and go on
        print(f"digitq: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 3)
    gc.freeze()  # else all modules would be searched again as this process ends


def follow_celery(conf: Any) -> None:
    """Have the ledger use Celery's broker. Raises `UsageError` if the settings name another one."""
    origin = "-b, BROKER_URL or CELERY_BROKER_URL"
    own = read_address(conf.digitq_database_url)
    if conf.broker_read_url == own.celery_url:
        return
    named = read_address(conf.broker_read_url, origin)
    if named != own and settings().broker_url:
        raise UsageError(f"{origin} names another broker than DIGITQ_BROKER_URL: leave one out")
    conf.digitq_database_url = named.redis_url
    conf.broker_transport_options.update(sentinel_options(named))
    conf.update(result_options(named))
    os.environ["DIGITQ_BROKER_URL"] = named.redis_url  # for processes that are not forks
    os.environ["CELERY_BROKER_URL"] = named.celery_url  # kombu reads some URLs differently


def keep_freed_memory() -> None:
    """Have glibc keep the memory of a chunk for the next one. With the same setting for the private
    Redis, this makes a job of `mlp` 7 % faster in a virtual machine."""
    with suppress(AttributeError):  # another C library has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MALLOC_MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, MALLOC_TRIM_BYTES)


@worker_process_init.connect
def prepare_process(**_: Any) -> None:
    """Runs after the fork: one thread for each process, and the default model loaded and warm."""
    import torch

    from digitq.worker.classify import classify_chunk
    from digitq.worker.models.model import TORCH_THREADS

    torch.set_num_threads(TORCH_THREADS)
    keep_freed_memory()
    rows = 256
    pixels = pa.array([bytes(PIXELS)] * rows, PIXELS_FIELD.type)
    batch = pa.record_batch({"id": [""] * rows, PIXELS_FIELD.name: pixels})
    encode(classify_chunk(Chunk(0, batch), settings().model))
