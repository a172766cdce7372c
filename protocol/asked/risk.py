"""How much may be wrong among the answers that are not marked, and the threshold that follows.

A curve has thresholds of confidence. Each has the largest share of wrong answers at or above it, as
it was measured: in a model's card on real hands that nobody trained with, or in the record of
results that a person has corrected.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter, ValidationError

from digitq.protocol.asked import UnmetError
from digitq.protocol.asked.sample import BOUND_CONFIDENCE, bound_share, show_bound
from digitq.protocol.errors import UsageError

MAX_RISK = 0.5  # a larger risk is taken for a mistake, such as 0.5 for 0.5 %
ROWS_PER_THRESHOLD = 200  # a curve has one threshold for each 200 answers
MAX_THRESHOLDS = 20  # a curve has at most this many thresholds
THRESHOLD_UNIT = 1e-6  # thresholds are rounded up to a multiple of this
REFERENCE = 0.35  # the threshold of a curve at which other answers are compared, as a share of all
HARDER = 1.3  # answers are harder if this many times more of them are below it
HARDER_BY_CHANCE = 1.645  # and more than in 95 % of random samples, in standard deviations
Curve = tuple[tuple[float, float], ...]  # rising thresholds, each with the share that may be wrong


@dataclass(frozen=True)
class Risk:
    """What travels with a job."""

    share: float  # at most this share may be wrong among the answers that are not marked
    curve: Curve = ()  # a person's own answers gave it; if it is empty, the model's card has one
    weights: tuple[str, ...] = ()  # the networks that gave these answers; empty for any


RISK = TypeAdapter(Risk)  # reads what JSON has of one


class LikeRecord(BaseModel):
    """What is read in the record of a corrected result file."""

    class RecordPart(BaseModel):
        weights: tuple[str, ...] = ()

    model: str
    parts: tuple[RecordPart, ...]
    pattern: str | None = None
    allowed: int | None = None
    form: str | None = None
    curve: Curve = ()


def describe_way(pattern: str | None, allowed: int | None, has_form: bool) -> str:
    """What is known of the numbers, in words; a confidence means something else if it differs."""
    if has_form:
        return "a form"
    found = [] if pattern is None else [f"the pattern {pattern}"]
    found += [] if allowed is None else ["a list"]
    return " and ".join(found) or "no pattern, list or form"


def choose_risk(
    risk: float | str | None, like: str | os.PathLike[str] | None, model: str, way: str
) -> Risk:
    """The risk that a person asks for; `way` is as `describe_way` gives it.

    Raises `UsageError` for a share that can't be, and for results that were read with another model
    or in another way, or that promise no such risk.
    """
    if risk is None:
        raise UsageError("`like` says for which images a risk holds: name the risk, such as 0.5%")
    share = read_share(risk)
    if like is None:
        return Risk(share)
    record = read_like(Path(like))
    if record.model != model:
        raise UsageError(f"{like} was read with {record.model}, and not with {model}")
    its_way = describe_way(record.pattern, record.allowed, record.form is not None)
    if its_way != way:
        raise UsageError(
            f"{like} was read with {its_way}, and not with {way}: its confidences can't be compared"
        )
    if not record.curve:
        raise UsageError(
            f"{like} has no sample of unmarked rows that a person has looked at: "
            "`digitq report RESULTS --sample 600` draws one, and `digitq correct` measures it"
        )
    weights = dict.fromkeys(name for part in record.parts for name in part.weights)
    find_threshold(record.curve, share, str(like))
    return Risk(share, record.curve, tuple(weights))


def read_share(risk: float | str) -> float:
    """The share that is meant by `0.5%`, `0.005` or 0.005. Raises `UsageError`."""
    try:
        text = str(risk).strip()
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < MAX_RISK:
        raise UsageError(
            f"the risk is {risk}: it must be a share such as 0.5%, or 0.005, above 0 and below 50%"
        )
    return share


def read_like(path: Path) -> LikeRecord:
    """The record of a corrected result file. Raises `UsageError` if there is none."""
    record = path.with_name(f"{path.name}.json")
    try:
        return LikeRecord.model_validate_json(record.read_bytes())
    except FileNotFoundError:
        raise UsageError(
            f"{record} is missing: `like` is a file that `digitq correct` wrote"
        ) from None
    except OSError as error:
        raise UsageError(f"can't read {record}: {error.strerror or error}") from None
    except ValidationError:
        raise UsageError(f"{record} is not the record of a result file") from None


def measure_curve(
    confidences: NDArray[np.floating], is_wrong: NDArray[np.bool_], lowest: float = 0.0
) -> Curve:
    """The curve of answers drawn at random, (N,) each, which are not marked from `lowest` on.

    All of its shares hold together for 95 % of the samples that could be drawn: each is bounded as
    `bound_share` does, with the part of the 5 % that it has (C. E. Bonferroni).
    """
    steps = min(MAX_THRESHOLDS, max(1, len(confidences) // ROWS_PER_THRESHOLD))
    # Most errors are among the least sure answers, so the thresholds are close together there
    marked = (np.arange(1, steps) / steps) ** 2
    units = np.ceil(np.quantile(confidences, marked) / THRESHOLD_UNIT) if len(confidences) else []
    thresholds = {lowest, *(min(1.0, round(float(one) * THRESHOLD_UNIT, 6)) for one in units)}
    curve = []
    for threshold in sorted(thresholds):
        wrong = is_wrong[confidences >= threshold]
        most = bound_share(int(wrong.sum()), len(wrong), 1 - (1 - BOUND_CONFIDENCE) / steps)
        curve.append((threshold, round(most, 6)))
    return tuple(curve)


@dataclass(frozen=True)
class Likeness:
    """Whether answers are like those by which a curve was measured."""

    unsure: int = 0  # so many are less sure than a threshold of the curve
    compared: int = 0  # of so many
    usual: float = 0.0  # the share of the curve's own answers that was
    measured: int = 0  # of so many of these, at least

    def __add__(self, other: Self) -> Self:
        sums = self.unsure + other.unsure, self.compared + other.compared
        return replace(other if other.measured else self, unsure=sums[0], compared=sums[1])

    @property
    def is_harder(self) -> bool:
        expected = self.usual * self.compared
        both = 1 + self.compared / max(1, self.measured)  # the curve is of a sample, too
        by_chance = HARDER_BY_CHANCE * math.sqrt(expected * (1 - self.usual) * both)
        return self.unsure > max(HARDER * expected, expected + by_chance)


LIKENESS = TypeAdapter(Likeness)  # reads what JSON has of one


def compare(curve: Curve, confidences: NDArray[np.floating]) -> Likeness:
    """Compare answers that can be unsure, (N,), with those of a curve. As `measure_curve` has it,
    the share below a threshold is a square, unless some of them were equal. Such a curve, or one of
    one threshold, says nothing."""
    at, has_equal = round(REFERENCE * len(curve)), len(curve) < MAX_THRESHOLDS and curve[-1][0] == 1
    if not at or has_equal:
        return Likeness()
    compared = confidences[confidences >= curve[0][0]]
    usual = round((at / len(curve)) ** 2, 4)
    unsure = int((compared < curve[at][0]).sum())
    return Likeness(unsure, len(compared), usual, ROWS_PER_THRESHOLD * len(curve))


def find_threshold(curve: Curve, share: float, name: str) -> float:
    """The lowest threshold above which no larger share is wrong. Raises `UnmetError`; `name` says
    whose curve it is."""
    for threshold, most in curve:
        if most <= share:
            return threshold
    if not curve:
        raise UnmetError(
            f"{name} can promise no risk, as nobody has measured it: look at a random sample of "
            "its results (`digitq report --sample`, `digitq correct`), and name them with --like"
        )
    best = min(most for _, most in curve)
    raise UnmetError(
        f"{name} can promise a risk of {show_bound(best)} at best, and not of {show_bound(share)}: "
        "--like results with a larger sample (`digitq report --sample`) may promise a smaller one"
    )
