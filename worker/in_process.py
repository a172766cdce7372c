"""Classifies chunks in a process that is not a worker's, such as a notebook."""

import threading
from collections.abc import Iterable, Iterator

import pyarrow as pa
import torch

from digitq.protocol.asked.own_network import OwnNetwork
from digitq.protocol.asked.reading import Reading, decode_known
from digitq.protocol.chunk import Chunk
from digitq.protocol.prediction import Answer
from digitq.worker.classify import classify_chunk, watch
from digitq.worker.models.lent import use_network
from digitq.worker.models.model import TORCH_THREADS

lock = threading.Lock()  # one thread at a time: the watch and torch's threads are the process's


def classify_chunks(chunks: Iterable[Chunk], reading: Reading[Answer]) -> Iterator[pa.RecordBatch]:
    """The results of the chunks, the same to the bit as a worker's. Outside of a chunk, torch has
    as many threads as before. Raises what the chunks raise."""
    watch.spare_process()
    known, network = decode_known(reading.known), reading.network or OwnNetwork("")
    for chunk in chunks:
        with lock:
            threads = torch.get_num_threads()
            torch.set_num_threads(TORCH_THREADS)
            try:
                with use_network(reading.model, known.network, lambda _: network):
                    result = classify_chunk(chunk, reading.model, known=known)
            finally:
                torch.set_num_threads(threads)
        yield result
