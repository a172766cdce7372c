"""Measures accuracy and calibration, and chooses temperatures and review thresholds."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protocol.chunk import CALIBRATION_BINS, Reason
from protocol.known import Known
from protocol.values import NUMERALS
from worker.models.card import Card
from worker.models.network import Network
from worker.models.number import NumberReader
from worker.sight.numbers.recognition import choose_readings, look
from worker.sight.numbers.weighing import Proposal
from worker.sight.types import Grey, ImageError

REVIEWED_SHARE = 0.015  # with the threshold chosen, this share of validation images is reviewed
NO_READING = Proposal("?", 0.0)  # where nothing can be read; it is never right
MARKED_SHARE = 0.8  # with the review threshold, this share of the wrong numbers is to be reviewed
MIN_THRESHOLD = 0.5  # a number that is more probably wrong than right is always to be reviewed


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
    """What was read in N pictures, freely and with the form of the number known: (N,) each."""

    chances: Tensor  # the probability of the free reading, 0 if there is none
    digits: Tensor  # how many digits it has, 1 if there is none
    is_doubted: Tensor  # whether it is to be reviewed, however sure the networks are
    is_right: Tensor
    known_chances: Tensor  # the probability of the reading of that form, 0 if there is none
    is_known_right: Tensor


def read_pictures(reader: NumberReader, pictures: Iterable[NumberPicture]) -> Answers:
    """Read the number in each picture."""
    rows = []
    for picture, number in pictures:
        free = known = NO_READING
        reason: Reason = ""
        with suppress(ImageError):  # nothing was found
            seen = look(reader, picture)
            (free, *_), reason, _ = choose_readings(seen, Known())
            form = "".join(r"\d" if sign in NUMERALS else rf"\{sign}" for sign in number)
            (best, *_), _, is_free = choose_readings(seen, Known(form))
            known = NO_READING if is_free else best
        is_right, is_known_right = (one.number == number for one in (free, known))
        digits = max(1, len(free.number))
        rows.append((free.chance, digits, reason != "", is_right, known.chance, is_known_right))
    return Answers(*(torch.tensor(column) for column in zip(*rows, strict=True)))


def calibrate_card(card: Card, answers: Answers, judged: Answers | None = None) -> Card:
    """The card with what makes confidence match accuracy, and the threshold for `review`.

    The threshold is chosen by the `judged` answers, or by all.

    The confidence of a free reading also depends on its count of digits. A reading whose length was
    known has a confidence of its own: no other length takes a part of its probability, so that is
    too high more often.
    """
    lengths = answers.digits.double().log()
    slope, length_factor, offset = fit_odds(answers, answers.chances, answers.is_right, lengths)
    known_slope, known_offset = fit_odds(answers, answers.known_chances, answers.is_known_right)
    card = replace(
        card,
        temperature=round(1 / slope, 4),
        offset=round(offset, 4),
        length_factor=round(length_factor, 4),
        known_temperature=round(1 / known_slope, 4),
        known_offset=round(known_offset, 4),
    )
    judged = judged or answers
    return replace(card, review_below=choose_threshold(calibrated(card, judged), judged))


def fit_odds(answers: Answers, chances: Tensor, is_right: Tensor, *features: Tensor) -> list[float]:
    """The slopes of the chances' log-odds and of other features, (N,) each, and the offset.

    They are for readings without another doubt: a clear number that looks doubtful is mostly read
    wrongly, one with another line is not.
    """
    kept = ~answers.is_doubted & (chances > 0)
    inputs = torch.stack([torch.logit(chances.double(), 1e-6), *features], 1)
    return fit_logistic(inputs[kept], is_right[kept].double())


def calibrated(card: Card, answers: Answers) -> Tensor:
    """The confidence of each reading, (N,)."""
    pairs = zip(answers.chances.tolist(), answers.digits.tolist(), strict=True)
    return torch.tensor([card.calibrate(chance, digits) for chance, digits in pairs])


def measure_gaps(card: Card, answers: Answers) -> float:
    """The expected calibration error of the free readings."""
    is_read = answers.chances > 0
    return measure_calibration_error(calibrated(card, answers)[is_read], answers.is_right[is_read])


def choose_threshold(confidence: Tensor, answers: Answers) -> float:
    """The confidence below which a number is to be reviewed, from those of readings, (N,).

    It is at least `MIN_THRESHOLD`: a network that has hardly learned is never confident.
    """
    wrong = confidence.masked_fill(answers.is_doubted, 0.0)[~answers.is_right]
    threshold = wrong.quantile(MARKED_SHARE).item() if len(wrong) else 0.0
    return round(max(MIN_THRESHOLD, threshold), 4)
