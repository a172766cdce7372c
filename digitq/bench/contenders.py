"""What `digitq bench` measures: ways to classify the same images with the same network."""

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from importlib.metadata import version
from itertools import chain, count
from operator import itemgetter
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
import PIL.Image
from celery import signature
from numpy.typing import NDArray

from digitq.backend import Backend, private_backend
from digitq.bench.rounds import Figures, Rows, rotate
from digitq.local.processes import Local, find_redis_server
from digitq.progress import take_results
from producer.sinks.files import FileSink
from producer.sources.batches import label_batches
from producer.sources.mnist import load_mnist
from producer.sources.opening import open_sources
from producer.sources.source import Source, take_first
from protocol.errors import DigitqError
from protocol.host.cores import usable_cores
from protocol.plain import PLAIN_CLASSIFY, make_plain_app
from protocol.text import plural

MODEL, SCALED_MODEL = "mlp", "cnn"
WORKERS = 2  # the same on every machine, as are torch's threads
CALLERS = 64
CALLS_IN_A_ROW = 200
MIN_IMAGES = 64
WARM_UP_IMAGES = 4096
# How torch's threads wait: spinning is faster, but on a busy machine it costs most of the speed.
WAIT_POLICIES = ("ACTIVE", "PASSIVE")
ANSWER_SECONDS = 60  # after so long, a worker of plain Celery is taken to be gone

Digits = NDArray[np.uint8]  # (784,)


class Bench(ExitStack):
    """What the contenders share: images, folders, private servers, each made when first asked for.

    A round's sizes go with `images`, which is the queue's. Leaving it takes all down.
    """

    def __init__(self, images: int) -> None:
        """Raises `UsageError` where MNIST can't be had."""
        super().__init__()
        self.images = images
        self.digits, self.labels = load_mnist("train")

    def part(self, divisor: int) -> int:
        """How many images a slower contender gets."""
        return max(MIN_IMAGES, self.images // divisor)

    @cached_property
    def folder(self) -> Path:
        """A temporary folder."""
        made = tempfile.TemporaryDirectory(prefix="digitq-bench-")
        return Path(self.enter_context(made))

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
    def backend(self) -> Backend:
        """Digitq's own workers, warm."""
        return self._serve(WORKERS)

    @cached_property
    def one_worker(self) -> Backend:
        return self._serve(1)

    def _serve(self, workers: int) -> Backend:
        local = self.enter_context(Local(workers))
        local.wait_until_ready()  # all of them; the service alone waits for the first
        backend = self.enter_context(private_backend(local))
        backend.client.submit(self.digits[:WARM_UP_IMAGES].reshape(-1, 28, 28), MODEL).table()
        return backend

    @cached_property
    def plain(self) -> Any:
        """The task of plain Celery, as a signature, with as many workers behind it, warm."""
        local = self.enter_context(Local(WORKERS, app="worker.plain"))
        local.wait_until_ready()
        task = signature(PLAIN_CLASSIFY, app=make_plain_app(local.url))
        task.delay(self.digits[0].tolist()).get(timeout=ANSWER_SECONDS)
        return task

    def classify(self, backend: Backend, source: Source, name: str, model: str = MODEL) -> Figures:
        """A source to a result file, as `digitq classify` does it."""
        sink = FileSink(self.folder / name, {}, overwrite=True)
        job = backend.client.submit_source(source, model)
        done, seconds = take_results(backend, job, sink, source.count)
        return {"images_per_second": done / seconds}

    def repeat_mnist(self, images: int) -> Source:
        """The training images, again and again, each time under ids of their own."""
        batches = chain.from_iterable(
            label_batches(f"mnist/{turn}/", self.digits, self.labels) for turn in count()
        )
        return Source("mnist", take_first(batches, images), True, lambda: images)


def measure_torch(bench: Bench) -> Rows:
    return {"torch": _run_torch("torch", str(bench.images))}


def measure_queue(bench: Bench) -> Rows:
    """Arrays to CSV; memory is the peak, until now, of this process and of Redis."""
    figures = bench.classify(bench.backend, bench.repeat_mnist(bench.images), "queue.csv")
    peak = bench.backend.client.ledger.redis.info("memory")["used_memory_peak"]
    return {
        "queue": figures | {"producer_mb": _peak_bytes() / 2**20, "redis_mb": peak / 2**20},
    }


def measure_parquet(bench: Bench) -> Rows:
    source = bench.repeat_mnist(bench.images)
    return {"queue (parquet)": bench.classify(bench.backend, source, "queue.parquet")}


def measure_celery(bench: Bench) -> Rows:
    """All tasks sent, then all answers taken."""
    plain, digits = bench.plain, bench.digits[: bench.part(400)]
    started = time.perf_counter()
    results = [plain.delay(pixels.tolist()) for pixels in digits]
    for result in results:
        result.get(timeout=ANSWER_SECONDS)
    return {"celery": {"images_per_second": len(digits) / (time.perf_counter() - started)}}


def measure_dataloader(bench: Bench) -> Rows:
    return {"dataloader": _run_torch("dataloader", str(bench.part(10)))}


def measure_folder(bench: Bench) -> Rows:
    source = open_sources([str(bench.pngs)], truth_from_parent=True)
    return {"folder": bench.classify(bench.backend, source, "folder.csv")}


def measure_image_folder(bench: Bench) -> Rows:
    return {"folder (ImageFolder)": _run_torch("image-folder", str(bench.pngs))}


def measure_latency(bench: Bench) -> Rows:
    """One caller and one image at a time, some calls of ours and some of plain Celery's in turn.

    Call by call, each would find the processor's caches full of the other.
    """
    client, plain = bench.backend.client, bench.plain
    calls: dict[str, Callable[[Digits], object]] = {
        "latency": lambda pixels: client.classify(pixels.reshape(28, 28), MODEL),
        "latency (celery)": lambda pixels: plain.delay(pixels.tolist()).get(timeout=ANSWER_SECONDS),
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in calls}
    digits = bench.digits[: bench.part(1000)]
    for number, start in enumerate(range(0, len(digits), CALLS_IN_A_ROW)):
        for name, call in rotate(list(calls.items()), number):
            for pixels in digits[start : start + CALLS_IN_A_ROW]:
                started = time.perf_counter()
                call(pixels)
                milliseconds[name].append(1000 * (time.perf_counter() - started))
    return {name: describe_latencies(values) for name, values in milliseconds.items()}


def measure_concurrent(bench: Bench) -> Rows:
    """Many callers in threads of this process, each with one image at a time."""
    digits = bench.digits[: bench.part(100)].reshape(-1, 28, 28)
    client = bench.backend.client
    return {"concurrent": time_callers(lambda image: client.classify(image, MODEL), digits)}


def measure_coroutines(bench: Bench) -> Rows:
    """As many in one event loop."""
    digits = np.array(bench.digits[: bench.part(100)]).reshape(-1, 28, 28)
    client = bench.backend.client

    async def call_each(part: NDArray[np.uint8]) -> None:
        for image in part:
            await client.classify_async(image, MODEL)

    async def call_all() -> None:
        await asyncio.gather(*(call_each(digits[caller::CALLERS]) for caller in range(CALLERS)))

    started = time.perf_counter()
    asyncio.run(call_all())
    rate = len(digits) / (time.perf_counter() - started)
    return {"concurrent (asyncio)": {"images_per_second": rate}}


def time_callers(call: Callable[[NDArray[np.uint8]], object], images: NDArray[np.uint8]) -> Figures:
    """The images shared out to `CALLERS` threads, each with one call at a time."""
    own = np.array(images)  # of a mapped file, each view costs a call into Python
    parts = [[*own[caller::CALLERS]] for caller in range(CALLERS)]
    with ThreadPoolExecutor(CALLERS) as callers:
        started = time.perf_counter()
        list(callers.map(lambda part: [call(image) for image in part], parts))
        return {"images_per_second": len(images) / (time.perf_counter() - started)}


def measure_scale(bench: Bench) -> Rows:
    source = bench.repeat_mnist(bench.part(15))
    return {"scale": bench.classify(bench.backend, source, "scale.csv", SCALED_MODEL)}


def measure_one_worker(bench: Bench) -> Rows:
    source = bench.repeat_mnist(bench.part(15))
    figures = bench.classify(bench.one_worker, source, "scale.csv", SCALED_MODEL)
    return {"scale (one worker)": figures}


CONTENDERS: dict[str, tuple[Callable[[Bench], Rows], ...]] = {
    "torch": (measure_torch,),
    "queue": (measure_queue, measure_parquet),
    "celery": (measure_celery,),
    "dataloader": (measure_dataloader,),
    "folder": (measure_folder, measure_image_folder),
    "latency": (measure_latency,),
    "concurrent": (measure_concurrent, measure_coroutines),
    "scale": (measure_scale, measure_one_worker),
}


def describe_machine() -> str:
    """Cores and versions, on which every figure depends."""
    said = subprocess.run([find_redis_server(), "--version"], capture_output=True, text=True)
    redis = re.search(r"v=([0-9.]+)", said.stdout)
    packages = ", ".join(f"{name} {version(name)}" for name in ("digitq", "torch", "celery"))
    return (
        f"{plural(usable_cores(), 'core')}, Python {python_version()}, {packages}, "
        f"Redis {redis[1] if redis else 'of an unknown version'}"
    )


def _run_torch(*arguments: str) -> Figures:
    """What `worker.bench` measures, in a process of its own: torch stays out of this one.

    The better of two runs, whose threads wait in different ways.
    """
    runs = [_run_torch_once(policy, *arguments) for policy in WAIT_POLICIES]
    return max(runs, key=itemgetter("images_per_second"))


def _run_torch_once(policy: str, *arguments: str) -> Figures:
    command = [sys.executable, "-P", "-m", "worker.bench", *arguments]
    environment = os.environ | {"OMP_WAIT_POLICY": policy, "MKL_CBWR": "OFF"}  # as others run it
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it failed"])[-1]
        raise DigitqError(f"bench {arguments[0]}: {reason.removeprefix('digitq: ')}")
    figures: Figures = json.loads(done.stdout)
    return figures


def describe_latencies(milliseconds: list[float]) -> Figures:
    """Their median and their 99th percentile."""
    median, slow = np.percentile(milliseconds, [50, 99])
    return {"median_ms": float(median), "p99_ms": float(slow)}


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
