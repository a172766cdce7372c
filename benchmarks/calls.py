"""Single images through `Client.classify`: one caller's wait, and many callers' rate.

Beside it, on the same Redis, plain Celery with its result backend and the same network:
`task.delay(pixels).get()`.

    python benchmarks/calls.py [--calls 1000] [--callers 64]
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from celery import Celery

from producer.client import Client
from producer.local import Local
from producer.mnist import load_mnist
from protocol.broker import celery_url

WORKERS = 2

broker = celery_url(os.environ.get("DIGITQ_BROKER_URL", "redis://localhost:6379/0"))
plain = Celery("plain", broker=broker, backend=broker)
plain.conf.task_default_queue = "plain"


@plain.task(name="plain")
def classify(pixels: list[int]) -> list[float]:
    from worker.models import load_model

    answer: list[float] = load_model("mlp").classify(np.array([pixels], np.uint8))[0].tolist()
    return answer


def start_plain_worker(local: Local) -> subprocess.Popen[bytes]:
    options = ["--concurrency", str(WORKERS), "--loglevel", "ERROR"]
    return subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "calls:plain", "worker", *options],
        cwd=Path(__file__).parent,
        env={**os.environ, "DIGITQ_BROKER_URL": local.url},
    )


def time_calls(ways: dict[str, Callable[[int], object]], calls: int) -> None:
    """One caller, one image after another; the ways take turns."""
    waits: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(20 + calls):
        for name, call in ways.items():
            started = time.perf_counter()
            call(number)
            waits[name].append(1000 * (time.perf_counter() - started))
    for name, found in waits.items():
        median, late = statistics.median(found[20:]), statistics.quantiles(found[20:], n=100)[98]
        print(f"{name:32} median {median:6.2f} ms, 99th percentile {late:6.2f} ms", flush=True)


def rate_threads(name: str, call: Callable[[int], object], callers: int, calls: int) -> None:
    """So many threads, each waiting for its answer before it asks again."""
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(4 * callers)))
        started = time.perf_counter()
        list(pool.map(call, range(calls)))
        rate = calls / (time.perf_counter() - started)
    print(f"{name:32} {rate:8,.0f} calls/s by {callers} threads", flush=True)


async def rate_tasks(name: str, client: Client, images: np.ndarray, callers: int, n: int) -> None:
    """So many tasks of one event loop."""
    numbers = iter(range(n))

    async def ask() -> None:
        for number in numbers:
            await client.classify_async(images[number % len(images)])

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(callers)))
    rate = n / (time.perf_counter() - started)
    print(f"{name:32} {rate:8,.0f} calls/s by {callers} asyncio tasks", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--callers", type=int, default=64)
    options = parser.parse_args()
    images = np.array(load_mnist("test")[0][:1000]).reshape(-1, 28, 28)
    lists = [image.reshape(-1).tolist() for image in images]
    with Local(WORKERS) as local:
        local.wait_until_ready()
        client = Client(local.url)
        broker = celery_url(local.url)
        plain.conf.update(broker_url=broker, result_backend=broker)
        worker = start_plain_worker(local)
        try:

            def ask_plain(number: int) -> object:
                return classify.delay(lists[number % 1000]).get(timeout=60)

            def ask(number: int) -> object:
                return client.classify(images[number % 1000])

            ways = {"plain Celery, delay().get()": ask_plain, "Client.classify": ask}
            time_calls(ways, options.calls)
            calls = 10 * options.calls
            rate_threads("plain Celery, delay().get()", ask_plain, options.callers, calls // 10)
            rate_threads("Client.classify", ask, options.callers, calls)
            name = "Client.classify_async"
            asyncio.run(rate_tasks(name, client, images, options.callers, calls))
        finally:
            worker.kill()
            worker.wait()


if __name__ == "__main__":
    main()
