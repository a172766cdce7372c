"""Where a worker's processor time goes: the real task on chunks of MNIST arrays.

`python -m benchmarks.task [--model NAME] [--workers N] [--port PORT]` prints µs an image for each
part of the task, and the share of all that is not the network. One worker for each core runs at the
same time, over a private Redis; the figures are their mean. Arrays need no decoding, and Celery's
main process is not measured. With a port, Redis is reached over TCP, else over a Unix socket.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from statistics import mean, median
from typing import Any
from unittest.mock import patch

from digitq.private.processes import Local
from digitq.producer.sources.arrays import label_batches
from digitq.protocol.app import app
from digitq.protocol.broker.connection import connect
from digitq.protocol.chunk import Chunk, untimed_rows
from digitq.protocol.formats.mnist import load_mnist
from digitq.protocol.host.cores import usable_cores
from digitq.protocol.ledger import Ledger
from digitq.protocol.records import JobSpec
from digitq.protocol.settings import MODELS
from digitq.worker import classify, tasks
from digitq.worker.celery import keep_freed_memory
from digitq.worker.models.model import Model

TASK_ROUNDS = 7  # the first only warms up and does not count
TASK_PARTS = {  # by its name in the table: the owner of the function that is timed, and its name
    "begin": (Ledger, "begin"),
    "open the chunk": (Chunk, "decode"),
    "pixels": (classify, "read_pixels"),
    "network": (Model, "classify"),
    "result": (classify, "build_result"),
    "write the result": (tasks, "encode"),
    "complete": (Ledger, "complete"),
}
ALL = "all"
Seconds = dict[str, float]  # by part
start: Barrier  # workers wait here, so that none is measured while another stores its chunks


def timed(part: str, function: Callable[..., Any], seconds: Seconds) -> Callable[..., Any]:
    """The function, which adds the processor time that it takes to its part of `seconds`."""

    def call(*args: Any, **options: Any) -> Any:
        started = time.thread_time()
        try:
            return function(*args, **options)
        finally:
            seconds[part] += time.thread_time() - started

    return call


@contextmanager
def watched(seconds: Seconds) -> Iterator[Callable[[str, int], str]]:
    """The task with all its parts timed."""
    with ExitStack() as stack:
        for part, (owner, name) in TASK_PARTS.items():
            call = timed(part, getattr(owner, name), seconds)
            stack.enter_context(patch.object(owner, name, call))
        yield timed(ALL, tasks.classify, seconds)


def meet_at(barrier: Barrier) -> None:
    """Prepare a process of the pool."""
    global start
    start = barrier


def measure(url: str, model: str, job: str) -> Seconds:
    """Seconds an image: the median of the rounds, each of all full chunks of MNIST."""
    keep_freed_memory()
    app.conf.digitq_database_url = url
    ledger = Ledger(connect(url))
    images, labels = load_mnist("train")
    rows = untimed_rows(model)
    chunks = len(images) // rows
    spec = JobSpec(job, model, "mnist", attached=True, in_flight=TASK_ROUNDS * chunks, ttl=3600)
    ledger.open(spec)
    rounds = []
    for first in range(0, TASK_ROUNDS * chunks, chunks):
        for place in range(chunks):
            part = slice(place * rows, (place + 1) * rows)
            (batch,) = label_batches("mnist/", images[part], labels[part])
            payload = Chunk(part.start, batch).encode()
            ledger.dispatch(spec, (0, 0), first + place, rows, payload)
        seconds: Seconds = defaultdict(float)
        start.wait()
        with watched(seconds) as task:
            for number in range(first, first + chunks):
                task(job, number)
        rounds.append(seconds)
    parts = {part: median(seconds[part] for seconds in rounds[1:]) for part in (*TASK_PARTS, ALL)}
    return {part: spent / chunks / rows for part, spent in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="mlp")
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    jobs = [f"job{number}" for number in range(max(1, options.workers))]
    context = get_context("spawn")
    with (
        Local(workers=0, port=options.port) as local,
        ProcessPoolExecutor(len(jobs), context, meet_at, (context.Barrier(len(jobs)),)) as pool,
    ):
        measured = list(pool.map(partial(measure, local.url, options.model), jobs))
    seconds = {part: mean(one[part] for one in measured) for part in (*TASK_PARTS, ALL)}
    seconds["the rest"] = 2 * seconds[ALL] - sum(seconds.values())
    for part in sorted(seconds, key=lambda part: -seconds[part]):
        share = seconds[part] / seconds[ALL]
        print(f"{part:20}{1e6 * seconds[part]:8.3f} µs an image{share:8.1%}")
    print(f"not the network: {1 - seconds['network'] / seconds[ALL]:.1%}")


if __name__ == "__main__":
    main()
