"""Classifies one chunk, from its images to its answers, without a queue."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from digitq.protocol.asked import UnmetError
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.risk import Risk, compare
from digitq.protocol.chunk import (
    ABSENT,
    ARRAY,
    BEFORE,
    CLASSES,
    LIKENESS_KEY,
    NUMBER_SCHEMA,
    PIXELS,
    PROBABILITIES,
    REASONS,
    RESULT_SCHEMA,
    REVIEW_BELOW_KEY,
    WEIGHTS_KEY,
    Chunk,
    Kind,
    Reason,
    answers,
    kind_of,
    naming_fields,
    result_schema,
    unmarked,
)
from digitq.protocol.errors import BrokerError, DigitqError
from digitq.protocol.settings import read_by
from digitq.worker.models.card import Card
from digitq.worker.models.lent import describe_weights
from digitq.worker.models.model import Model, load_on_device
from digitq.worker.models.number_networks import load_networks
from digitq.worker.models.second_reader import use_second_reader
from digitq.worker.picture import INPUT_SIDE, ImageError, error_of_row
from digitq.worker.sight.decoding.pillow import prepare_libraries
from digitq.worker.sight.digits import trace_digit, trace_other_views
from digitq.worker.sight.forms.cutting import Cut
from digitq.worker.sight.forms.page_reading import decide_page, trace_cell, trace_page
from digitq.worker.sight.limits import Watch
from digitq.worker.sight.normalisation.steps import Views
from digitq.worker.sight.normalisation.views import VIEW_WEIGHTS
from digitq.worker.sight.numbers.recognition import NumberReading, trace_number

Reasons = NDArray[np.uint8]  # (N,): the index of each row's reason in `REASONS`, 0 for none
T = TypeVar("T")
Reader = Callable[[bytes], Iterator[T]]  # yields after each step; the last value is the outcome
Outcome = tuple[T | None, str | None]  # what was read from an image, or its error


class Read(Protocol):
    """Runs a reader on the image file of a row, with what the caller adds around each step."""

    def __call__(self, row: int, content: bytes, reader: Reader[T]) -> Iterator[T]: ...


INTERLEAVED_IMAGES = 24  # this many take turns, because a step's code then stays in the caches
TTA_BELOW = 0.95  # below this confidence the network also sees other views of an image
SHARPNESS = 1.2  # with this exponent of the views' mean square, confidence matches accuracy
MIN_DIGIT_CONFIDENCE = 0.2  # below this an image shows no digit: the networks learned 0.1 for each
NO_REASON, UNSURE, UNSURE_AT_FIRST, NOT_A_DIGIT, FAILED = map(
    REASONS.index, ("", "unsure", "unsure at first", "no digit", "error")
)
PGM = b"P5 %d %d 255\n" % (INPUT_SIDE, INPUT_SIDE)  # makes 28×28 pixels a file
FROM_END = np.arange(CLASSES, 0, -1, dtype=np.uint8)[:, None]  # 10 for class 0, 1 for class 9

OTHERWISE: Reason = "read otherwise before"
BY_CONFIDENCE: tuple[Reason, ...] = ("unsure", "unsure at first")  # the threshold decides

watch = Watch()


def read_image(row: int, content: bytes, reader: Reader[T]) -> Iterator[T]:
    """Run the reader with nothing around it. Raises `ImageError`."""
    return reader(content)


def classify_chunk(
    chunk: Chunk,
    model: str,
    read: Read = read_image,
    known: Known | Form = Known(),  # noqa: B008 (frozen)
) -> pa.RecordBatch:
    """Classify a chunk: one result row for each of its rows, in the same order.

    The row of an image that can't be read has an error. The model `number` reads whole numbers,
    with what is `known` of them, or the fields of pages that have a form. Raises `UnmetError` if
    the risk that is asked for can't be promised, or if the network that the job has brought can't
    be used; `BrokerError` if Redis can't give this network.
    """
    with use_second_reader(known.second_reader):
        return classify_with(chunk, model, read, known)


def classify_with(chunk: Chunk, model: str, read: Read, known: Known | Form) -> pa.RecordBatch:
    """The same with the networks that are in use."""
    read_what = read_by(model)
    try:
        if read_what == "number":
            _, card = load_networks()  # `trace_number` takes both
        else:
            loaded = load_on_device(model)
            card = loaded.card
    except (UnmetError, BrokerError):
        raise
    except DigitqError as error:  # the producer has another version, or the weights are damaged
        failed = [build_row(None, str(error))] * chunk.rows
        return build_rows(failed, chunk.batch, result_schema(read_what))
    weights = describe_weights(model)
    below = check_asked(card, known.risk, weights)
    if isinstance(known, Form):
        result = read_pages(chunk.batch, read, known)
    elif read_what == "number":
        result = read_numbers(chunk.batch, read, known)
    else:
        result = classify_digits(chunk, loaded, read, below)
    if BEFORE.name in chunk.batch.schema.names:
        result = mark_changed(result, chunk.batch.column(BEFORE.name))
    metadata = {WEIGHTS_KEY: weights, REVIEW_BELOW_KEY: str(below)}
    if known.risk:
        likeness = compare(card.find_curve(known.risk), find_comparable(result, known))
        metadata[LIKENESS_KEY] = json.dumps(asdict(likeness))
    return result.replace_schema_metadata(metadata)


def mark_changed(result: pa.RecordBatch, before: pa.StringArray) -> pa.RecordBatch:
    """Mark the answers that differ from those of an earlier reading, which had them or none."""
    is_same = pc.equal(pc.cast(answers(result), pa.string()), before).fill_null(False)
    is_changed = pc.and_not(unmarked(result), is_same)
    for name, value in (("review", True), ("reason", OTHERWISE)):
        index = result.schema.get_field_index(name)
        column = pc.if_else(is_changed, value, result.column(name))
        result = result.set_column(index, result.schema.field(name), column)
    return result


def find_comparable(result: pa.RecordBatch, known: Known | Form) -> NDArray[np.float64]:
    """The confidences of the answers that nothing else makes doubtful, but for ticks."""
    places = [not one.known.options for one in known.cells] if isinstance(known, Form) else [True]
    reasons, sure = result.column("reason"), result.column("confidence")
    by_confidence = pc.or_(pc.is_null(reasons), pc.is_in(reasons, pa.array(BY_CONFIDENCE)))
    is_compared = pc.and_(by_confidence, np.resize(places, len(sure)))
    return np.asarray(sure.filter(is_compared).drop_null())


def check_asked(card: Card, risk: Risk | None, weights: str) -> float:
    """The confidence below which answers are to be reviewed. Raises `UnmetError`, also if the risk
    was measured with other weights."""
    if risk and risk.weights and weights not in risk.weights:
        raise UnmetError(
            f"the results that --like names were read with other weights of {card.name}: "
            f"{', '.join(risk.weights)}, and not {weights}"
        )
    return card.find_threshold(risk)


def classify_digits(chunk: Chunk, model: Model, read: Read, below: float) -> pa.RecordBatch:
    """Classify the digit in each image of a chunk; gives the result batch, in which answers of a
    lower confidence are marked.

    If the network is unsure of an image, it also sees other views of it.
    """
    watch.forget()
    pixels, errors, reasons = read_pixels(chunk.batch, read)
    probabilities = model.classify(pixels, chunk.first_row)
    if kind_of(chunk.batch) == "image":
        _, confidence = find_best(probabilities)
        # Other views do not make up for an unsure first answer
        reasons[(reasons == NO_REASON) & (confidence < below)] = UNSURE_AT_FIRST
        read_well = errors.is_null().to_numpy(zero_copy_only=False)
        unsure = np.flatnonzero(read_well & (confidence < TTA_BELOW)).tolist()
        outcomes = read_rows(chunk.batch.column("image"), unsure, trace_other_views, read)
        for row, (views, _) in zip(unsure, outcomes, strict=True):
            probabilities[row] = combine_views(model, probabilities[row], views or {})
    return build_result(chunk.batch, probabilities, errors, reasons, below)


def read_pixels(
    batch: pa.RecordBatch, read: Read
) -> tuple[NDArray[np.uint8], pa.StringArray, Reasons]:
    """The batch's pixels (N, 784), each row's error or null, and the reasons to doubt an image."""
    rows = batch.num_rows
    reasons = np.zeros(rows, np.uint8)
    if kind_of(batch) == "pixels":
        column = batch.column("pixels")
        pixels = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * PIXELS :]
        return pixels[: rows * PIXELS].reshape(rows, PIXELS), pa.nulls(rows, pa.string()), reasons
    pixels = np.zeros((rows, PIXELS), np.uint8)
    outcomes = read_images(batch, trace_digit, read)
    for row, (digit, _) in enumerate(outcomes):
        if digit is not None:
            pixels[row] = digit.image.reshape(PIXELS)
            reasons[row] = REASONS.index(digit.review_reason)
    return pixels, pa.array([error for _, error in outcomes], pa.string()), reasons


def read_numbers(batch: pa.RecordBatch, read: Read, known: Known) -> pa.RecordBatch:
    """Read the number in each image of a chunk's batch; gives the result batch."""
    kind = kind_of(batch)

    def reader(content: bytes) -> Iterator[NumberReading | None]:
        return trace_number(as_file(content, kind), known)

    watch.forget()
    rows = [build_row(*outcome) for outcome in read_images(batch, reader, read)]
    return build_rows(rows, batch, NUMBER_SCHEMA)


def read_pages(batch: pa.RecordBatch, read: Read, form: Form) -> pa.RecordBatch:
    """Read the fields of each page in a chunk's batch, whose rows are the fields of its pages."""
    watch.forget()
    rows = list[dict[str, Any]]()
    for first in range(0, batch.num_rows, len(form.cells)):
        rows += [build_row(*outcome) for outcome in read_page(batch, first, read, form)]
    return build_rows(rows, batch, NUMBER_SCHEMA)


def read_page(
    batch: pa.RecordBatch, first: int, read: Read, form: Form
) -> Sequence[Outcome[NumberReading]]:
    """The reading of each field of the page in row `first`, or the field's error; neither if the
    page has no such row.

    The page is decoded and cut once. Each field has a time limit of its own.
    """
    kind, error = kind_of(batch), None
    if "error" in batch.schema.names:
        error = batch.column("error")[first].as_py()
    if error is None:
        images = pc.cast(batch.column(kind), pa.binary())

        def reader(content: bytes) -> Iterator[list[Cut | ImageError | None] | None]:
            return trace_page(as_file(content, kind), form)

        ((cuts, error),) = run_turns({first: _trace_row(images, first, reader, read)})
    if error is not None or cuts is None:
        return [(None, error if cell.is_sure else None) for cell in form.cells]
    # The page and its first field may each end a process, so both get numbers that no row has
    start = batch.num_rows + first
    readers = [partial(trace_cell, cut, cell) for cut, cell in zip(cuts, form.cells, strict=True)]
    traced = {row: read(row, b"", reader) for row, reader in enumerate(readers, start)}
    return decide_page(form, cuts, run_turns(traced))


def build_rows(
    rows: Sequence[Mapping[str, Any]], batch: pa.RecordBatch, schema: pa.Schema
) -> pa.RecordBatch:
    """The result batch with these rows, which are named as those of the chunk's batch are. The
    `schema` names them by ids."""
    names, answers = naming_fields(batch), pa.schema([*schema][1:])
    columns = pa.RecordBatch.from_pylist([*rows], answers).columns
    named = [batch.column(field.name) for field in names]
    return pa.record_batch([*named, *columns], schema=pa.schema([*names, *answers]))


def as_file(content: bytes, kind: Kind) -> bytes:
    """An image as a file: 28×28 pixels get the header of a PGM."""
    is_array = kind == "pixels" or content.startswith(ARRAY)
    return PGM + content.removeprefix(ARRAY) if is_array else content


def build_row(reading: NumberReading | None, error: str | None) -> dict[str, Any]:
    """The result row of a whole number, or of anything that was not read; without an error, it is
    in a row of a table that the page does not have."""
    if reading is None and error is None:
        return {"review": False, "reason": ABSENT}
    if reading is None:
        return {"error": error, "review": True, "reason": "error"}
    return {
        "error": error,
        "number": reading.number,
        "confidence": reading.confidence,
        "digits": [digit._asdict() for digit in reading.digits],
        "alternatives": [other._asdict() for other in reading.alternatives],
        "review": bool(reading.reason),
        "reason": reading.reason or None,
    }


def read_images(batch: pa.RecordBatch, reader: Reader[T], read: Read) -> list[Outcome[T]]:
    """Run the reader on each image of a batch that the producer could read."""
    has_errors = "error" in batch.schema.names
    errors = batch.column("error").to_pylist() if has_errors else [None] * batch.num_rows
    unread = [row for row, error in enumerate(errors) if error is None]
    images = pc.cast(batch.column(kind_of(batch)), pa.binary())
    outcomes = dict(zip(unread, read_rows(images, unread, reader, read), strict=True))
    return [outcomes.get(row, (None, error)) for row, error in enumerate(errors)]


def read_rows(
    images: pa.BinaryArray, rows: Sequence[int], reader: Reader[T], read: Read
) -> list[Outcome[T]]:
    """Run the reader on the images of these rows."""
    return run_turns({row: _trace_row(images, row, reader, read) for row in rows})


def run_turns(readings: Mapping[int, Iterator[T]]) -> list[Outcome[T]]:
    """Run the readings by row, each within the limits of time and memory; gives the outcomes."""
    outcomes: list[Outcome[T]] = []
    left = iter(readings.items())
    prepare_libraries()
    with watch.running():
        while part := dict(islice(left, INTERLEAVED_IMAGES)):
            outcomes += take_turns(part)
    return outcomes


def _trace_row(images: pa.BinaryArray, row: int, reader: Reader[T], read: Read) -> Iterator[T]:
    image = images[row]
    if not image.is_valid:
        raise ImageError("no image in this row")
    yield from read(row, image.as_buffer().to_pybytes(), reader)


def take_turns(readings: Mapping[int, Iterator[T]]) -> list[Outcome[T]]:
    """Run the readings by row, one step of each in turn; gives the outcomes in the same order."""
    outcomes: dict[int, Outcome[T]] = dict.fromkeys(readings, (None, "nothing was read"))
    unfinished = [*readings.items()]
    while unfinished:
        turns, unfinished = unfinished, []
        for row, steps in turns:
            try:
                watch.image = row  # `watch.on` is slower, and an image has some ten steps
                try:
                    outcomes[row] = next(steps), None
                finally:
                    watch.image = None
                unfinished.append((row, steps))
            except StopIteration:
                pass
            except BrokerError:  # Redis was lost: the chunk will be delivered again
                raise
            except Exception as error:  # whatever a step raises is the image's error
                outcomes[row] = None, error_of_row(error)
    return [*outcomes.values()]


def combine_views(model: Model, first: NDArray[np.float32], views: Views) -> NDArray[np.float32]:
    """Combine the first answer, (10,), with the network's answers to other views of the image.

    The result is the weighted mean square of all answers, to the power `SHARPNESS`, divided by its
    sum. So confident views count for more, and parts of the image for less.
    """
    if not views:
        return first
    others = model.classify_together(np.stack([*views.values()]).reshape(-1, PIXELS))
    squares = np.concatenate([first[None], others]) ** 2
    weights = [1.0, *(VIEW_WEIGHTS.get(name, 1.0) for name in views)]
    power = np.average(squares, axis=0, weights=weights) ** SHARPNESS
    return np.asarray(power / power.sum(), np.float32)


def find_best(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The most probable digit of each row, the first if several are equal, and its probability."""
    columns = np.ascontiguousarray(probabilities.T)  # `argmax` along rows takes four times as long
    confidence = columns.max(axis=0)
    label = CLASSES - ((columns == confidence) * FROM_END).max(axis=0)
    return label, confidence


@cache
def reason_words() -> pa.StringArray:
    """What a result has for each of `REASONS`."""
    return pa.array([word or None for word in REASONS])


def build_result(
    batch: pa.RecordBatch,
    probabilities: NDArray[np.float32],
    errors: pa.StringArray,
    reasons: Reasons,
    review_below: float = 1.0,
) -> pa.RecordBatch:
    """Build the result batch; a row with an error has no label and no probabilities.

    A row is to be reviewed if there is a reason: it has an error, it does not look like a digit,
    the image has one of the `reasons`, or the confidence is below `review_below`.
    """
    label, confidence = find_best(probabilities)
    is_else_fine = (reasons == NO_REASON) | (reasons == UNSURE_AT_FIRST)
    reasons = np.where(is_else_fine & (confidence < review_below), UNSURE, reasons)
    reasons[confidence < MIN_DIGIT_CONFIDENCE] = NOT_A_DIGIT
    mask = None
    if errors.null_count < len(errors):
        mask = errors.is_valid().to_numpy(zero_copy_only=False)
        reasons[mask] = FAILED
    values, null = pa.array(probabilities.reshape(-1)), None if mask is None else pa.array(mask)
    columns = [
        batch.column("id"),
        pa.array(label.astype(np.int8), mask=mask),
        pa.array(confidence, mask=mask),
        pa.FixedSizeListArray.from_arrays(values, type=PROBABILITIES, mask=null),
        errors,
        pa.array(reasons != NO_REASON),
        reason_words().take(pa.array(reasons)),
    ]
    return pa.record_batch(columns, schema=RESULT_SCHEMA)
