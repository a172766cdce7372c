"""The bar charts of a page, as rows that its template draws."""

from typing import NamedTuple

import numpy as np

from digitq.reports.survey import CONFIDENCE_BINS, Survey
from protocol.chunk import CLASSES


class Bar(NamedTuple):
    """One bar: what its images have in common, and how many they are."""

    label: str
    images: int
    length: float  # % of the chart's width
    review: int = 0  # how many of the images are to review
    review_length: float = 0


def chart_answers(survey: Survey) -> list[Bar]:
    """How often each digit is the answer, or how many whole numbers have each length."""
    counts = survey.answers
    if not counts.any():
        return []
    shown = range(CLASSES)
    if survey.scores.read == "number":
        shown = range(1, int(np.flatnonzero(counts).max()) + 1)
    return [Bar(str(one), int(counts[one]), 100 * counts[one] / counts.max()) for one in shown]


def chart_confidences(survey: Survey) -> list[Bar]:
    """How many answers have which confidence, from the least sure on. Lengths are logarithmic:
    almost all answers are sure, and the few others matter."""
    counts = survey.sure + survey.unsure
    if not counts.any():
        return []
    lengths, review_lengths = (
        100 * np.log1p(part) / np.log1p(counts.max()) for part in (counts, survey.unsure)
    )
    width = 100 // CONFIDENCE_BINS
    return [
        Bar(
            f"{part * width} to {(part + 1) * width}%",
            int(counts[part]),
            lengths[part],
            int(survey.unsure[part]),
            review_lengths[part],
        )
        for part in range(int(np.flatnonzero(counts).min()), CONFIDENCE_BINS)
    ]
