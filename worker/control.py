"""The question that `digitq doctor` asks a worker, answered by its main process.

No tensor is made here: torch must stay unused until the pool is forked.
"""

import os
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from celery.worker.control import inspect_command

from protocol.errors import DigitqError
from protocol.host.cores import MEMBERSHIP, usable_cores, usable_cpus
from protocol.ledger import QUEUE
from protocol.settings import MODELS, settings
from protocol.stats import STATS, WorkerStats
from worker.models.card import fingerprint
from worker.models.fast import has_byte_products
from worker.models.model import TORCH_THREADS, check_model

BOOT = Path("/proc/sys/kernel/random/boot_id")  # containers see their machine's


@inspect_command(name=STATS)
def answer_stats(state: Any) -> dict[str, Any]:
    """What this worker is and has, as a `WorkerStats`."""
    host = platform.node()
    groups = MEMBERSHIP.read_text(errors="replace") if MEMBERSHIP.exists() else ""
    return asdict(
        WorkerStats(
            version=version("digitq"),
            torch=f"{torch.__version__} {describe_processor()}",
            machine=BOOT.read_text().strip() if BOOT.exists() else host,
            machine_cores=os.cpu_count() or 1,
            share=f"{host} {usable_cpus()} {groups}",
            cores=usable_cores(),
            processes=state.consumer.pool.num_processes,
            threads=TORCH_THREADS,
            takes_work=QUEUE in state.app.amqp.queues.consume_from,
            models={name: find_fault(name) for name in MODELS},
            cards={name: fingerprint(name) for name in MODELS},
            deadline_seconds=settings().deadline_seconds,
            time=time.time(),
        )
    )


def describe_processor() -> str:
    """What of its instructions decides the last bits of an answer."""
    return torch.backends.cpu.get_cpu_capability() + (" VNNI" if has_byte_products() else "")


def find_fault(model: str) -> str | None:
    """Why the model can't be used; None where it can."""
    try:
        check_model(model)
    except DigitqError as error:
        return str(error)
    return None
