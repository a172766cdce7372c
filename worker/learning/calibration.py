"""Measures accuracy and calibration, and chooses temperatures and review thresholds."""

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from digitq.protocol.asked.known import Known
from digitq.protocol.asked.values import AS_WRITTEN, NUMERALS, only_digits
from digitq.protocol.chunk import CALIBRATION_BINS
from digitq.worker.models.card import Card, list_features
from digitq.worker.models.network import Network
from digitq.worker.models.number_networks import NumberReader
from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.numbers.recognition import choose_readings, look
from digitq.worker.sight.numbers.weighing import Proposal

REVIEWED_SHARE = 0.015  # with the threshold chosen, this share of validation images is reviewed
NO_READING = Proposal("?", 0.0)  # where nothing can be read; it is never right
MARKED_SHARE = 0.8  # with the review threshold, this share of the wrong numbers is to be reviewed
MIN_THRESHOLD = 0.5  # a number that is more probably wrong than right is always to be reviewed


class Judged(NamedTuple):
    """The answers to N images, and what decides whether they are marked: (N,) each."""

    confidence: Tensor  # 0 where the answer is to be reviewed, however sure the network is
    is_right: Tensor


class Score(NamedTuple):
    """What became of some images, as shares of all."""

    right: float
    to_review: float
    unmarked_errors: float  # wrong, and not to be reviewed

    @property
    def right_and_unmarked(self) -> float:
        return round(1 - self.to_review - self.unmarked_errors, 6)


def measure_score(judged: Judged, review_below: float) -> Score:
    """What became of images if answers of lower confidence are to be reviewed."""
    is_marked = judged.confidence < review_below
    parts = judged.is_right, is_marked, ~(judged.is_right | is_marked)
    return Score(*map(measure_share, parts))


def raise_threshold(review_below: float, most: float, judged: Judged) -> float:
    """The threshold, raised until at most this share of the images is wrong and unmarked."""
    wrong = judged.confidence[~judged.is_right].double().sort(descending=True).values
    kept = round(most * len(judged.is_right))  # so many may stay unmarked
    if kept < len(wrong):
        review_below = max(review_below, math.floor(wrong[kept].item() * 1e4 + 1.1) / 1e4)
    return min(1.0, review_below)


def classify(network: nn.Module, images: Tensor) -> Tensor:
    """Ten probabilities for each image: (N, 28, 28) → (N, 10)."""
    with torch.inference_mode():
        return torch.cat([network(part) for part in torch.split(images.flatten(1), 1000)])


def measure(probabilities: Tensor, labels: Tensor) -> tuple[float, float]:
    """The accuracy of probabilities, (N, 10), for labels, (N,), and their calibration error."""
    confidence, answers = probabilities.max(1)
    is_right = answers == labels
    return measure_share(is_right), measure_calibration_error(confidence, is_right)


def measure_share(is_right: Tensor) -> float:
    """The share of right answers, from whether each is right, (N,)."""
    return round(is_right.double().mean().item(), 6)


def measure_calibration_error(confidence: Tensor, is_right: Tensor) -> float:
    """The expected calibration error, 0..1, of confidences, (N,), and whether each answer is right.

    It is the mean gap between confidence and accuracy over bins of equal width, weighted by their
    rows (M. P. Naeini et al., 2015).
    """
    gaps = confidence.double() - is_right.double()
    places = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    sums = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, places, gaps)
    return round((sums.abs().sum() / max(1, len(is_right))).item(), 6)


def fit_logistic(features: Tensor, truths: Tensor) -> list[float]:
    """The logistic regression of truths, 0 or 1, on features: (N,) and (N, K).

    Gives the K slopes, and the offset as the last.
    """
    inputs = F.pad(features, (0, 1), value=1.0)
    line = torch.tensor([1.0] + [0.0] * features.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def measure() -> Tensor:
        solver.zero_grad()
        loss = F.binary_cross_entropy_with_logits(inputs @ line, truths)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(measure)  # type: ignore[no-untyped-call]
    return list(line.tolist())


def choose_temperature(network: Network, images: Tensor, labels: Tensor) -> float:
    """The temperature with the least cross entropy for images, (N, 28, 28), and labels, (N,).

    C. Guo et al., "On calibration of modern neural networks", 2017.
    """
    with torch.inference_mode():
        logits = network.logits(images.flatten(1))
        temperatures = torch.linspace(-2, 2, 401).exp()
        losses = torch.stack([F.cross_entropy(logits / t, labels) for t in temperatures])
    return round(temperatures[losses.argmin()].item(), 3)


def choose_digit_threshold(probabilities: Tensor) -> float:
    """The confidence below which `REVIEWED_SHARE` of the answers are: (N, 10)."""
    return round(probabilities.amax(1).quantile(REVIEWED_SHARE).item(), 4)


class NumberPicture(NamedTuple):
    """A picture, and the number in it."""

    picture: Grey
    number: str


class Answers(NamedTuple):
    """What was read in pictures, in each of several ways: (N,) each."""

    chances: Tensor  # the probability of the reading, 0 if no number was read
    is_length_known: Tensor  # whether its count of digits was known
    is_agreed: Tensor  # whether the second reader alone reads it, and the others without it
    is_free: Tensor  # whether nothing was known
    is_doubted: Tensor  # whether it is to be reviewed, however sure the networks are
    is_right: Tensor

    @property
    def accuracy(self) -> float:
        """The share of the right ones of the free readings."""
        return measure_share(self.is_right[self.is_free])

    def list_read(self, kept: Tensor) -> Iterator[tuple[float, bool, bool]]:
        """What the confidence of each of these readings depends on, (N,)."""
        columns = self.chances, self.is_length_known, self.is_agreed
        return zip(*(column[kept].tolist() for column in columns), strict=True)


def join_answers(parts: Iterable[Answers]) -> Answers:
    return Answers(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def read_pictures(reader: NumberReader, pictures: Iterable[NumberPicture]) -> Answers:
    """Read the number in each picture freely, as digits only, and with its form known."""
    rows = [row for picture, number in pictures for row in read_ways(reader, picture, number)]
    return Answers(*(torch.tensor(column) for column in zip(*rows, strict=True)))


def read_ways(
    reader: NumberReader, picture: Grey, number: str
) -> Iterator[tuple[float, bool, bool, bool, bool, bool]]:
    """What `Answers` has of one picture, for each way to read it."""
    ways = Known(), Known("integer"), Known(write_form(number))
    wanted = number, only_digits(number), number
    seen = None
    with suppress(ImageError):  # nothing was found
        seen = look(reader, picture)
    for known, right in zip(ways, wanted, strict=True):
        best, reason, is_free, is_agreed = NO_READING, "", True, False
        with suppress(ImageError):
            if seen:
                (best, *_), reason, is_free, last = choose_readings(seen, known)
                is_agreed = last.is_agreed(best.number, AS_WRITTEN if is_free else known.automaton)
        chance = best.chance if best.number else 0.0
        is_length_known = known.fixes_length and not is_free
        is_right = best.number == right
        yield chance, is_length_known, is_agreed, known.is_nothing, reason != "", is_right


def write_form(number: str) -> str:
    """The pattern of numbers with digits and signs in the same places."""
    return "".join(r"\d" if sign in NUMERALS else re.escape(sign) for sign in number)


def calibrate_card(card: Card, answers: Answers) -> Card:
    """The card with what makes confidence match accuracy, and the threshold for `review`.

    It is fitted to readings without another doubt: a clear number that looks doubtful is mostly
    read wrongly, one with another line is not.
    """
    kept = ~answers.is_doubted & (answers.chances > 0)
    features = [list_features(*row) for row in answers.list_read(kept)]
    names = [*list_features(0.5, False, False)]  # the last one is the offset
    if not answers.is_agreed.any():  # there was no second reader
        names.remove("agreed")
    values = [[one[name] for name in names] for one in features]
    inputs = torch.tensor(values, dtype=torch.double).reshape(-1, len(names))[:, :-1]
    slopes = fit_logistic(inputs, answers.is_right[kept].double())
    rounded = (round(one, 4) for one in slopes)
    card = replace(card, calibration=dict(zip(names, rounded, strict=True)))
    return replace(card, review_below=choose_threshold(calibrated(card, answers), answers))


def calibrated(card: Card, answers: Answers) -> Tensor:
    """The confidence of each reading, (N,)."""
    rows = answers.list_read(torch.ones_like(answers.is_right))
    return torch.tensor([card.calibrate(*row) for row in rows])


def measure_gaps(card: Card, answers: Answers) -> float:
    """The expected calibration error of the readings."""
    is_read = answers.chances > 0
    return measure_calibration_error(calibrated(card, answers)[is_read], answers.is_right[is_read])


def choose_threshold(confidence: Tensor, answers: Answers) -> float:
    """The confidence below which a number is to be reviewed, from those of readings, (N,).

    It is at least `MIN_THRESHOLD`: a network that has hardly learned is never confident.
    """
    wrong = confidence.masked_fill(answers.is_doubted, 0.0)[~answers.is_right]
    threshold = wrong.quantile(MARKED_SHARE).item() if len(wrong) else 0.0
    return round(max(MIN_THRESHOLD, threshold), 4)
