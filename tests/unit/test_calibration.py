"""Calibration: temperatures, thresholds, and the confidence of whole numbers."""

import dataclasses
import math

import pytest
import torch

from digitq.protocol.chunk import CLASSES
from digitq.worker.learning.calibration import (
    MARKED_SHARE,
    REVIEWED_SHARE,
    Answers,
    calibrate_card,
    calibrated,
    choose_digit_threshold,
    choose_temperature,
    choose_threshold,
    join_answers,
    measure,
    measure_calibration_error,
    measure_gaps,
)
from digitq.worker.models.card import Card
from digitq.worker.models.network import Mlp


def make_network(sharpness: float) -> Mlp:
    """A network that reads the label from the first ten pixels, as `draw_labels` sets them."""
    network = Mlp(0.0, 1.0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.b1[CLASSES:] = -1e4  # only ten of the hidden units matter
        network.w1[:CLASSES, :CLASSES] = torch.eye(CLASSES) * 50
        network.w2[:CLASSES] = torch.eye(CLASSES) * sharpness
    return network


def draw_labels(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(CLASSES, (count,))
    shown = torch.where(torch.rand(count) < 0.1, torch.randint(CLASSES, (count,)), labels)
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    images[torch.arange(count), 0, shown] = 255
    return images, labels


@pytest.mark.parametrize("sharpness", [2.0, 4.0, 12.0])
def test_a_temperature_makes_confidence_the_accuracy(sharpness: float) -> None:
    network, (images, labels) = make_network(sharpness), draw_labels(4000)
    network.temperature = choose_temperature(network, images, labels)
    with torch.inference_mode():
        answers = network(images.flatten(1))
    assert answers.max(1).values.mean().item() == pytest.approx(0.91, abs=0.02)
    assert measure(answers, labels)[1] < 0.02


def test_so_many_of_the_held_back_images_are_to_be_reviewed() -> None:
    torch.manual_seed(0)
    network = Mlp(0.5, 0.5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    images = torch.randint(256, (2000, 28, 28), dtype=torch.uint8)
    network.temperature = choose_temperature(network, images, torch.randint(10, (2000,)))
    with torch.inference_mode():
        answers = network(images.flatten(1))
    confidence, below = answers.amax(1), choose_digit_threshold(answers)
    assert (confidence < below).float().mean().item() == pytest.approx(REVIEWED_SHARE, abs=0.01)


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = torch.full((100, 10), 0.2 / 9)
    probabilities[:, 0] = 0.8
    for right in (100, 80, 30):
        labels = torch.cat([torch.zeros(right), torch.ones(100 - right)]).long()
        accuracy, gap = measure(probabilities, labels)
        assert accuracy == right / 100
        assert gap == pytest.approx(abs(0.8 - right / 100), abs=1e-6)


def draw_answers(slope: float, offset: float, is_known: bool, seed: int) -> Answers:
    """Readings that are right as often as the logistic curve of their log-odds says."""
    torch.manual_seed(seed)
    logits = 2 + 2 * torch.randn(5000).double()
    is_right = torch.rand(5000) < torch.sigmoid(slope * logits + offset)
    is_doubted = torch.rand(5000) < 0.2
    is_right &= ~is_doubted | (torch.rand(5000) < 0.3)
    known = torch.full((5000,), is_known)
    return Answers(logits.sigmoid(), known, ~known & known, ~known, is_doubted, is_right)


def test_the_confidence_of_a_number_is_fitted_apart_if_its_length_was_known() -> None:
    parts = [draw_answers(0.8, -1, False, 0), draw_answers(0.5, 0.3, True, 1)]
    answers = join_answers(parts)
    card = calibrate_card(Card("number", "", 0, 1), answers)
    found = [card.calibration[name] for name in ("chance", "offset")]
    assert found == pytest.approx((0.8, -1), abs=0.15)
    more = [card.calibration[name] for name in ("chance if length known", "length known")]
    assert more == pytest.approx((0.5 - 0.8, 0.3 + 1), abs=0.25)
    confidence = calibrated(card, answers)
    for is_known in (False, True):
        rows = ~answers.is_doubted & (answers.is_length_known == is_known)
        assert measure_calibration_error(confidence[rows], answers.is_right[rows]) < 0.05
    is_marked = answers.is_doubted | (confidence < choose_threshold(confidence, answers))
    share = is_marked[~answers.is_right].float().mean().item()
    assert share == pytest.approx(MARKED_SHARE, abs=0.002)


def test_what_is_probably_wrong_is_to_review_whatever_was_learned() -> None:
    nothing, wrong = torch.zeros(50, dtype=torch.bool), torch.zeros(50, dtype=torch.bool)
    chances = torch.linspace(0, 0.01, 50)
    answers = Answers(chances, nothing, nothing, ~nothing, nothing, wrong)
    assert choose_threshold(chances, answers) == 0.5
    assert choose_threshold(chances, answers._replace(is_right=~wrong)) == 0.5


def test_a_number_whose_length_was_known_has_a_confidence_of_its_own() -> None:
    calibration = {"chance": 1.0, "chance if length known": -0.5, "length known": -0.5}
    card = Card("number", "", 0, 1, calibration=calibration)
    assert card.calibrate(0.9, is_length_known=True) == pytest.approx(3 / (3 + math.exp(0.5)))
    assert card.calibrate(0.9) == pytest.approx(0.9)


def test_images_without_a_number_do_not_calibrate() -> None:
    read = draw_answers(1, 0, False, 0)
    unread = read._replace(
        chances=torch.zeros_like(read.chances), is_right=torch.zeros_like(read.is_right)
    )
    both = join_answers([read, unread])
    card = calibrate_card(Card("number", "", 0, 1), both)
    assert dataclasses.replace(calibrate_card(card, read), review_below=card.review_below) == card
    assert measure_gaps(card, both) == measure_gaps(card, read) > 0
    calibrate_card(card, unread)  # nothing was read at all
    assert measure_gaps(card, unread) == 0
