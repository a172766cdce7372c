"""Trains the networks of `number`: `digitq train number --out DIR`.

They learn from rendered scenes alone, side by side: the detector, and the network of columns. A
training that was broken off continues after its last epoch. With `--fine-tune` both begin with
weights that were trained before, and with `--epochs 0` too, they keep them: only the confidence is
calibrated anew.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from protocol.chunk import Reason
from protocol.known import Known
from protocol.settings import NUMBER
from training import detector_batches
from training.epochs import EpochsRecipe, Learner, train
from training.rendered import Scene, collect, start_rendering
from training.synthetic.rendering import start_processes
from training.trainer import make_writable, write_model
from worker.learning import column_batches
from worker.learning.calibration import count_gaps, fit_logistic
from worker.models.card import Card, card_path, read_card
from worker.models.column_network import Columns
from worker.models.detector import Detector, divide, fold
from worker.models.number import NumberNetwork, make_reader, read_networks
from worker.sight.numbers.recognition import choose_readings, look
from worker.sight.numbers.weighing import NOTHING_KNOWN, Proposal
from worker.sight.types import ImageError

# On two free cores with AVX2 an epoch takes about 150 s, so 45 take less than two hours.
NUMBER_RECIPE = EpochsRecipe(epochs=45)
TUNING_RECIPE = EpochsRecipe(epochs=20, learning_rate=6e-4)
HELD_BACK_SCENES = 8_000  # this many scenes calibrate, and as many others are read once, in the end
NO_READING = Proposal("?", 0.0)  # no reading: it is never right
MARKED_SHARE = 0.9  # with the review threshold, this share of the wrong numbers is to be reviewed
MIN_THRESHOLD = 0.5  # a number that is more probably wrong than right is always to be reviewed


class Answers(NamedTuple):
    """What was read in N scenes, freely and with the length known: (N,) each."""

    chances: Tensor  # the probability of the free reading, 0 if there is none
    digits: Tensor  # how many digits it has, 1 if there is none
    is_doubted: Tensor  # whether it is to be reviewed, however sure the networks are
    is_right: Tensor
    known_chances: Tensor  # the probability of the reading of the right length, 0 if there is none
    is_known_right: Tensor


def train_networks(
    seed: int, recipe: EpochsRecipe, saved: Path, fine_tune: bool = False
) -> NumberNetwork:
    """Train both networks side by side, from the installed weights on if `fine_tune` is true."""
    torch.manual_seed(seed)
    network, begun_with = NumberNetwork(Detector(), Columns()), None
    if fine_tune:
        network, card = read_networks()
        begun_with = card.sha256
    detector = Learner(
        network.detector,
        detector_batches.make_batches,
        detector_batches.measure_losses,
        recipe,
        shown_epochs=1,
    )
    columns = Learner(
        network.columns,
        column_batches.make_batches,
        column_batches.measure_losses,
        recipe,
        shown_epochs=3,
    )
    train({"detector": detector, "columns": columns}, recipe, seed, saved, begun_with)
    return NumberNetwork(fold(detector.learned), fold(columns.learned))


def calibrate_candidates(network: Detector, scenes: Sequence[Scene], seed: int) -> None:
    """Scale the logits so that the chances of candidates, and of their signs, are right.

    The focal loss leaves the chances too low. Two factors and an offset, those with the least cross
    entropy, are put into the weights of the last layer.
    """
    logits, truths, scores, signs = [], [], [], []
    with torch.inference_mode():
        for batch in detector_batches.make_batches(scenes, np.random.default_rng((seed, 2))):
            maps = divide(network(batch.images))
            is_peak = maps.middle == F.max_pool2d(maps.middle, 3, 1, 1)
            is_peak &= (maps.middle > -4) & (batch.weight > 0)
            logits.append(maps.middle[is_peak])
            truths.append(F.max_pool2d((batch.heat == 1).float(), 3, 1, 1)[is_peak])
            picture, row, column = batch.places.unbind(1)
            scores.append(maps.signs[picture, :, row, column])
            signs.append(batch.signs)
    slope, offset = fit_logistic(torch.cat(logits).double()[:, None], torch.cat(truths).double())
    factors = torch.linspace(0.5, 3, 251)
    losses = [F.cross_entropy(torch.cat(scores) * factor, torch.cat(signs)) for factor in factors]
    with torch.no_grad():
        network.scale(slope, offset, factors[torch.stack(losses).argmin()].item())


def read_scenes(network: NumberNetwork, scenes: Sequence[Scene]) -> Answers:
    """Read the number in each scene."""
    reader = make_reader(network)
    rows = []
    for scene in scenes:
        free = known = NO_READING
        reason: Reason = ""
        with suppress(ImageError):  # nothing was found
            seen = look(reader, scene.picture)
            (free, *_), reason, _ = choose_readings(seen, NOTHING_KNOWN)
            length = len(scene.number)
            (best, *_), _, is_free = choose_readings(seen, Known((length, length)))
            known = NO_READING if is_free else best
        is_right, is_known_right = (one.number == scene.number for one in (free, known))
        digits = len(free.number)
        rows.append((free.chance, digits, reason != "", is_right, known.chance, is_known_right))
    return Answers(*(torch.tensor(column) for column in zip(*rows, strict=True)))


def train_number(
    seed: int, epochs: int | None, out: Path, limit_scenes: int | None, fine_tune: bool = False
) -> Card:
    """Train, calibrate, read the test scenes once, and write `out/number.safetensors` and its card.

    The scenes with which the accuracy is measured have no doubtful number.
    """
    recipe = TUNING_RECIPE if fine_tune else NUMBER_RECIPE
    recipe = replace(
        recipe,
        epochs=recipe.epochs if epochs is None else epochs,
        scenes=limit_scenes or recipe.scenes,
    )
    make_writable(out, NUMBER)
    before = f"{read_card(card_path(NUMBER)).command}; DIGITQ_WEIGHTS=DIR " if fine_tune else ""
    saved = out / "number.partial"
    network = train_networks(seed, recipe, saved, fine_tune).eval()
    print("calibrating and testing, for some minutes …", file=sys.stderr)
    count = min(HELD_BACK_SCENES, recipe.scenes)
    with start_processes() as pool:
        sets = [start_rendering(pool, True, (seed, part), count) for part in (1, 2)]
        validation, test = ([s for s in collect(blocks) if not s.doubt] for blocks in sets)
    if recipe.epochs:
        calibrate_candidates(network.detector, validation, seed)
    answers = read_scenes(network, validation)
    card = Card(
        name=NUMBER,
        architecture=network.architecture,
        mean=0.0,
        std=1.0,
        seed=seed,
        command=f"{before}digitq train {NUMBER} --seed {seed} --epochs {recipe.epochs}"
        + ("" if limit_scenes is None else f" --limit-images {limit_scenes}")
        + (" --fine-tune --out NEW" if fine_tune else " --out DIR"),
        validation_accuracy=round(answers.is_right.double().mean().item(), 6),
    )
    card = calibrate_card(card, answers)
    answers = read_scenes(network, test)
    card = replace(
        card,
        test_accuracy=round(answers.is_right.double().mean().item(), 6),
        test_calibration_error=measure_gaps(card, answers),
    )
    card = write_model(out, card, network)
    saved.unlink(missing_ok=True)  # there may have been no epoch
    return card


def calibrate_card(card: Card, answers: Answers) -> Card:
    """The card with what makes confidence match accuracy, and the threshold for `review`."""
    slope, length_factor, offset = fit_confidence(answers)
    known_slope, known_offset = fit_known_confidence(answers)
    card = replace(
        card,
        temperature=round(1 / slope, 4),
        offset=round(offset, 4),
        length_factor=round(length_factor, 4),
        known_temperature=round(1 / known_slope, 4),
        known_offset=round(known_offset, 4),
    )
    return replace(card, review_below=choose_threshold(calibrated(card, answers), answers))


def fit_confidence(answers: Answers) -> list[float]:
    """The slopes of log-odds and of the logarithm of the count of digits, and the offset.

    They are for readings without another doubt: a clear scene that looks doubtful is mostly read
    wrongly, one with another line is not.
    """
    features = [torch.logit(answers.chances.double(), 1e-6), answers.digits.double().log()]
    kept = ~answers.is_doubted & (answers.chances > 0)
    return fit_logistic(torch.stack(features, 1)[kept], answers.is_right[kept].double())


def fit_known_confidence(answers: Answers) -> list[float]:
    """The slope of log-odds, and the offset, for readings whose length was known.

    No free reading of another length takes a part of their probability, so it is too high more
    often; and it does not depend on the length.
    """
    kept = ~answers.is_doubted & (answers.known_chances > 0)
    logits = torch.logit(answers.known_chances[kept].double(), 1e-6)
    return fit_logistic(logits[:, None], answers.is_known_right[kept].double())


def calibrated(card: Card, answers: Answers) -> Tensor:
    """The confidence of each reading, (N,)."""
    pairs = zip(answers.chances.tolist(), answers.digits.tolist(), strict=True)
    return torch.tensor([card.calibrate(chance, digits) for chance, digits in pairs])


def measure_gaps(card: Card, answers: Answers) -> float:
    """The expected calibration error of the free readings."""
    is_read = answers.chances > 0
    return round(count_gaps(calibrated(card, answers)[is_read], answers.is_right[is_read]), 6)


def choose_threshold(confidence: Tensor, answers: Answers) -> float:
    """The confidence below which a number is to be reviewed, from those of readings, (N,).

    It is at least `MIN_THRESHOLD`: a network that has hardly learned is never confident.
    """
    wrong = confidence.masked_fill(answers.is_doubted, 0.0)[~answers.is_right]
    threshold = wrong.quantile(MARKED_SHARE).item() if len(wrong) else 0.0
    return round(max(MIN_THRESHOLD, threshold), 4)
