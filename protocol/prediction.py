"""The answers to single calls."""

from dataclasses import dataclass, field
from typing import TypeAlias

import pyarrow as pa

from digitq.protocol.asked.form import Form
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


def to_fields(results: pa.RecordBatch, form: Form) -> dict[str, NumberPrediction]:
    """The predictions for the fields of one page, by their names on it."""
    found = [one for one in to_predictions(results) if isinstance(one, NumberPrediction)]
    return dict(zip((cell.id for cell in form.cells), found, strict=True))


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
