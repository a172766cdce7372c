"""Mosec over HTTP: one image in a request; the server gathers requests into batches.

Run as a command, this file is the server and takes mosec's options.
"""

import threading
from http.client import HTTPConnection

import numpy as np
from mosec import Server, Worker

from benchmarks.deployment.measures import CALLERS, WORKERS, Bench, time_callers
from benchmarks.queues.shared import classify, running, start_worker
from benchmarks.rounds import Rows
from digitq.private.processes import find_free_port
from digitq.protocol.chunk import CLASSES, PIXELS

HOST = "127.0.0.1"
MAX_MOSEC_BATCH_ROWS = CALLERS // WORKERS  # images in a batch, so that each worker gets one
MOSEC_WAIT_MS = 1  # the time a batch has to fill; mosec's minimum
WARM_UP_CALLS = 1024  # not measured


class Classifier(Worker):
    """784 bytes, one for each pixel, to the bytes of ten float32; text would cost more."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        start_worker()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        """The answers to a batch."""
        pixels = np.frombuffer(b"".join(data), np.uint8).reshape(-1, PIXELS)
        return [probabilities.tobytes() for probabilities in classify(pixels)]


class Caller(threading.local):
    """A connection for each thread; it stays open."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection(HOST, port)

    def classify(self, pixels: np.ndarray) -> np.ndarray:
        """(784,) uint8 → (10,) float32."""
        self._connection.request("POST", "/inference", pixels.tobytes())
        return np.frombuffer(self._connection.getresponse().read(), np.float32, CLASSES)


def measure_mosec(bench: Bench) -> Rows:
    """Send one image at a time from as many threads as digitq's `concurrent` has."""
    digits, port = bench.digits[: bench.part(100)], find_free_port()
    server = running("-m", __name__, "--address", HOST, "--port", str(port), "--log-level", "error")
    with server:
        call = Caller(port).classify
        time_callers(call, bench.digits[:WARM_UP_CALLS])
        return {"mosec": time_callers(call, digits)}


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classifier, WORKERS, MAX_MOSEC_BATCH_ROWS, MOSEC_WAIT_MS)
    server.run()
