"""Trains the networks of `number`: `digitq train number --out DIR`.

They learn from rendered scenes alone: first the detector, then the network of columns. A training
that was broken off continues after its last epoch. With `--fine-tune` the detector begins with
weights that were trained before.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from protocol.settings import NUMBER
from worker.models.card import Card, card_path, read_card
from worker.models.columns import Columns
from worker.models.detector import Detector, fold
from worker.models.number import NumberNetwork, read_networks
from worker.numbers.reading import look
from worker.pictures import ImageError
from worker.training import detection, strips
from worker.training.calibration import count_gaps, fit_line
from worker.training.epochs import EpochsRecipe, Training
from worker.training.rendered import Scene, collect, start_rendering
from worker.training.synthetic.rendering import start_processes
from worker.training.trainer import make_writable, write_model

# On two cores that multiply in 16 bits an epoch of the detector takes 70 to 110 s, on others about
# 200 s. An epoch of the columns takes half as long.
DETECTOR_RECIPE = EpochsRecipe(epochs=40)
TUNING_RECIPE = EpochsRecipe(epochs=20, learning_rate=6e-4)
COLUMNS_RECIPE = EpochsRecipe(epochs=30)
HELD_BACK_SCENES = 4_000  # this many scenes calibrate, and as many others are read once, in the end
MARKED_SHARE = 0.9  # this share of the wrong numbers has a confidence below the review threshold


def train_detector(seed: int, recipe: EpochsRecipe, out: Path, fine_tune: bool) -> Detector:
    """Train the detector, from the installed weights on if `fine_tune` is true."""
    torch.manual_seed(seed)
    network, before = Detector(), None
    if fine_tune:  # the saved weights have no batch normalisations
        networks, card = read_networks()
        network, before = networks.detector, card.sha256
    saved = out / "detector.partial"
    return Training(
        network, detection.make_batches, detection.measure_losses, recipe, seed, saved, before
    ).finish()


def train_columns(seed: int, recipe: EpochsRecipe, out: Path) -> Columns:
    """Train the network of columns."""
    torch.manual_seed(seed)
    saved = out / "columns.partial"
    return Training(
        Columns(), strips.make_batches, strips.measure_losses, recipe, seed, saved
    ).finish()


def calibrate_candidates(network: Detector, scenes: Sequence[Scene], seed: int) -> None:
    """Scale the logits so that the chances of candidates, and of their signs, are right.

    The focal loss leaves the chances too low. Two factors and an offset, those with the least cross
    entropy, are put into the weights of the last layer.
    """
    logits, truths, scores, signs = [], [], [], []
    with torch.inference_mode():
        for batch in detection.make_batches(scenes, np.random.default_rng((seed, 2))):
            maps = network(batch.images)
            is_peak = maps.middle == F.max_pool2d(maps.middle, 3, 1, 1)
            is_peak &= (maps.middle > -4) & (batch.weight > 0)
            logits.append(maps.middle[is_peak])
            truths.append(F.max_pool2d((batch.heat == 1).float(), 3, 1, 1)[is_peak])
            picture, row, column = batch.places.unbind(1)
            scores.append(maps.signs[picture, :, row, column])
            signs.append(batch.signs)
    slope, offset = fit_line(torch.cat(logits).double(), torch.cat(truths).double())
    factors = torch.linspace(0.5, 3, 251)
    losses = [F.cross_entropy(torch.cat(scores) * factor, torch.cat(signs)) for factor in factors]
    with torch.no_grad():
        network.scale(slope, offset, factors[torch.stack(losses).argmin()].item())


def read_scenes(network: NumberNetwork, scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """The probability of each scene's reading, and whether it is right: (N,) and (N,)."""
    chances, right = [], []
    for scene in scenes:
        try:
            readings = look(network, scene.picture).weigh()
        except ImageError:  # nothing was found
            readings = []
        chances.append(readings[0].chance if readings else 0.0)
        right.append(bool(readings) and readings[0].number == scene.number)
    return torch.tensor(chances, dtype=torch.float64), torch.tensor(right)


def train_number(
    seed: int, epochs: int | None, out: Path, limit_scenes: int | None, fine_tune: bool = False
) -> Card:
    """Train, calibrate, read the test scenes once, and write `out/number.safetensors` and its card.

    `epochs` are those of the detector. The scenes with which the accuracy is measured have no
    doubtful number.
    """
    recipe = TUNING_RECIPE if fine_tune else DETECTOR_RECIPE
    recipe = replace(recipe, epochs=recipe.epochs if epochs is None else epochs)
    scenes = limit_scenes or recipe.scenes
    make_writable(out, NUMBER)
    before = f"{read_card(card_path(NUMBER)).command}; DIGITQ_WEIGHTS=DIR " if fine_tune else ""
    detector = train_detector(seed, replace(recipe, scenes=scenes), out, fine_tune)
    columns = train_columns(seed, replace(COLUMNS_RECIPE, scenes=scenes), out)
    print("calibrating and testing …", file=sys.stderr)
    torch.set_num_threads(1)
    count = min(HELD_BACK_SCENES, scenes)
    with start_processes() as pool:
        sets = [start_rendering(pool, True, (seed, part), count) for part in (1, 2)]
        validation, test = ([s for s in collect(blocks) if not s.doubt] for blocks in sets)
    network = NumberNetwork(fold(detector), fold(columns))
    calibrate_candidates(network.detector, validation, seed)
    chances, right = read_scenes(network, validation)
    slope, offset = fit_line(torch.logit(chances, 1e-6), right.double())
    card = Card(
        name=NUMBER,
        architecture=network.architecture,
        mean=0.0,
        std=1.0,
        seed=seed,
        command=f"{before}digitq train {NUMBER} --seed {seed} --epochs {recipe.epochs}"
        + ("" if limit_scenes is None else f" --limit-images {limit_scenes}")
        + (" --fine-tune --out NEW" if fine_tune else " --out DIR"),
        validation_accuracy=round(right.double().mean().item(), 6),
        temperature=round(1 / slope, 4),
        offset=round(offset, 4),
    )
    wrong = calibrated(card, chances)[~right]
    chances, right = read_scenes(network, test)
    confidence = calibrated(card, chances)
    content = save({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    card = replace(
        card,
        review_below=round(wrong.quantile(MARKED_SHARE).item(), 4) if len(wrong) else 0.5,
        test_accuracy=round(right.double().mean().item(), 6),
        test_calibration_error=round(count_gaps(confidence, right), 6),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    write_model(out, card, content)
    for name in ("detector", "columns"):
        (out / f"{name}.partial").unlink(missing_ok=True)  # the detector may have had no epoch
    return card


def calibrated(card: Card, chances: Tensor) -> Tensor:
    """The confidence of each reading: (N,) → (N,)."""
    return torch.tensor([card.calibrate(chance) for chance in chances.tolist()])
