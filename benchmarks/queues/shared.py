"""What the benchmarks of other queues share: their images, what a worker does, a result file."""

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

from benchmarks.rivals.torch_alone import BATCH_ROWS
from digitq.bench.measures import MODEL, WORKERS, Bench
from digitq.local import tether
from producer.sinks.files import FileSink
from protocol.chunk import PIXELS
from worker.classify import build_result, read_image, read_pixels
from worker.models.model import load_model

WARM = "warm-"  # with a worker's process id, the file that says that it is warm
STOP_SECONDS = 10


def cut_chunks(bench: Bench, rows: int) -> Iterator[pa.RecordBatch]:
    """The images of digitq's `queue`, with ids and right answers, at most so many rows a chunk."""
    batches: Iterable[pa.RecordBatch] = bench.repeat_mnist(bench.images).items
    for batch in batches:
        yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def classify(pixels: np.ndarray) -> np.ndarray:
    """The plain torch module: (N, 784) uint8 → (N, 10) float32, in batches that suit the cache."""
    network = load_model(MODEL).network
    rows = torch.from_numpy(np.require(pixels, requirements="W"))  # torch warns of what isn't
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in torch.split(rows, BATCH_ROWS)]).numpy()


def classify_chunk(chunk: pa.RecordBatch) -> pa.RecordBatch:
    """The rows that a worker of digitq answers with to images of MNIST, one for each."""
    pixels, errors, sure = read_pixels(chunk, read_image)
    below = load_model(MODEL).card.review_below
    return build_result(chunk, classify(pixels), errors, sure, below)


def warm_up() -> None:
    """Load the network and use it, as digitq's own workers have done when they are measured."""
    classify(np.zeros((8 * BATCH_ROWS, PIXELS), np.uint8))


def start_worker() -> None:
    """What a worker process under `running` does first: it warms up, and says that it is warm."""
    warm_up()
    (Path(gettempdir()) / f"{WARM}{os.getpid()}").touch()


def write_answers(bench: Bench, name: str, answers: Iterable[pa.RecordBatch]) -> None:
    """Write the CSV that digitq's `queue` writes, in the order in which the answers come."""
    sink = FileSink(bench.folder / name, {}, overwrite=True)
    for batch in answers:
        sink.write(batch)
    sink.finish()


@contextmanager
def running(*command: str, **variables: str) -> Iterator[None]:
    """A command of Python and all that it starts, from when its workers are warm to the end of
    the block. Raises `ChildProcessError` where it ends by itself."""
    tied = [sys.executable, "-ISE", tether.__file__, str(os.getpid()), sys.executable, *command]
    with TemporaryDirectory() as folder:
        environment = os.environ | variables | {"TMPDIR": folder, "MKL_CBWR": "OFF"}
        process = subprocess.Popen(tied, start_new_session=True, env=environment)
        try:
            while len(list(Path(folder).glob(f"{WARM}*"))) < WORKERS:
                if process.poll() is not None:
                    raise ChildProcessError(f"{' '.join(command)} has ended")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()  # first asked: killed, it would leave semaphores behind
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
