"""Plain Celery and the loops of torch's tutorials, measured as the load test measures digitq."""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from celery import signature
from celery.result import ResultSet
from numpy.typing import NDArray

import digitq
from benchmarks.deployment.measures import (
    BENCH_MODEL,
    WORKERS,
    Bench,
    describe_latencies,
    measure_alone,
    run_alone,
    time_calls,
)
from benchmarks.rivals.plain_celery import PLAIN_BATCH_TASK, PLAIN_TASK, make_plain_app
from benchmarks.rounds import Ratios, Rows, rotate
from digitq.private.processes import Local
from digitq.producer.sources.opening import open_sources
from digitq.protocol.chunk import CLASSES

CALLS_IN_A_ROW = 200  # one program calls this often before the other one does
PLAIN_BATCH_ROWS = 64  # images in a task of plain Celery that takes batches
PLAIN_ANSWER_SECONDS = 60  # without an answer for so long, a worker of plain Celery has died
RIVAL_RATIOS: Ratios = {
    "queue": {"of_torch": "torch", "of_celery": "celery", "of_batches": "celery (batches)"},
    "queue (parquet)": {"of_torch": "torch", "of_csv": "queue"},
    "celery": {"of_torch": "torch"},
    "celery (batches)": {"of_torch": "torch", "of_celery": "celery"},
    "dataloader": {"of_torch": "torch"},
    "folder": {"of_torch": "torch", "of_imagefolder": "folder (ImageFolder)"},
    "folder (ImageFolder)": {"of_torch": "torch"},
    "latency": {"of_celery": "latency (celery)"},
    "concurrent": {"of_torch": "torch", "of_celery": "celery"},
    "concurrent (asyncio)": {"of_torch": "torch", "of_celery": "celery"},
}


class Rivals(Bench):
    """What the measurements share: digitq's own workers, those of plain Celery, and PNG files."""

    @cached_property
    def pngs(self) -> Path:
        """A folder of PNG files, each in a folder named by its digit."""
        root = self.folder / "pngs"
        for digit in range(10):
            (root / str(digit)).mkdir(parents=True)
        for number in range(min(self.part(10), len(self.digits))):
            image = PIL.Image.fromarray(self.digits[number].reshape(28, 28))
            image.save(root / str(self.labels[number]) / f"{number}.png")
        return root

    @cached_property
    def plain(self) -> Any:
        """The task of plain Celery, with as many workers as digitq has, warm."""
        local = self.enter_context(Local(WORKERS, app="benchmarks.rivals.plain_celery"))
        local.wait_until_ready()
        task = signature(PLAIN_TASK, app=make_plain_app(local.url))
        task.delay(self.digits[0].tolist()).get(timeout=PLAIN_ANSWER_SECONDS)
        return task


def measure_torch(bench: Rivals) -> Rows:
    """The network alone: the `network` of the load test."""
    return {"torch": measure_alone(bench)["network"]}


def measure_celery(bench: Rivals) -> Rows:
    """All tasks are sent, then all answers are taken."""
    plain, digits = bench.plain, bench.digits[: bench.part(400)]
    started = time.perf_counter()
    results = [plain.delay(pixels.tolist()) for pixels in digits]
    for result in results:
        result.get(timeout=PLAIN_ANSWER_SECONDS)
    return {"celery": {"images_per_second": len(digits) / (time.perf_counter() - started)}}


def measure_celery_batches(bench: Rivals) -> Rows:
    """All batches are sent, then all answers are taken."""
    classify_batch = signature(PLAIN_BATCH_TASK, app=bench.plain.app)
    digits = np.array(bench.digits[: bench.part(10)])
    started = time.perf_counter()
    starts = range(0, len(digits), PLAIN_BATCH_ROWS)
    results = ResultSet(
        [classify_batch.delay(digits[at : at + PLAIN_BATCH_ROWS].tobytes()) for at in starts],
        app=classify_batch.app,
    )
    answers = b"".join(results.join_native(timeout=PLAIN_ANSWER_SECONDS))
    seconds = time.perf_counter() - started
    assert np.frombuffer(answers, np.float32).reshape(-1, CLASSES).shape[0] == len(digits)
    return {"celery (batches)": {"images_per_second": len(digits) / seconds}}


def measure_dataloader(bench: Rivals) -> Rows:
    """The tutorials' loop over `datasets.MNIST`."""
    return {"dataloader": _run_loop("dataloader", bench.part(10))}


def measure_folder(bench: Rivals) -> Rows:
    """PNG files to CSV, by digitq."""
    source = open_sources([str(bench.pngs)], truth_from_parent=True)
    return {"folder": bench.classify(bench.client, source, "folder.csv")}


def measure_image_folder(bench: Rivals) -> Rows:
    """Read these PNG files by `ImageFolder` and a `DataLoader`; nothing is written."""
    return {"folder (ImageFolder)": _run_loop("image-folder", bench.pngs)}


def measure_latencies(bench: Rivals) -> Rows:
    """One caller with one image at a time: digitq and plain Celery in turn.

    They do not take turns at each call: it would find the processor's caches full of the other's.
    """
    client, plain = bench.client, bench.plain
    calls: dict[str, Callable[[NDArray[np.uint8]], object]] = {
        "latency": lambda pixels: client.classify(
            pixels.reshape(28, 28), digitq.digits(BENCH_MODEL)
        ),
        "latency (celery)": lambda pixels: plain.delay(pixels.tolist()).get(PLAIN_ANSWER_SECONDS),
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in calls}
    digits = bench.digits[: bench.part(1000)]
    for number, start in enumerate(range(0, len(digits), CALLS_IN_A_ROW)):
        for name, call in rotate(list(calls.items()), number):
            milliseconds[name] += time_calls(call, digits[start : start + CALLS_IN_A_ROW])
    return {name: describe_latencies(values) for name, values in milliseconds.items()}


def _run_loop(loop: str, source: object) -> dict[str, float]:
    return run_alone("benchmarks.rivals.torch_alone", loop, source, BENCH_MODEL, WORKERS)
