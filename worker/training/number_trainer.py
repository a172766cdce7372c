"""Trains the network `number`: `digitq train number --out DIR`.

It learns from rendered scenes alone. A training that was broken off continues after its last epoch.
With `--fine-tune` it begins with weights that were trained before.
"""

import hashlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from protocol.errors import UsageError
from protocol.settings import NUMBER
from worker.dataset import load_mnist
from worker.decoding.pillow import prepare_libraries
from worker.models.card import Card, card_path, read_card
from worker.models.detector import Detector
from worker.models.model import read_weights
from worker.numbers.finding import find_candidates
from worker.numbers.reading import look
from worker.training.calibration import count_gaps, fit_line
from worker.training.detection import Batch, Scene, make_batches, measure_loss
from worker.training.synthetic.numbers import render_number
from worker.training.synthetic.rendering import start_processes
from worker.training.trainer import (
    VALIDATION_IMAGES,
    has_bfloat16,
    make_writable,
    write_model,
)

BLOCK_SCENES = 250  # a process renders this many scenes at a time, from a seed of their own
POOLED_SCENES = 500  # batches are made of this many scenes, so that those of one size meet
SHOWN_EPOCHS = 3  # an epoch shows its own scenes, and those of the two epochs before it
HELD_BACK_SCENES = 4_000  # this many scenes calibrate, and as many others are read once, in the end
MARKED_SHARE = 0.9  # this share of the wrong numbers has a confidence below the review threshold

Blocks = list["Future[list[Scene]]"]


@dataclass(frozen=True)
class NumberRecipe:
    """How to train `number`.

    An epoch takes 70 to 110 s on two cores that multiply in 16 bits, and about 200 s on others.
    """

    epochs: int = 80
    scenes: int = 8_000  # how many scenes are rendered for each epoch
    learning_rate: float = 2e-3
    fine_tune: bool = False  # whether to begin with the weights that are installed
    warm_up_steps: int = 200
    weight_decay: float = 0.05
    ema_decay: float = 0.998  # how much of the weights' moving average a step keeps
    max_gradient: float = 10.0


TUNING = NumberRecipe(epochs=20, learning_rate=6e-4, fine_tune=True)


@cache
def load_digits(held_back: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """MNIST's last training images with their labels, or all others."""
    images, labels = (tensor.numpy() for tensor in load_mnist("train"))
    part = slice(-VALIDATION_IMAGES, None) if held_back else slice(-VALIDATION_IMAGES)
    return images[part], labels[part]


def render_scenes(held_back: bool, seed: tuple[int, ...], count: int) -> list[Scene]:
    """Render scenes of MNIST's training digits, or of those that are held back."""
    prepare_libraries()
    images, labels = load_digits(held_back)
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(count):
        scene = render_number(images, labels, rng)
        picture = scene.picture
        grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        signs = [*scene.digits, *scene.other_signs]
        boxes = np.concatenate([scene.boxes, scene.other_boxes])
        number = "".join(map(str, scene.digits))
        scenes.append(Scene(grey, signs, boxes, number, scene.doubt))
    return scenes


def start_rendering(
    pool: ProcessPoolExecutor, held_back: bool, seed: tuple[int, ...], count: int
) -> Blocks:
    """Begin to render scenes in blocks, in other processes."""
    return [
        pool.submit(render_scenes, held_back, (*seed, start), min(BLOCK_SCENES, count - start))
        for start in range(0, count, BLOCK_SCENES)
    ]


def collect(blocks: Blocks) -> list[Scene]:
    """The scenes of blocks, once they are rendered."""
    return [scene for block in blocks for scene in block.result()]


class Training:
    """A network that is being trained, and the file in which its state is saved."""

    def __init__(self, seed: int, recipe: NumberRecipe, saved: Path) -> None:
        """Start anew, or with the state in the file. Raises `UsageError` if that is another's."""
        torch.manual_seed(seed)
        self.seed, self.recipe, self.saved, self.epoch = seed, recipe, saved, 0
        before = read_card(card_path(NUMBER)).sha256 if recipe.fine_tune else None
        self.run = [seed, recipe.epochs, recipe.scenes, before]
        self.network = Detector()
        if recipe.fine_tune:  # the saved weights have no batch normalisations
            self.network.fold().load_state_dict(load(read_weights(card_path(NUMBER))[1]))
        average = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
        self.ema = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        if not saved.exists():
            return
        state = torch.load(saved, weights_only=True)
        if state["run"] != self.run:
            raise UsageError(f"{saved} is of another training: remove it, or choose another --out")
        self.epoch = state["epoch"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        print(f"continuing after epoch {self.epoch}", file=sys.stderr)

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "ema": self.ema, "optimiser": self.optimiser}

    def finish(self) -> Detector:
        """Train the epochs that are left, while other processes render; gives the network."""
        started, first, last = time.monotonic(), self.epoch, self.recipe.epochs
        earliest = max(0, first - SHOWN_EPOCHS + 1)
        shown: list[list[Scene]] = []
        with start_processes() as pool:
            render = partial(start_rendering, pool, False, count=self.recipe.scenes)
            coming = [
                render(seed=(self.seed, epoch)) for epoch in range(earliest, min(first + 1, last))
            ]
            for epoch in range(earliest, last if first < last else 0):
                if first <= epoch + 1 < last and len(coming) < 2:
                    coming.append(render(seed=(self.seed, epoch + 1)))
                shown = [*shown, collect(coming.pop(0))][-SHOWN_EPOCHS:]
                if epoch < first:
                    continue
                losses = self._show([scene for part in shown for scene in part])
                seconds = time.monotonic() - started
                left = seconds / (self.epoch - first) * (last - self.epoch)
                print(
                    f"epoch {self.epoch}/{last}  loss {losses}  {seconds:.0f} s, {left:.0f} s left",
                    file=sys.stderr,
                )
        trained = self.ema.module
        assert isinstance(trained, Detector)
        return trained.eval() if self.recipe.fine_tune else trained.fold()

    def _show(self, scenes: Sequence[Scene]) -> str:
        """Train one epoch, and save the state; gives the mean losses of heat, signs and edges."""
        rng = np.random.default_rng((self.seed, self.epoch, 1))
        recipe = self.recipe
        losses = []
        self.network.train()
        for step, (batch, done) in enumerate(draw_batches(scenes, rng)):
            rate = 0.5 + 0.5 * math.cos(math.pi * (self.epoch + done) / recipe.epochs)
            warm = min(1, (step + 1) / recipe.warm_up_steps) if self.epoch == 0 else 1
            for group in self.optimiser.param_groups:
                group["lr"] = max(1e-6, recipe.learning_rate * rate * warm)
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
                maps = self.network(batch.images.to(memory_format=torch.channels_last))
            parts = torch.stack(measure_loss(maps, batch))
            self.optimiser.zero_grad()
            parts.sum().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.max_gradient)
            self.optimiser.step()
            self.ema.update_parameters(self.network)
            losses.append(parts.detach())
        self.epoch += 1
        state = {name: part.state_dict() for name, part in self._parts().items()}
        new = self.saved.with_suffix(".new")
        torch.save(state | {"epoch": self.epoch, "run": self.run}, new)
        new.replace(self.saved)
        return " ".join(f"{value:.3f}" for value in torch.stack(losses).mean(0).tolist())


def draw_batches(
    scenes: Sequence[Scene], rng: np.random.Generator
) -> Iterator[tuple[Batch, float]]:
    """Batches of all scenes in random order, each with the share of the epoch that is done."""
    order = rng.permutation(len(scenes))
    for start in range(0, len(order), POOLED_SCENES):
        part = [scenes[row] for row in order[start : start + POOLED_SCENES]]
        for batch in make_batches(part, rng):
            yield batch, start / len(order)


def calibrate_candidates(network: Detector, scenes: Sequence[Scene], seed: int) -> None:
    """Scale the logits so that the chances of candidates, and of their signs, are right.

    The focal loss leaves the chances too low. Two factors and an offset, those with the least cross
    entropy, are put into the weights of the last layer.
    """
    logits, truths, scores, signs = [], [], [], []
    with torch.inference_mode():
        for batch, _ in draw_batches(scenes, np.random.default_rng((seed, 2))):
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


def read_scenes(network: Detector, scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """The probability of each scene's reading, and whether it is right: (N,) and (N,)."""
    find = partial(find_candidates, network)
    chances, right = [], []
    for scene in scenes:
        readings = look(find, scene.picture).readings
        chances.append(readings[0].chance if readings else 0.0)
        right.append(bool(readings) and readings[0].number == scene.number)
    return torch.tensor(chances, dtype=torch.float64), torch.tensor(right)


def train_number(
    seed: int, epochs: int | None, out: Path, limit_scenes: int | None, fine_tune: bool = False
) -> Card:
    """Train, calibrate, read the test scenes once, and write `out/number.safetensors` and its card.

    The scenes with which the accuracy is measured have no doubtful number.
    """
    recipe = TUNING if fine_tune else NumberRecipe()
    recipe = replace(recipe, epochs=epochs or recipe.epochs, scenes=limit_scenes or recipe.scenes)
    make_writable(out, NUMBER)
    before = f"{read_card(card_path(NUMBER)).command}; DIGITQ_WEIGHTS=DIR " if fine_tune else ""
    saved = out / f"{NUMBER}.partial"
    network = Training(seed, recipe, saved).finish()
    print("calibrating and testing …", file=sys.stderr)
    torch.set_num_threads(1)
    count = min(HELD_BACK_SCENES, recipe.scenes)
    with start_processes() as pool:
        sets = [start_rendering(pool, True, (seed, part), count) for part in (1, 2)]
        validation, test = ([s for s in collect(blocks) if not s.doubt] for blocks in sets)
    calibrate_candidates(network, validation, seed)
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
    saved.unlink()
    return card


def calibrated(card: Card, chances: Tensor) -> Tensor:
    """The confidence of each reading: (N,) → (N,)."""
    return torch.tensor([card.calibrate(chance) for chance in chances.tolist()])
