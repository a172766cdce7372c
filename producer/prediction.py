"""`Prediction`: the answer for one image, as Python has it."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: ten probabilities that sum to 1, or an error.

    `review` says that a person should look at it: the network is not sure, or there is no answer.
    """

    label: int | None
    confidence: float | None
    probabilities: list[float] | None
    error: str | None
    review: bool


def to_predictions(results: pa.RecordBatch) -> list[Prediction]:
    """A result batch's rows."""
    names = Prediction.__dataclass_fields__
    columns = [results.column(name).to_pylist() for name in names]
    return [Prediction(*row) for row in zip(*columns, strict=True)]
