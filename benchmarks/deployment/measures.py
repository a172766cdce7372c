"""What the load test measures: the network alone, and the workers under several loads."""

import asyncio
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from operator import itemgetter
from pathlib import Path
from platform import python_version

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from benchmarks.rounds import Measured, Ratios, Rows
from digitq.backend import LocalClient, open_client, take_results
from digitq.producer.client import Client
from digitq.producer.sinks.resumable import FileSink
from digitq.producer.sources.arrays import label_batches
from digitq.producer.sources.source import Entry, Source, take_first
from digitq.protocol.asked.reading import Reading, digits, numbers
from digitq.protocol.broker.address import read_address, without_password
from digitq.protocol.errors import DigitqError
from digitq.protocol.formats.mnist import load_mnist
from digitq.protocol.host.cores import usable_cores
from digitq.protocol.prediction import Answer
from digitq.protocol.settings import NUMBER
from digitq.protocol.text import plural
from digitq.terminal import find_missing

BENCH_MODEL, SCALE_MODEL = "mlp", "cnn"
WORKERS = 2  # private workers on every machine; the network alone has as many threads
CALLERS = 64  # threads or coroutines that call at the same time
MIN_IMAGES = 64  # every measurement gets at least as many images
WARM_UP_IMAGES = 4096  # images that the workers classify before anything is measured
# Torch's threads are faster if they spin while they wait, but much slower if the machine is busy
WAIT_POLICIES = ("ACTIVE", "PASSIVE")
Call = Callable[[NDArray[np.uint8]], object]
RATIOS: Ratios = {
    "queue": {"of_network": "network"},
    "queue (parquet)": {"of_network": "network", "of_csv": "queue"},
    "concurrent": {"of_network": "network"},
    "concurrent (asyncio)": {"of_network": "network"},
    "scale": {"of_one_worker": "scale (one worker)"},
    "numbers": {"of_network": "numbers (network)"},
}


class Bench(ExitStack):
    """The images, the workers and a temporary folder, each made when it is first asked for.

    `images` go through the queue in one round. Without a `broker`, the workers are private.
    """

    def __init__(self, images: int, broker: str | None = None) -> None:
        """Raises `UsageError` if MNIST can't be had, or for a broker that is not one Redis."""
        super().__init__()
        if broker:
            read_address(broker)
        self.images = images
        self.broker = broker
        self.digits, self.labels = load_mnist("train")

    def part(self, divisor: int) -> int:
        """The number of images for a measurement that is `divisor` times as slow as the queue."""
        return max(MIN_IMAGES, self.images // divisor)

    @cached_property
    def folder(self) -> Path:
        return Path(self.enter_context(tempfile.TemporaryDirectory(prefix="digitq-bench-")))

    @cached_property
    def client(self) -> Client:
        """The workers that are measured, warm."""
        return self._start(WORKERS)

    @cached_property
    def one_worker(self) -> Client:
        """A Redis of its own with one private worker, warm."""
        return self._start(1)

    def _start(self, workers: int) -> Client:
        client = self.enter_context(open_client(self.broker, None if self.broker else workers))
        if isinstance(client, LocalClient):
            client.processes.wait_until_ready()
        self.classify(client, self.repeat_mnist(WARM_UP_IMAGES), "warm-up.csv")
        return client

    def classify(
        self,
        client: Client,
        source: Source,
        name: str,
        reading: Reading[Answer] | None = None,
    ) -> Measured:
        """Classify a source into the result file `name`, as `digitq classify` does."""
        sink = FileSink(self.folder / name, {}, overwrite=True)
        job = client.submit_source(source, reading or digits(BENCH_MODEL))
        take_results(client, job, sink, source.count)
        return {"images_per_second": sink.parts[-1].images_per_second}

    def repeat_mnist(self, images: int) -> Source:
        """The training images, repeated until there are enough; each has an id of its own."""
        batches = chain.from_iterable(
            label_batches(f"mnist/{turn}/", self.digits, self.labels) for turn in count()
        )
        return Source("mnist", take_first(batches, images), True, lambda: images)

    def draw_fields(self, count: int) -> Source:
        """PNG files of 300×100 px with a number of five MNIST digits each, dark on light."""
        firsts = range(0, 5 * count, 5)
        entries = [Entry(f"{first}.png", partial(self._draw_field, first)) for first in firsts]
        return Source("fields", entries, count=lambda: count)

    def _draw_field(self, first: int) -> bytes:
        digits = self.digits[np.arange(first, first + 5) % len(self.digits)].reshape(-1, 28, 28)
        field = np.full((100, 300), 255, np.uint8)
        field[22:78, 10:290] -= np.hstack([*digits]).repeat(2, axis=0).repeat(2, axis=1)
        file = io.BytesIO()
        PIL.Image.fromarray(field).save(file, "PNG")
        return file.getvalue()

    @property
    def call(self) -> Call:
        """Classifies one image, (784,) pixels, as a single call."""
        classify, reading = self.client.classify, digits(BENCH_MODEL)
        return lambda pixels: classify(pixels.reshape(28, 28), reading)

    def describe(self) -> str:
        """What every figure depends on: cores, versions, and whose workers are measured."""
        redis = self.client.ledger.redis
        whose = f"of {without_password(redis.url)}" if self.broker else f"{WORKERS} private workers"
        versions = [f"Python {python_version()}"]
        for package in ("digitq", "torch", "celery"):
            with suppress(PackageNotFoundError):
                versions.append(f"{package} {version(package)}")
        versions.append(f"Redis {redis.info('server')['redis_version']}")
        return f"{plural(usable_cores(), 'core')}, {', '.join(versions)}, {whose}"


def measure_alone(bench: Bench) -> Rows:
    """The network in one process of this machine."""
    return {"network": run_alone("benchmarks.network_alone", BENCH_MODEL, bench.images, WORKERS)}


def measure_queue(bench: Bench) -> Rows:
    """Arrays to CSV, with the peak memory of this process and of a private Redis until now."""
    figures = bench.classify(bench.client, bench.repeat_mnist(bench.images), "queue.csv")
    unit = 1 if sys.platform == "darwin" else 1024
    figures["producer_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    if isinstance(bench.client, LocalClient):
        memory = bench.client.ledger.redis.info("memory")
        figures["redis_mb"] = memory["used_memory_peak"] / 2**20
    return {"queue": figures}


def measure_parquet(bench: Bench) -> Rows:
    """Arrays to Parquet."""
    source = bench.repeat_mnist(bench.images)
    return {"queue (parquet)": bench.classify(bench.client, source, "queue.parquet")}


def measure_latency(bench: Bench) -> Rows:
    """One caller with one image at a time."""
    return {"latency": describe_latencies(time_calls(bench.call, bench.digits[: bench.part(1000)]))}


def measure_concurrent(bench: Bench) -> Rows:
    """Threads of this process, each with one image at a time."""
    return {"concurrent": time_callers(bench.call, bench.digits[: bench.part(100)])}


def measure_coroutines(bench: Bench) -> Rows:
    """Coroutines of one event loop, each with one image at a time."""
    client = bench.client
    images = np.array(bench.digits[: bench.part(100)]).reshape(-1, 28, 28)
    reading = digits(BENCH_MODEL)

    async def call_each(part: NDArray[np.uint8]) -> None:
        for image in part:
            await client.classify_async(image, reading)

    async def call_all() -> None:
        await asyncio.gather(*(call_each(images[caller::CALLERS]) for caller in range(CALLERS)))

    started = time.perf_counter()
    asyncio.run(call_all())
    rate = len(images) / (time.perf_counter() - started)
    return {"concurrent (asyncio)": {"images_per_second": rate}}


def measure_scale(bench: Bench) -> Rows:
    """The cnn with all workers and, if they are private, with one worker."""
    clients = {"scale": bench.client}
    if isinstance(bench.client, LocalClient):
        clients["scale (one worker)"] = bench.one_worker
    rows: Rows = {}
    for name, client in clients.items():
        source = bench.repeat_mnist(bench.part(15))
        rows[name] = bench.classify(client, source, "scale.csv", digits(SCALE_MODEL))
    return rows


def measure_numbers(bench: Bench) -> Rows:
    """Whole numbers in PNG files, and their network alone if it is installed here."""
    count = bench.part(600)
    fields = bench.draw_fields(count)
    figures = bench.classify(bench.client, fields, "numbers.csv", numbers())
    rows = {"numbers": figures}
    if not find_missing("worker"):
        rows["numbers (network)"] = run_alone("benchmarks.network_alone", NUMBER, count, WORKERS)
    return rows


MEASURES: dict[str, tuple[Callable[[Bench], Rows], ...]] = {
    "network": (measure_alone,),
    "queue": (measure_queue, measure_parquet),
    "latency": (measure_latency,),
    "concurrent": (measure_concurrent, measure_coroutines),
    "scale": (measure_scale,),
    "numbers": (measure_numbers,),
}


def time_calls(call: Call, images: NDArray[np.uint8]) -> list[float]:
    """Milliseconds of one call after the other, one for each image."""
    milliseconds = []
    for image in images:
        started = time.perf_counter()
        call(image)
        milliseconds.append(1000 * (time.perf_counter() - started))
    return milliseconds


def time_callers(call: Call, images: NDArray[np.uint8]) -> Measured:
    """The images shared out to `CALLERS` threads, each with one call at a time."""
    own = np.array(images)  # a view of a memory-mapped file is slower to slice
    parts = [[*own[caller::CALLERS]] for caller in range(CALLERS)]
    with ThreadPoolExecutor(CALLERS) as callers:
        started = time.perf_counter()
        list(callers.map(lambda part: [call(image) for image in part], parts))
        return {"images_per_second": len(images) / (time.perf_counter() - started)}


def describe_latencies(milliseconds: list[float]) -> Measured:
    """The median and the 99th percentile."""
    median, slow = np.percentile(milliseconds, [50, 99])
    return {"median_ms": float(median), "p99_ms": float(slow)}


def run_alone(module: str, *arguments: object) -> Measured:
    """The faster of two runs of a module that measures torch, each in a process of its own."""
    runs: list[Measured] = []
    for policy in WAIT_POLICIES:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, *map(str, arguments)],
            env=os.environ | {"OMP_WAIT_POLICY": policy},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise DigitqError(f"{module} failed: {reason}")
        runs.append(json.loads(done.stdout))
    return max(runs, key=itemgetter("images_per_second"))
