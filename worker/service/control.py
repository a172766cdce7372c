"""The answer of a worker's main process to `digitq doctor`.

No tensor may be made here: torch must not be used before the pool is forked.
"""

import os
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from celery.worker.control import inspect_command

from protocol.celery import STATS, WorkerStats
from protocol.errors import DigitqError
from protocol.host.cores import MEMBERSHIP, read_text, usable_cores, usable_cpus
from protocol.ledger import QUEUE
from protocol.settings import ALL_MODELS, settings
from worker.models.card import card_path, fingerprint
from worker.models.model import TORCH_THREADS, read_weights
from worker.service.identity import describe_builds

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # the same in all containers of a machine


@inspect_command(name=STATS)
def answer_stats(state: Any) -> dict[str, Any]:
    """This worker's `WorkerStats`, as a dictionary."""
    host = platform.node()
    return asdict(
        WorkerStats(
            version=version("digitq"),
            torch=describe_builds(),
            machine=read_text(BOOT_ID).strip() or host,
            machine_cores=os.cpu_count() or 1,
            share=f"{host} {usable_cpus()} {read_text(MEMBERSHIP)}",
            cores=usable_cores(),
            processes=state.consumer.pool.num_processes,
            threads=TORCH_THREADS,
            takes_work=QUEUE in state.app.amqp.queues.consume_from,
            models={name: find_fault(name) for name in ALL_MODELS},
            cards={name: fingerprint(name) for name in ALL_MODELS},
            deadline_seconds=settings().deadline_seconds,
            time=time.time(),
        )
    )


def find_fault(model: str) -> str | None:
    """Why the model can't be used; None if it can."""
    try:
        if model != "random":  # its weights are in no file
            read_weights(card_path(model))
    except DigitqError as error:
        return str(error)
    return None
