"""`digitq.reader`: reads images in this process, without Redis and workers."""

from functools import partial
from itertools import tee
from typing import Generic

import numpy as np

from digitq.notebook import Results, TableSink, build_results
from digitq.producer.batching import put_together, read_call
from digitq.producer.chunking import cut_chunks
from digitq.producer.sources.contents import read_source
from digitq.producer.sources.in_memory import Image, Images
from digitq.producer.sources.opening import open_images
from digitq.protocol.asked.reading import AnswerT, Reading, check_reading
from digitq.protocol.chunk import Chunk, name_rows
from digitq.terminal import require


class Reader(Generic[AnswerT]):
    """Reads images in this process. Threads may call it, and wait for each other."""

    def __init__(self, reading: Reading[AnswerT]) -> None:
        """Load the networks. Raises `UsageError` if the extra `worker` is not installed."""
        require("worker")
        from digitq.worker.in_process import classify_chunks

        self._reading = reading
        self._classify_chunks = partial(classify_chunks, reading=reading)
        self.classify(np.zeros((28, 28), np.uint8))

    def classify(self, image: Image) -> AnswerT:
        """The answer for one image, as `Client.classify` gives it, and raises as that."""
        chunk = Chunk(0, put_together([read_call(image, self._reading)]))
        (rows,) = map(name_rows, self._classify_chunks([chunk]))
        return self._reading.to_answers(rows)[0]

    def classify_all(self, images: Images) -> Results[AnswerT]:
        """The `Results` for images as `digitq.classify` takes them, and raises as that."""
        reading = self._reading
        source, sink = open_images(images)[0], TableSink()
        chunks = cut_chunks(read_source(source, reading), reading.model, reading.cells)
        chunks, read = tee(chunks)
        for rows, chunk in zip(self._classify_chunks(read), chunks, strict=True):
            sink.write(name_rows(rows, chunk.truth))
        return build_results(source, reading, sink)


def reader(reading: Reading[AnswerT] | None = None) -> Reader[AnswerT]:
    """What reads images in this process, with the answers that workers give; by default the digit
    in each. Raises `UsageError`."""
    asked = check_reading(reading)
    asked.check_here()
    return Reader(asked)
