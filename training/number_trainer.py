"""Trains the networks of `number`: `python -m training number --out DIR`.

The detector and the network of columns learn side by side, the expert apart (`--expert`). A
training that was broken off continues after its last epoch. With `--fine-tune` they begin with
weights that were trained before, and with `--epochs 0` too, they keep them: only the confidence is
calibrated anew.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from digitq.protocol.settings import NUMBER
from digitq.worker.learning import column_batches
from digitq.worker.learning.calibration import (
    NumberPicture,
    calibrate_card,
    fit_logistic,
    measure_gaps,
    read_pictures,
)
from digitq.worker.learning.column_batches import Rng, StripBatch, batch_strips
from digitq.worker.learning.columns import Columns, Expert, fold
from digitq.worker.learning.learner import blend_weights
from digitq.worker.learning.number_examples import (
    PlacedNumber,
    Scene,
    cut_number,
    cut_strips,
    place_number,
)
from digitq.worker.learning.own import write_model
from digitq.worker.learning.strip_variations import vary
from digitq.worker.models.card import Card, card_path, read_card
from digitq.worker.models.network import NUMBER_READER
from digitq.worker.models.number_networks import (
    COLUMNS_SIZE,
    EXPERT_SIZE,
    NumberReader,
    StripSize,
    divide,
    make_reader,
    read_number_weights,
)
from training import detector_batches
from training.detector import Detector
from training.epochs import SceneLearner, ScenesRecipe, train
from training.hands import load_glyphs, load_numbers
from training.recipes import describe_command
from training.rendered import collect, start_rendering
from training.synthetic.rendering import start_processes
from training.synthetic.writing import REAL_SHARE

# On two free cores with AVX2 an epoch takes about 150 s, so 45 take less than two hours.
NUMBER_RECIPE = ScenesRecipe(epochs=45)
TUNING_RECIPE = ScenesRecipe(epochs=16, learning_rate=1.2e-3, scenes=6_000)
# The expert learns alone, after the other two; on one core an epoch takes about 300 s
EXPERT_RECIPE = ScenesRecipe(epochs=16, scenes=4_000)
# With --fine-tune, its normalisations are folded: a rate of 1.2e-3 would unlearn what it knows
EXPERT_TUNING_RECIPE = ScenesRecipe(epochs=11, learning_rate=3e-4, scenes=4_000)
# This many real numbers are learned for each rendered scene, if there are any
LEARNED_SHARE, EXPERT_SHARE = 0.35, 0.6
HELD_BACK_SCENES = 4_000  # this many scenes calibrate, and as many others are read once, in the end


def to_scene(placed: PlacedNumber) -> Scene:
    """The picture of an exactly placed number as the detector learns it."""
    text = "".join(sign for sign in placed.real.text if sign.isdecimal())
    signs = [*map(int, text)]
    return Scene(placed.real.picture, signs, placed.digits, text, text, placed.digits, False, "")


class NumberNetwork(nn.Module):
    """The networks, to train and to save."""

    def __init__(self, detector: Detector, columns: Columns, expert: Expert) -> None:
        super().__init__()
        self.detector, self.columns, self.expert = detector, columns, expert

    def make_reader(self) -> NumberReader:
        """The networks in ONNX Runtime. Their batch normalisations must be folded."""
        return make_reader({name: value.numpy() for name, value in self.state_dict().items()})


def read_networks() -> tuple[NumberNetwork, Card]:
    """The installed networks, with their card. Raises `DigitqError` if they differ.

    Their batch normalisations are merged into the convolutions.
    """
    weights, card = read_number_weights()
    network = NumberNetwork(fold(Detector()), fold(Columns()), fold(Expert()))
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return network, card


def choose_numbers(numbers: Sequence[PlacedNumber], count: int, rng: Rng) -> list[PlacedNumber]:
    """Draw numbers; of a source with four times as many numbers, twice as many are drawn."""
    if not numbers:
        return []
    names, places = np.unique([one.real.source for one in numbers], return_inverse=True)
    shares = np.bincount(places, minlength=len(names))[places] ** -0.5
    # Of a text that is there four times as often, such as a year, half as many are drawn of each
    texts = Counter((one.real.source, one.real.text) for one in numbers)
    counts = np.array([texts[one.real.source, one.real.text] for one in numbers])
    means = np.bincount(places, counts**-0.5) / np.bincount(places)
    shares *= counts**-0.5 / means[places]
    chosen = rng.choice(len(numbers), count, p=shares / shares.sum())
    return [numbers[row] for row in chosen.tolist()]


class RealNumbers:
    """Real numbers to learn from, once the networks in training can find their digits."""

    def __init__(self, hands: Sequence[Path]) -> None:
        self.numbers = [*load_numbers(hands, held_back=False)]
        self.placed: list[PlacedNumber] = []
        self.exact: list[PlacedNumber] = []

    def place(self, reader: NumberReader) -> None:
        """Find the digits with networks."""
        # A picture shows a number alone, so more digits may be missed than in a user's picture
        placed = (place_number(reader, real, max(1, len(real.text) // 2)) for real in self.numbers)
        self.placed = [one for one in placed if one]
        self.exact = [one for one in self.placed if one.is_exact]
        print(
            f"{len(self.placed)} of {len(self.numbers)} real numbers are found, "
            f"{len(self.exact)} of them digit by digit",
            file=sys.stderr,
        )

    def make_detector_batches(
        self, scenes: Sequence[Scene], rng: Rng
    ) -> list[detector_batches.Batch]:
        """What the detector learns from rendered scenes and from real numbers."""
        chosen = choose_numbers(self.exact, round(LEARNED_SHARE * len(scenes)), rng)
        return detector_batches.make_batches([*scenes, *map(to_scene, chosen)], rng)

    def make_strip_batches(
        self, scenes: Sequence[Scene], rng: Rng, size: StripSize, share: float
    ) -> list[StripBatch]:
        """What a network learns that reads strips of this size."""
        chosen = choose_numbers(self.placed, round(share * len(scenes)), rng)
        strips = [*cut_strips(scenes, rng, size), *(cut_number(one, rng, size) for one in chosen)]
        return batch_strips(vary(strips, rng), rng)


def train_networks(
    seed: int,
    recipe: ScenesRecipe,
    saved: Path,
    fine_tune: bool = False,
    hands: tuple[Path, ...] = (),
    blend: float = 1.0,
) -> NumberNetwork:
    """Train the detector and the columns side by side, from the installed weights on if `fine_tune`
    is true. The expert stays as it is.

    Real numbers of `hands` are learned after a third of the epochs, or from the beginning on if the
    networks can find them then. The columns get the share `blend` of the new weights, and keep the
    rest of the installed ones.
    """
    torch.manual_seed(seed)
    network, card = read_networks()
    begun_with = card.sha256 if fine_tune else None
    if not fine_tune:
        network = NumberNetwork(Detector(), Columns(), network.expert)
    begun = fold(deepcopy(network.columns))
    real = RealNumbers(hands)
    detector = SceneLearner(
        network.detector,
        real.make_detector_batches,
        detector_batches.measure_losses,
        recipe,
        shown_epochs=1,
    )
    columns = SceneLearner(
        network.columns,
        partial(real.make_strip_batches, size=COLUMNS_SIZE, share=LEARNED_SHARE),
        column_batches.measure_losses,
        recipe,
        shown_epochs=3,
    )

    def place(epoch: int) -> None:
        is_able = fine_tune or epoch >= recipe.epochs // 3
        if real.numbers and is_able and (not real.placed or epoch == recipe.epochs // 3):
            learned = NumberNetwork(
                fold(deepcopy(detector.learned)),
                fold(deepcopy(columns.learned)),
                network.expert,
            )
            real.place(learned.make_reader())

    learners = {"detector": detector, "columns": columns}
    train(learners, recipe, seed, saved, begun_with, hands, place)
    learned = fold(columns.learned)
    blend_weights(learned, begun, blend)
    return NumberNetwork(fold(detector.learned), learned, network.expert)


def train_expert(
    seed: int,
    recipe: ScenesRecipe,
    saved: Path,
    fine_tune: bool = False,
    hands: tuple[Path, ...] = (),
    blend: float = 1.0,
) -> NumberNetwork:
    """Train the expert beside the installed detector and columns, which place the real numbers.

    It begins with the installed weights if `fine_tune` is true. It gets the share `blend` of the
    new weights, and keeps the rest of the installed ones.
    """
    network, card = read_networks()
    begun = deepcopy(network.expert)
    real = RealNumbers(hands)
    real.place(network.make_reader())
    torch.manual_seed(seed)
    expert = SceneLearner(
        network.expert if fine_tune else Expert(),
        partial(real.make_strip_batches, size=EXPERT_SIZE, share=EXPERT_SHARE),
        column_batches.measure_losses,
        recipe,
        shown_epochs=5,
    )
    train({"expert": expert}, recipe, seed, saved, card.sha256, hands)
    learned = fold(expert.learned)
    blend_weights(learned, begun, blend)
    # It is saved in 16 bits, and the confidence is calibrated with what is saved
    network.expert = learned.half().float()
    return network


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


def name_shares(hands: tuple[Path, ...], learned: float) -> dict[str, float]:
    """The share of each source in what is learned: glyphs to write with, and whole numbers.

    For each rendered scene, so many real numbers are `learned`.
    """
    glyphs = [each.source for each in load_glyphs(hands, held_back=False)]
    numbers = Counter(one.source for one in load_numbers(hands, held_back=False))
    real = learned / (1 + learned) if numbers else 0.0
    written = REAL_SHARE if glyphs else 0.0
    shares = {"MNIST and drawn digits": (1 - real) * (1 - written)}
    shares |= {f"digits of {name}": (1 - real) * written / len(glyphs) for name in glyphs}
    roots = {name: count**0.5 for name, count in numbers.items()}
    for name, root in roots.items():
        shares[f"numbers of {name}"] = real * root / sum(roots.values())
    return {name: round(share, 3) for name, share in shares.items()}


def train_number(
    seed: int,
    epochs: int | None,
    out: Path,
    limit_scenes: int | None,
    fine_tune: bool = False,
    hands: tuple[Path, ...] = (),
    judges: tuple[Path, ...] = (),
    blend: float = 1.0,
    is_expert: bool = False,
) -> Card:
    """Train, calibrate, read the test scenes once, and write `out/number.safetensors` and its card.

    With `is_expert`, only the expert is trained.
    The scenes with which the accuracy is measured have no doubtful number. Real numbers of `judges`
    are not learned: the confidence is calibrated with them, and not with scenes.
    """
    if is_expert:
        recipe = EXPERT_TUNING_RECIPE if fine_tune else EXPERT_RECIPE
    else:
        recipe = TUNING_RECIPE if fine_tune else NUMBER_RECIPE
    recipe = replace(
        recipe,
        epochs=recipe.epochs if epochs is None else epochs,
        scenes=limit_scenes or recipe.scenes,
    )
    saved = out / "number.partial"
    if is_expert:
        network = train_expert(seed, recipe, saved, fine_tune, hands, blend).eval()
    else:
        network = train_networks(seed, recipe, saved, fine_tune, hands, blend).eval()
    print("calibrating and testing, for some minutes …", file=sys.stderr)
    count = min(HELD_BACK_SCENES, recipe.scenes)
    is_new = recipe.epochs > 0 and not is_expert  # the detector's chances are calibrated
    counts = count if is_new or not judges else 0, count
    with start_processes() as pool:
        sets = [
            start_rendering(pool, True, hands, (seed, part), each)
            for part, each in enumerate(counts, 1)
        ]
        validation, test = (
            [s for s in collect(blocks) if s.number and not s.doubt] for blocks in sets
        )
    if is_new:
        calibrate_candidates(network.detector, validation, seed)
    weights, reader = network.state_dict(), network.make_reader()
    numbers = load_numbers(judges, None)
    judged = [NumberPicture(one.picture, one.text) for one in numbers]
    scenes, tested = (
        [NumberPicture(scene.picture, scene.text) for scene in part] for part in (validation, test)
    )
    answers, tested_answers = (read_pictures(reader, part) for part in (judged or scenes, tested))
    card = Card(
        name=NUMBER,
        architecture=NUMBER_READER,
        mean=0.0,
        std=1.0,
        seed=seed,
        command=describe_command(
            *(NUMBER, seed, recipe.epochs, limit_scenes, fine_tune, hands, judges, blend, is_expert)
        ),
        validation_accuracy=answers.accuracy,
        sources=name_shares(hands, EXPERT_SHARE if is_expert else LEARNED_SHARE)
        if recipe.epochs
        else read_card(card_path(NUMBER)).sources,
    )
    card = calibrate_card(card, answers)
    card = replace(
        card,
        test_accuracy=tested_answers.accuracy,
        test_calibration_error=measure_gaps(card, tested_answers),
    )
    weights |= {name: value.half() for name, value in weights.items() if name.startswith("expert.")}
    card = write_model(out, card, weights)
    saved.unlink(missing_ok=True)  # there may have been no epoch
    return card
