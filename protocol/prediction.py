"""The answers to single calls."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import pyarrow as pa

from digitq.protocol.chunk import Alternative, FoundDigit, page_starts


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: ten probabilities that sum to 1, or an error. `review` is true if
    a person should look at the image, and `reason` says why: one of `REASONS` of
    `digitq.protocol.chunk`. `id` is that of the image; answers are equal whatever it is."""

    label: int | None
    confidence: float | None
    probabilities: tuple[float, ...] | None
    error: str | None
    review: bool
    reason: str | None = None
    id: str = field(default="", compare=False)


@dataclass(frozen=True)
class NumberPrediction:
    """The number in one image, or an error. `number` is text as it is written: `007` stays `007`,
    and it is empty if nothing is written. `confidence` is the probability that all of it is right.
    `review`, `reason` and `id` are as in a `Prediction`."""

    number: str | None
    confidence: float | None
    digits: tuple[FoundDigit, ...] | None
    alternatives: tuple[Alternative, ...] | None
    error: str | None
    review: bool
    reason: str | None = None
    id: str = field(default="", compare=False)


Answer: TypeAlias = Prediction | NumberPrediction | dict[str, NumberPrediction]


def to_answers(results: pa.RecordBatch) -> Sequence[Answer]:
    """The answer for each image of a result batch; that of a page has the fields by their names."""
    predictions = to_predictions(results)
    if "page" not in results.schema.names:
        return predictions
    starts, pages = page_starts(results), results.column("page").to_pylist()
    return [
        {
            one.id.removeprefix(f"{page}/"): one
            for one, page in zip(predictions[start:end], pages[start:end], strict=True)
            if isinstance(one, NumberPrediction)
        }
        for start, end in pairwise([*starts, results.num_rows])
    ]


def to_predictions(results: pa.RecordBatch) -> list[Prediction | NumberPrediction]:
    """One prediction for each row of a result batch."""
    kind = NumberPrediction if "number" in results.schema.names else Prediction
    rows = results.select([*kind.__dataclass_fields__]).to_pylist()
    for row in rows:
        if row["error"] is not None:
            continue
        if kind is Prediction:
            row["probabilities"] = tuple(row["probabilities"] or ())
        else:
            row["digits"] = tuple(FoundDigit(**digit) for digit in row["digits"] or ())
            row["alternatives"] = tuple(Alternative(**other) for other in row["alternatives"] or ())
    return [kind(**row) for row in rows]
