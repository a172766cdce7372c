"""Ray Data: `map_batches` over blocks in the object store, with two actors."""

import os
import time
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pyarrow as pa
import ray

from benchmarks.deployment.measures import WORKERS, Bench
from benchmarks.queues.shared import classify_chunk, cut_chunks, warm_up, write_answers
from benchmarks.rounds import Rows

BLOCK_ROWS = 16384  # images in a block; faster than 4096 or 8192
RAY_START_SECONDS = 60  # Ray gives up if its actors have not started by then
ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # the default of 15 gives every other process priority
    "RAY_USAGE_STATS_ENABLED": "0",  # sends nothing to Ray's makers
    "RAY_DATA_LOG_LEVEL": "ERROR",
}


class Classifier:
    """An actor; its process loads the network once."""

    def __init__(self) -> None:
        warm_up()

    def __call__(self, block: pa.Table) -> pa.Table:
        """The answers to a block of images."""
        (chunk,) = block.combine_chunks().to_batches()
        return pa.Table.from_batches([classify_chunk(chunk)])


def measure_ray_data(bench: Bench) -> Rows:
    """Images are put into the object store, classified, and written in the order they come back.

    A run of Ray Data starts its own actors. So the clock is stopped from the moment the images are
    stored until the first block of answers arrives, and the images of that block do not count.
    """
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    with (
        patch.dict(os.environ, ENVIRONMENT),
        TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        ray.init(num_cpus=WORKERS, _node_ip_address="127.0.0.1", _temp_dir=folder, **options),
    ):
        ray.data.DataContext.get_current().wait_for_min_actors_s = RAY_START_SECONDS
        started = time.perf_counter()
        chunks = cut_chunks(bench, min(BLOCK_ROWS, bench.images // 8))
        images = ray.data.from_arrow([pa.Table.from_batches([chunk]) for chunk in chunks])
        seconds = time.perf_counter() - started
        actors = ray.data.ActorPoolStrategy(size=WORKERS)
        whole = {"batch_size": None, "batch_format": "pyarrow"}  # a whole block at a time
        answers = images.map_batches(Classifier, compute=actors, num_cpus=1, **whole)
        blocks = iter(answers.iter_batches(**whole))
        uncounted = len(next(blocks))
        started = time.perf_counter()
        write_answers(bench, "ray.csv", (rows for block in blocks for rows in block.to_batches()))
        seconds += time.perf_counter() - started
    return {"ray": {"images_per_second": (bench.images - uncounted) / seconds}}
