"""How well digits or numbers are read: counted batch by batch, as figures, and in a few lines."""

from collections import Counter
from collections.abc import Iterable, Iterator
from math import sqrt
from operator import eq
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from digitq.producer.sinks.sink import Sink
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.sample import Sample, bound_share
from digitq.protocol.chunk import CALIBRATION_BINS, CLASSES, answers, corrected, failures, unmarked
from digitq.protocol.settings import What

NORMAL_95 = 1.959964  # 95 % of a normal distribution is within this many standard deviations
Figures = dict[str, Any]  # it can be written as JSON
SHARE_NAMES = {  # the figures that are shares, and what they are called
    "accuracy": "accuracy",
    "digits_right": "digits, if length right",
    "accuracy_not_to_review": "accuracy, not to review",
    "to_review": "to review",
    "wrong_to_review": "wrong ones to review",
}


class ScoreSink(Sink):
    """Compares answers with their truths, and keeps no rows."""

    def __init__(self, read: What, risk: float | None = None, form: Form | None = None) -> None:
        self.read = read
        self.risk = risk  # so much was promised to be wrong, at most, where nothing is marked
        self.promised_of = form if risk else None  # the promise is of this form's numbers alone
        self.error: str | None = None  # the first error in any row
        # Answers with a truth, and the wrong ones of them, by reason to review: "" is none
        self.answers, self.wrong = Counter({"": 0}), Counter[str]()
        self.bins = np.zeros((CALIBRATION_BINS, 3))  # answers, sum of confidences, right answers
        self.confusion = np.zeros((CLASSES, CLASSES), np.int64)  # (truth, answer), of digits
        self.unmarked = np.zeros(3, np.int64)  # all, those with a truth, and the wrong ones of them
        self.digits = self.right_digits = 0  # they are counted in numbers of the right length

    def write(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch, and compare those with both a truth and an answer."""
        self.count(batch)
        errors = batch.column("error").filter(failures(batch))
        if self.error is None and len(errors):
            self.error = errors[0].as_py()
        is_unmarked = unmarked(batch)
        if self.promised_of:
            are_numbers = pa.array(self.promised_of.are_numbers(batch.column("id").to_pylist()))
            is_unmarked = pc.and_(is_unmarked, are_numbers)
        self.unmarked[0] += pc.sum(is_unmarked).as_py() or 0
        if "truth" not in batch.schema.names:
            return
        right = pc.equal(answers(batch), batch.column("truth"))
        sure = right.filter(is_unmarked).drop_null()
        self.unmarked[1:] += len(sure), len(sure) - (pc.sum(sure).as_py() or 0)
        batch, right = batch.filter(right.is_valid()), right.drop_null()
        answer, truth = answers(batch), batch.column("truth")
        reasons = pc.if_else(batch.column("review"), batch.column("reason").fill_null("other"), "")
        self.answers.update(reasons.to_pylist())
        self.wrong.update(reasons.filter(pc.invert(right)).to_pylist())
        confidence = batch.column("confidence")
        is_counted = pc.and_not(confidence.is_valid(), corrected(batch))  # a person gives none
        values, hits = (
            column.filter(is_counted).to_numpy(zero_copy_only=False)
            for column in (confidence, right)
        )
        bins = (values * CALIBRATION_BINS).astype(int).clip(0, CALIBRATION_BINS - 1)
        np.add.at(self.bins, bins, np.stack([np.ones_like(values), values, hits], axis=1))
        if self.read == "digit":
            np.add.at(self.confusion, (truth.to_numpy(), answer.to_numpy()), 1)
            return
        for number, wanted in zip(answer.to_pylist(), truth.to_pylist(), strict=True):
            if len(number) == len(wanted):
                self.digits += len(wanted)
                self.right_digits += sum(map(eq, number, wanted))

    def sample(self) -> Sample:
        """What the unmarked rows with a truth say about all that are like them."""
        rows, looked_at, wrong = self.unmarked.tolist()
        bound = bound_share(wrong, looked_at)
        return Sample(unmarked=rows, looked_at=looked_at, wrong=wrong, at_most=bound)

    def figures(self) -> Figures:
        """All figures, as JSON can hold them. A share of nothing is None."""
        counts, sure = self.counts, self.answers[""]
        wrong = counts.labelled - counts.correct
        figures: Figures = {
            "read": self.read,
            "images": counts.images,
            "failed": counts.failed,
            "without_truth": counts.unlabelled,
            "accuracy": share(counts.correct, counts.labelled),
            "accuracy_not_to_review": share(sure - self.wrong[""], sure),
            "to_review": share(counts.labelled - sure, counts.labelled),
            "wrong_to_review": share(wrong - self.wrong[""], wrong),
            "reasons": {
                reason: {"answers": answers, "wrong": self.wrong[reason]}
                for reason, answers in self.answers.most_common()
                if reason
            },
            "unmarked": self.sample().figures() | {"promised": self.risk},
            "calibration_error": self.calibration_error(),
            "calibration": [
                {"confidence": confidence / answers, "accuracy": share(int(right), int(answers))}
                for answers, confidence, right in self.bins.tolist()
                if answers
            ],
        }
        if self.read == "number":
            return figures | {"digits_right": share(self.right_digits, self.digits)}
        right, confusion = self.confusion.diagonal().tolist(), self.confusion
        return figures | {
            "confusion": confusion.tolist(),  # a row for each true digit, a column for each answer
            "recall": divide(right, confusion.sum(axis=1).tolist()),
            "precision": divide(right, confusion.sum(axis=0).tolist()),
        }

    def calibration_error(self) -> float | None:
        """The expected calibration error, 0..1 (M. P. Naeini et al., 2015)."""
        counts, confidences, rights = self.bins.T
        gaps = np.abs(confidences - rights).sum()
        return float(gaps / counts.sum()) if counts.any() else None


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of Wilson for a share, as two numbers 0..1; 0..1 if nothing was counted.

    Unlike mean ± deviations it stays within 0..1, and is not empty if all or none are right.
    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval#Wilson_score_interval
    """
    if not total:
        return 0.0, 1.0
    share, squared = right / total, NORMAL_95**2
    middle = (share + squared / (2 * total)) / (1 + squared / total)
    spread = sqrt(share * (1 - share) / total + squared / (4 * total**2))
    half = NORMAL_95 * spread / (1 + squared / total)
    low = middle - half if right else 0.0
    return low, middle + half if right < total else 1.0  # rounding must not pass the share


def share(part: int, whole: int) -> Figures:
    """A share with its 95 % interval, 0..1; both None if it is a share of nothing."""
    interval = [*wilson(part, whole)] if whole else None
    return {"count": part, "of": whole, "share": divide([part], [whole])[0], "interval": interval}


def divide(parts: Iterable[int], wholes: Iterable[int]) -> list[float | None]:
    """The share of each part in its whole; None if that is 0."""
    pairs = zip(parts, wholes, strict=True)
    return [part / whole if whole else None for part, whole in pairs]


def tabulate_scores(figures: Figures) -> str:
    """The confusion matrix of digits, the shares with their intervals, and the reasons."""
    lines = [*tabulate_confusion(figures), ""] if "confusion" in figures else []
    lines.append(f"{'':24}{'share':>8}{'of':>12}   95 % interval")
    for key, name in SHARE_NAMES.items():
        if share := figures.get(key):
            interval = " to ".join(map(percent, share["interval"] or []))
            line = f"{name:24}{percent(share['share']):>8}{share['of']:12,}   {interval}"
            lines.append(line.rstrip())
    lines.append(f"{'calibration error':24}{percent(figures['calibration_error']):>8}")
    if figures["reasons"]:
        lines += ["", f"{'to review because of':24}{'answers':>8}{'wrong':>12}"]
    for reason, counts in figures["reasons"].items():
        lines.append(f"{reason:24}{counts['answers']:8,}{counts['wrong']:12,}")
    return "\n".join(lines)


def tabulate_confusion(figures: Figures) -> Iterator[str]:
    """The matrix with the recall and precision of each class, and their means."""
    width = max(5, *(len(f" {count}") for row in figures["confusion"] for count in row))
    head = "".join(f"{digit:{width}}" for digit in range(CLASSES))
    yield f"{'answer':>{width + 6}}"
    yield f"truth{head}   recall  precision"
    measures = zip(figures["confusion"], figures["recall"], figures["precision"], strict=True)
    for digit, (counts, *shares) in enumerate(measures):
        row = "".join(f"{count:{width}}" for count in counts)
        yield f"{digit:>5}{row}  {percent(shares[0]):>7}  {percent(shares[1]):>9}"
    means = [average(figures[measure]) for measure in ("recall", "precision")]
    yield f"{'mean':>5}{'':{CLASSES * width}}  {percent(means[0]):>7}  {percent(means[1]):>9}"


def average(shares: list[float | None]) -> float | None:
    """The mean of the shares that are not None; None if all are."""
    defined = [share for share in shares if share is not None]
    return sum(defined) / len(defined) if defined else None


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
