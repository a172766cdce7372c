"""`digitq.reader`: reads images in this process, without Redis and workers."""

from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, Unpack, overload

import numpy as np

from digitq.notebook import AnswerT, Results, TableSink, build_results
from digitq.producer.batching import put_together, read_call
from digitq.producer.chunking import cut_chunks
from digitq.producer.sources.contents import read_source
from digitq.producer.sources.in_memory import DataFrame, Image, Images, is_one_image
from digitq.producer.sources.opening import open_images
from digitq.protocol.asked.reading import AskedOfNumbers, FormLike, Reading, choose_reading
from digitq.protocol.asked.risk import Asked
from digitq.protocol.chunk import Chunk, name_rows
from digitq.protocol.prediction import NumberPrediction, Prediction, to_fields, to_predictions
from digitq.protocol.settings import FolderLike, What, choose_weights
from digitq.terminal import require

OneT = TypeVar("OneT", Prediction, NumberPrediction, dict[str, NumberPrediction])


class Reader(Generic[OneT, AnswerT]):
    """Reads images in this process. Threads may call it, and wait for each other."""

    def __init__(self, reading: Reading, weights: Path | None = None) -> None:
        """Load the networks. Raises `UsageError` if the extra `worker` is not installed."""
        require("worker")
        from digitq.worker.in_process import classify_chunks

        self._reading = reading
        self._classify_chunks = partial(classify_chunks, reading=reading, weights=weights)
        self.classify(np.zeros((28, 28), np.uint8))

    @overload
    def classify(self, images: DataFrame) -> Results[AnswerT]: ...

    @overload
    def classify(self, images: Image) -> OneT: ...  # type: ignore[overload-overlap]

    @overload
    def classify(self, images: Images) -> Results[AnswerT]: ...

    def classify(self, images: Images) -> Any:
        """The answer for one image, as `Client.classify` gives it; the `Results` of
        `digitq.classify` for a list, a table or anything else that has several. A folder or an
        archive is one of a list. Raises as both."""
        reading = self._reading
        if is_one_image(images):
            chunk = Chunk(0, put_together([read_call(images, reading)]))
            (rows,) = map(name_rows, self._classify_chunks([chunk]))
            return to_fields(rows, reading.form) if reading.form else to_predictions(rows)[0]
        source, sink = open_images(images)[0], TableSink()
        chunks = cut_chunks(read_source(source, reading), reading.model, reading.cells)
        chunks, read = tee(chunks)
        for rows, chunk in zip(self._classify_chunks(read), chunks, strict=True):
            sink.write(name_rows(rows, chunk.truth))
        return build_results(source, reading, sink)


@overload
def reader(
    model: str | None = None,
    *,
    read: Literal["digit"] = "digit",
    weights: FolderLike | None = None,
    **asked: Unpack[Asked],
) -> Reader[Prediction, Prediction]: ...


@overload
def reader(
    *,
    read: Literal["number"],
    weights: FolderLike | None = None,
    **asked: Unpack[AskedOfNumbers],
) -> Reader[NumberPrediction, NumberPrediction]: ...


@overload
def reader(
    *,
    read: Literal["number"] = "number",
    form: FormLike,
    weights: FolderLike | None = None,
    **asked: Unpack[Asked],
) -> Reader[dict[str, NumberPrediction], NumberPrediction]: ...


def reader(
    model: str | None = None,
    *,
    read: What = "digit",
    form: FormLike | None = None,
    weights: FolderLike | None = None,
    **asked: Unpack[AskedOfNumbers],
) -> Reader[Any, Any]:
    """What reads images in this process, with the answers that workers give. See `Client.submit`
    for the arguments; `weights` is a folder of `digitq train` with its network. Raises
    `UsageError`."""
    reading = choose_reading(model, read, form, **asked)
    return Reader(reading, choose_weights(weights, reading.model, model is not None))
