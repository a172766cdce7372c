"""`Prediction`: the answer for one image, as Python objects."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: ten probabilities that sum to 1, or an error.

    `review` is true if a person should look at the image: the network is unsure, or there is no
    answer.
    """

    label: int | None
    confidence: float | None
    probabilities: tuple[float, ...] | None
    error: str | None
    review: bool


def to_predictions(results: pa.RecordBatch) -> list[Prediction]:
    """One prediction for each row of a result batch."""
    rows = results.select([*Prediction.__dataclass_fields__]).to_pylist()
    for row in rows:
        if row["probabilities"] is not None:
            row["probabilities"] = tuple(row["probabilities"])
    return [Prediction(**row) for row in rows]
