"""One chunk, from its images to its answers: plain functions, no queue in sight."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from protocol.chunk import CLASSES, PIXELS, PROBABILITIES, RESULT_FIELDS, TRUTH, Chunk, kind_of
from protocol.errors import BrokerError, DigitqError
from worker.limits import Watch, limited_memory
from worker.models.device import load_on_device
from worker.models.model import Model
from worker.normalisation.steps import Views
from worker.normalisation.views import VIEW_WEIGHTS
from worker.pictures import ImageError, describe
from worker.reading import trace_digit, trace_other_views

Pixels = NDArray[np.uint8]  # (N, 784)
Probabilities = NDArray[np.float32]  # (N, 10)
Flags = NDArray[np.bool_]  # (N,)
T = TypeVar("T")
Reader = Callable[[bytes], Iterator[T]]  # a step at a time; the last is what is read
Outcome = tuple[T | None, str | None]  # what is read of an image, or what is wrong with it


class Read(Protocol):
    """How an image file is read, by the row it is in: with whatever has to be done around that."""

    def __call__(self, row: int, content: bytes, reader: Reader[T]) -> Iterator[T]: ...


TOGETHER = 24  # images are read in turns, a step of each: what a step needs is in the processor's
# caches then, and a photo takes an eighth to a fifth less time
TTA_BELOW = 0.95  # a confidence under which the network sees other views of an image as well
SHARPNESS = 1.2  # the power of views' mean square that is as sure as it is right
FIRST_MOST = np.arange(CLASSES, 0, -1, dtype=np.uint8)[:, None]  # a column's place from the end

watch = Watch()


def read_image(row: int, content: bytes, reader: Reader[T]) -> Iterator[T]:
    """As the reader reads it, a step at a time. Raises `ImageError`."""
    return reader(content)


def classify_chunk(chunk: Chunk, model: str, read: Read = read_image) -> pa.RecordBatch:
    """One result row for each row of the chunk, in the same order.

    An image that can't be read keeps its place as a row of zeros, and gets an error. Where the
    network is unsure of an image, it sees other views of it too. `truth` passes through where the
    chunk has it.
    """
    try:
        loaded = load_on_device(model)
    except DigitqError as error:  # a producer of another version, or damaged weights
        errors = pa.repeat(str(error), chunk.rows)
        nothing = np.zeros((chunk.rows, CLASSES), np.float32)
        return build_result(chunk.batch, nothing, errors, np.ones(chunk.rows, np.bool_))
    watch.forget()
    pixels, errors, sure = read_pixels(chunk.batch, read)
    probabilities = loaded.classify(pixels, chunk.first_row)
    below = loaded.card.review_below
    if kind_of(chunk.batch) == "image":
        _, confidence = find_best(probabilities)
        sure &= confidence >= below  # else to be reviewed, whatever other views add
        read_well = errors.is_null().to_numpy(zero_copy_only=False)
        unsure = np.flatnonzero(read_well & (confidence < TTA_BELOW)).tolist()
        outcomes = read_rows(chunk.batch.column("image"), unsure, trace_other_views, read)
        for row, (views, _) in zip(unsure, outcomes, strict=True):
            probabilities[row] = combine_views(loaded, probabilities[row], views or {})
    return build_result(chunk.batch, probabilities, errors, sure, below)


def read_pixels(batch: pa.RecordBatch, read: Read) -> tuple[Pixels, pa.StringArray, Flags]:
    """The batch's pixels (N, 784), what was wrong with each image (null: nothing), and whether it
    raised no doubt as it was read."""
    rows = batch.num_rows
    sure = np.ones(rows, np.bool_)
    if kind_of(batch) == "pixels":
        column = batch.column("pixels")
        pixels = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * PIXELS :]
        return pixels[: rows * PIXELS].reshape(rows, PIXELS), pa.nulls(rows, pa.string()), sure
    pixels = np.zeros((rows, PIXELS), np.uint8)
    errors = batch.column("error").to_pylist() if "error" in batch.schema.names else [None] * rows
    unread = [row for row, error in enumerate(errors) if error is None]
    outcomes = read_rows(batch.column("image"), unread, trace_digit, read)
    for row, (digit, error) in zip(unread, outcomes, strict=True):
        errors[row] = error
        if digit is not None:
            pixels[row], sure[row] = digit.image.reshape(PIXELS), not digit.review_reason
    return pixels, pa.array(errors, pa.string()), sure


def read_rows(
    images: pa.BinaryArray, rows: Sequence[int], reader: Reader[T], read: Read
) -> list[Outcome[T]]:
    """What the reader makes of the image in each of some rows, within an image's limits."""
    outcomes: list[Outcome[T]] = []
    if not rows:
        return outcomes
    with watch.running(), limited_memory():
        for start in range(0, len(rows), TOGETHER):
            together = rows[start : start + TOGETHER]
            outcomes += take_turns(
                {row: _trace_row(images[row], row, reader, read) for row in together}
            )
    return outcomes


def _trace_row(image: pa.BinaryScalar, row: int, reader: Reader[T], read: Read) -> Iterator[T]:
    if not image.is_valid:
        raise ImageError("no image in this row")
    yield from read(row, image.as_buffer().to_pybytes(), reader)


def take_turns(readings: Mapping[int, Iterator[T]]) -> list[Outcome[T]]:
    """What is read of each image, by its row, a step of one after a step of the other."""
    outcomes: dict[int, Outcome[T]] = dict.fromkeys(readings, (None, "nothing was read"))
    unfinished = [*readings.items()]
    while unfinished:
        turns, unfinished = unfinished, []
        for row, steps in turns:
            try:
                watch.image = row  # by `watch.on` it takes longer, ten times an image
                try:
                    outcomes[row] = next(steps), None
                finally:
                    watch.image = None
                unfinished.append((row, steps))
            except StopIteration:
                pass
            except ImageError as error:
                outcomes[row] = None, str(error)
            except BrokerError:  # Redis's, not the image's: the chunk comes again
                raise
            except MemoryError:
                outcomes[row] = None, "needs too much memory"
            except Exception as error:  # whatever an image does to a decoder is that image's row
                outcomes[row] = None, f"can't be read: {describe(error)}"
    return [*outcomes.values()]


def combine_views(model: Model, first: NDArray[np.float32], views: Views) -> NDArray[np.float32]:
    """What the network says of an image, (10,), once it has seen other views of it.

    It is the mean square of what it says of each, in which the views that it is sure of count for
    more and a part of the image for less, sharpened, since it seldom is as sure of all of them.
    """
    if not views:
        return first
    others = model.classify_together(np.stack([*views.values()]).reshape(-1, PIXELS))
    squares = np.concatenate([first[None], others]) ** 2
    weights = [1.0, *(VIEW_WEIGHTS.get(name, 1.0) for name in views)]
    power = np.average(squares, axis=0, weights=weights) ** SHARPNESS
    return np.asarray(power / power.sum(), np.float32)


def find_best(probabilities: Probabilities) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The most probable digit of each row, the first of equals, and its probability.

    It goes by columns: along rows of ten, `argmax` takes four times as long.
    """
    columns = np.ascontiguousarray(probabilities.T)
    confidence = columns.max(axis=0)
    label = CLASSES - ((columns == confidence) * FIRST_MOST).max(axis=0)
    return label, confidence


def build_result(
    batch: pa.RecordBatch,
    probabilities: Probabilities,
    errors: pa.StringArray,
    sure: Flags,
    review_below: float = 1.0,
) -> pa.RecordBatch:
    """The result batch; a row with an error has neither label nor probabilities.

    To be reviewed is an answer of a confidence under `review_below`, one that is not `sure` for
    another reason, and none.
    """
    label, confidence = find_best(probabilities)
    review = (confidence < review_below) | ~sure
    mask = None
    if errors.null_count < len(errors):
        mask = errors.is_valid().to_numpy(zero_copy_only=False)
        review |= mask
    columns = [
        batch.column("id"),
        pa.array(label.astype(np.int8), mask=mask),
        pa.array(confidence, mask=mask),
        pa.FixedSizeListArray.from_arrays(
            pa.array(probabilities.reshape(-1)),
            type=PROBABILITIES,
            mask=None if mask is None else pa.array(mask),
        ),
        errors,
        pa.array(review),
    ]
    if "truth" not in batch.schema.names:
        return pa.record_batch(columns, schema=pa.schema(RESULT_FIELDS))
    columns.append(batch.column("truth"))
    return pa.record_batch(columns, schema=pa.schema([*RESULT_FIELDS, TRUTH]))
