"""Ray Data: `map_batches` over blocks in the object store, with an actor for each worker."""

import os
import time
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pyarrow as pa
import ray

from benchmarks.queues.shared import classify_chunk, cut_chunks, warm_up, write_answers
from digitq.bench.measures import WORKERS, Bench
from digitq.bench.rounds import Rows

BLOCK_ROWS = 16384  # faster than 4096 or 8192
START_SECONDS = 60  # until Ray gives its actors up
ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # Ray's own 15 lets all else on the machine go first
    "RAY_USAGE_STATS_ENABLED": "0",  # and reports to its makers
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "MKL_CBWR": "OFF",  # digitq's own strict mode takes a little longer
}


class Classifier:
    """An actor: its process has the network, loaded once."""

    def __init__(self) -> None:
        warm_up()

    def __call__(self, block: pa.Table) -> pa.Table:
        """The answers to a block of images."""
        (chunk,) = block.combine_chunks().to_batches()
        return pa.Table.from_batches([classify_chunk(chunk)])


def measure_ray_data(bench: Bench) -> Rows:
    """Images put into the object store, classified, and written in the order in which they come.

    A run of Ray Data starts its actors itself. So the clock stands from when the images are put
    until the first block of answers is there, and that block's images don't count.
    """
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    with (
        patch.dict(os.environ, ENVIRONMENT),
        TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        ray.init(num_cpus=WORKERS, _node_ip_address="127.0.0.1", _temp_dir=folder, **options),
    ):
        ray.data.DataContext.get_current().wait_for_min_actors_s = START_SECONDS
        started = time.perf_counter()
        chunks = cut_chunks(bench, min(BLOCK_ROWS, bench.images // 8))
        images = ray.data.from_arrow([pa.Table.from_batches([chunk]) for chunk in chunks])
        seconds = time.perf_counter() - started
        actors = ray.data.ActorPoolStrategy(size=WORKERS)
        whole = {"batch_size": None, "batch_format": "pyarrow"}  # blocks as they are
        answers = images.map_batches(Classifier, compute=actors, num_cpus=1, **whole)
        blocks = iter(answers.iter_batches(**whole))
        uncounted = len(next(blocks))
        started = time.perf_counter()
        write_answers(bench, "ray.csv", (rows for block in blocks for rows in block.to_batches()))
        seconds += time.perf_counter() - started
    return {"ray": {"images_per_second": (bench.images - uncounted) / seconds}}
