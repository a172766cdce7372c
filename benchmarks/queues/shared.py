"""What the other queues share: the images, the work of a worker, the result file."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import numpy as np
import pyarrow as pa
import torch

from benchmarks.deployment.measures import BENCH_MODEL, WORKERS, Bench
from benchmarks.network_alone import CACHED_ROWS
from digitq.private import tether
from digitq.producer.sinks.resumable import FileSink
from digitq.protocol.chunk import PIXELS
from digitq.worker.classify import build_result, read_image, read_pixels
from digitq.worker.models.model import load_model

WARM = "warm-"  # a worker that is warm makes a file of this name and its process id
STOP_SECONDS = 10  # a process that has not ended by then is killed


def cut_chunks(bench: Bench, rows: int) -> Iterator[pa.RecordBatch]:
    """The images of digitq's `queue`, with ids and true labels, at most `rows` in a chunk."""
    batches: Iterable[pa.RecordBatch] = bench.repeat_mnist(bench.images).items
    for batch in batches:
        yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def classify(pixels: np.ndarray) -> np.ndarray:
    """The plain torch module: (N, 784) uint8 → (N, 10) float32, in batches that suit the cache."""
    network = load_model(BENCH_MODEL).network
    rows = torch.from_numpy(np.require(pixels, requirements="W"))  # torch warns of read-only memory
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in torch.split(rows, CACHED_ROWS)]).numpy()


def classify_chunk(chunk: pa.RecordBatch) -> pa.RecordBatch:
    """The result rows that a worker of digitq gives for MNIST images, one for each."""
    pixels, errors, reasons = read_pixels(chunk, read_image)
    below = load_model(BENCH_MODEL).card.review_below
    return build_result(chunk, classify(pixels), errors, reasons, below)


def warm_up() -> None:
    """Load the network and use it once, as digitq's workers do before they are measured."""
    os.environ["MKL_CBWR"] = "OFF"  # other programs do not use the strict mode that `worker` sets
    classify(np.zeros((8 * CACHED_ROWS, PIXELS), np.uint8))


def start_worker() -> None:
    """Prepare a worker process that `running` started: warm it up, then report that it is warm."""
    warm_up()
    (Path(gettempdir()) / f"{WARM}{os.getpid()}").touch()


def write_answers(bench: Bench, name: str, answers: Iterable[pa.RecordBatch]) -> None:
    """Write the CSV that digitq's `queue` writes, in the order the answers come in."""
    sink = FileSink(bench.folder / name, {}, overwrite=True)
    for batch in answers:
        sink.write(batch)
    sink.finish()


@contextmanager
def running(*command: str, **variables: str) -> Iterator[None]:
    """Run a Python command: the block begins once its workers are warm, and ends the command and
    all processes it started. Raises `ChildProcessError` if it ends before its workers are warm."""
    tied = [sys.executable, "-ISE", tether.__file__, str(os.getpid()), sys.executable, *command]
    with TemporaryDirectory() as folder:
        environment = os.environ | variables | {"TMPDIR": folder}
        process = subprocess.Popen(tied, start_new_session=True, env=environment)
        try:
            while len(list(Path(folder).glob(f"{WARM}*"))) < WORKERS:
                if process.poll() is not None:
                    raise ChildProcessError(f"{' '.join(command)} has ended")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()  # a killed process would leave semaphores behind
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
