"""The answers to single calls."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import pyarrow as pa

from digitq.protocol.chunk import ABSENT, Alternative, FoundDigit


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
    `review`, `reason` and `id` are as in a `Prediction`; if `reason` is `absent`, the page has no
    such row of a table, and `number` is None."""

    number: str | None
    confidence: float | None
    digits: tuple[FoundDigit, ...] | None
    alternatives: tuple[Alternative, ...] | None
    error: str | None
    review: bool
    reason: str | None = None
    id: str = field(default="", compare=False)


Answer: TypeAlias = Prediction | NumberPrediction | dict[str, NumberPrediction]


def to_answers(results: pa.RecordBatch, cells: Sequence[str]) -> Sequence[Answer]:
    """The answer for each image of a result batch. `cells` are the ids of the fields on a page, if
    the images are pages."""
    predictions = to_predictions(results)
    if not cells:
        return predictions
    fields = [one for one in predictions if isinstance(one, NumberPrediction)]
    pages = range(0, len(fields), len(cells))
    return [dict(zip(cells, fields[row : row + len(cells)], strict=True)) for row in pages]


def to_predictions(results: pa.RecordBatch) -> list[Prediction | NumberPrediction]:
    """One prediction for each row of a result batch."""
    kind = NumberPrediction if "number" in results.schema.names else Prediction
    rows = results.select([*kind.__dataclass_fields__]).to_pylist()
    for row in rows:
        if row["error"] is not None or row["reason"] == ABSENT:
            continue
        if kind is Prediction:
            row["probabilities"] = tuple(row["probabilities"] or ())
        else:
            row["digits"] = tuple(FoundDigit(**digit) for digit in row["digits"] or ())
            row["alternatives"] = tuple(Alternative(**other) for other in row["alternatives"] or ())
    return [kind(**row) for row in rows]
