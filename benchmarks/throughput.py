"""MNIST through the queue to a CSV with all columns: images/s beside bare torch, and memory.

    python benchmarks/throughput.py                  60,000 and 6,000,000 images, two workers
    python benchmarks/throughput.py --images 600000

Each size runs in a process of its own, so that its peak of memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from producer.client import Client
from producer.local import Local
from producer.mnist import load_mnist, number_ids, pixels_batch
from producer.run import Service, take_results
from producer.sinks import FileSink
from producer.sources import Source

WORKERS = 2
PIECE_ROWS = 16_384


def repeat_mnist(total: int) -> Iterator[pa.RecordBatch]:
    """The training images again and again, under ids of their own."""
    images, labels = load_mnist("train")
    for start in range(0, total, PIECE_ROWS):
        rows = np.arange(start, min(start + PIECE_ROWS, total)) % len(images)
        yield pixels_batch(number_ids("mnist/", start, len(rows)), images[rows], labels[rows])


def measure_queue(total: int) -> dict[str, float]:
    """Images/s, and the peaks of the producer's and of Redis's memory in MB."""
    source = Source("mnist", repeat_mnist(total), has_truth=True, count=lambda: total)
    with tempfile.TemporaryDirectory() as folder, Local(WORKERS) as local:
        local.wait_until_ready()
        client = Client(local.url)
        sink = FileSink(Path(folder) / "out.csv", {})
        rate = take_results(
            Service(client, local), client.submit_source(source), sink, source.count
        )
        peak = client.ledger.redis.info("memory")["used_memory_peak"]
    return {
        "images": total,
        "images_per_second": round(rate),
        "producer_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "redis_mb": round(peak / 2**20),
    }


def measure_torch(seconds: float = 5) -> float:
    """Images/s of the network alone: one process, two threads, nothing written."""
    import torch

    from worker.models import load_model

    network = load_model("mlp").network
    torch.set_num_threads(WORKERS)
    pixels = torch.from_numpy(np.array(load_mnist("train")[0][:2048]))
    done, started = 0, time.perf_counter()
    with torch.inference_mode():
        while time.perf_counter() - started < seconds:
            network(pixels)
            done += len(pixels)
    return done / (time.perf_counter() - started)


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[60_000, 6_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_queue(options.one)))
        return
    bare = measure_torch()
    print(f"bare torch, {WORKERS} threads: {bare:,.0f} images/s")
    print(f"{'images':>12}{'images/s':>12}{'of torch':>10}{'producer MB':>13}{'Redis MB':>10}")
    for total in options.images:
        command = [sys.executable, __file__, "--one", str(total)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(
            f"{total:12,}{found['images_per_second']:12,}{found['images_per_second'] / bare:10.2f}"
            f"{found['producer_mb']:13,}{found['redis_mb']:10,}"
        )


if __name__ == "__main__":
    main()
