"""Trains the networks: `digitq train NAME --out DIR`.

The training set is MNIST, pictures rendered from its digits and from drawn ones, which are
normalised as a user's images are, and shapes that are no digit. All are distorted anew in each
epoch.
"""

import copy
import hashlib
import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from protocol.chunk import CLASSES
from protocol.errors import OutputError, UsageError
from protocol.text import plural
from worker.dataset import load_mnist
from worker.models.card import Card
from worker.models.network import Network, softmax
from worker.training.augmentation import Augmenter
from worker.training.calibration import (
    calibrate,
    classify,
    measure_accuracy,
    measure_calibration_error,
)
from worker.training.recipes import RECIPES, Recipe
from worker.training.synthetic.rendering import NO_DIGIT, render_set, start_processes

VALIDATION_IMAGES = 5_000  # the last of the training images, which choose the epoch that is kept
LAST_PART = 10  # one of the last tenth of the epochs is kept: earlier, a good one is mostly luck


class Trainer:
    """Trains a network: has its optimiser, its schedule and the moving average of its weights."""

    def __init__(
        self, recipe: Recipe, network: Network, steps: int, teachers: Sequence[Network]
    ) -> None:
        """`steps` is the length of the cosine schedule that lowers the rates to 0."""
        self.network = network.train()
        average = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
        self.ema = AveragedModel(network, multi_avg_fn=average, use_buffers=True).eval()
        self.augment = Augmenter(recipe.distortion)
        self.recipe = recipe
        has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # not a public name
        self.bfloat16 = recipe.bfloat16 and has_bfloat16()
        self.teachers = teachers
        self.temperature = recipe.distillation_temperature if teachers else 1.0
        self.optimiser = recipe.make_optimiser(network)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, steps)

    def train_epoch(self, images: Tensor, labels: Tensor) -> float:
        """Train on every image once, distorted, in random order; gives the mean loss."""
        losses = []
        for rows in torch.split(torch.randperm(len(images)), self.recipe.batch_rows):
            losses.append(self.train_batch(self.augment(images[rows]), labels[rows]))
        return torch.stack(losses).mean().item()

    def train_batch(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Take one step on (N, 784) pixels and (N,) labels; gives the loss, a cross entropy.

        Teachers' answers are learned at a temperature that shows which wrong answers are nearly
        right, and which images are hard (G. Hinton et al., "Distilling the knowledge in a neural
        network", 2015).
        """
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            logits = self.network.logits(pixels)
            targets = self.ask_teachers(pixels) if self.teachers else target_probabilities(labels)
        loss = F.cross_entropy(logits.float() / self.temperature, targets) * self.temperature**2
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.schedule.step()
        self.ema.update_parameters(self.network)
        return loss.detach()

    def ask_teachers(self, pixels: Tensor) -> Tensor:
        """The mean of the teachers' probabilities for these pixels: (N, 784) → (N, 10)."""
        with torch.no_grad():
            answers = [
                softmax(teacher.logits(pixels).float() / self.temperature)
                for teacher in self.teachers
            ]
        return torch.stack(answers).mean(0)


def target_probabilities(labels: Tensor) -> Tensor:
    """The probabilities to learn, (N,) → (N, 10): 1 for the label, or 0.1 each for `NO_DIGIT`."""
    exact = F.one_hot(labels.clamp(min=0), CLASSES).float()
    return torch.where((labels == NO_DIGIT)[:, None], 1 / CLASSES, exact)


def count_validation(images: Tensor) -> int:
    """How many of the training images, the last ones, are for validation."""
    return min(VALIDATION_IMAGES, len(images) // 6)


Labelled = tuple[Tensor, Tensor]  # (N, 28, 28) uint8 and (N,) int64


class TrainingData(NamedTuple):
    """The images that a network learns from, and those that choose the epoch that is kept."""

    digits: Labelled
    pictures: Labelled
    validation: Labelled


def prepare_data(images: Tensor, labels: Tensor, seed: int, copies: int) -> TrainingData:
    """Split off the validation images, and render `copies` pictures of each training image."""
    validation = count_validation(images)
    digits = images[:-validation], labels[:-validation]
    pictures = images[:0], labels[:0]
    if copies:
        print(f"drawing {copies * len(digits[0]):,} pictures to learn from …", file=sys.stderr)
        rendered, answers = render_set(digits[0].numpy(), digits[1].numpy(), seed, copies)
        pictures = torch.from_numpy(rendered), torch.from_numpy(answers)
    return TrainingData(digits, pictures, (images[-validation:], labels[-validation:]))


def train_network(
    images: Tensor, labels: Tensor, seed: int, epochs: int, recipe: Recipe
) -> Network:
    """Train a network on (N, 28, 28) uint8 images and (N,) int64 labels; gives it as it ships.

    The validation images among them choose which of the last epochs is kept. On the same machine
    the same seed gives the same weights, since each network has one thread and one generator.
    """
    torch.manual_seed(seed)
    data = prepare_data(images, labels, seed, recipe.copies)
    teachers = train_teachers(data, seed, max(1, epochs // 2), recipe)
    return recipe.finish(train_stages(data, epochs, recipe, teachers))


def train_teachers(data: TrainingData, seed: int, epochs: int, recipe: Recipe) -> list[Network]:
    """Train each teacher from a seed of its own, as many at a time as there are cores."""
    if not recipe.teachers:
        return []
    arrays = [[tensor.numpy() for tensor in labelled] for labelled in data]
    train = partial(train_teacher, arrays, epochs=epochs, recipe=recipe.teacher)
    seeds = range(seed + 1, seed + 1 + recipe.teachers)
    print(f"training {plural(len(seeds), 'teacher')} …", file=sys.stderr)
    with start_processes() as pool:
        return list(pool.map(train, seeds))


def train_teacher(
    arrays: list[list[NDArray[Any]]], seed: int, epochs: int, recipe: Recipe
) -> Network:
    """Train a teacher on `TrainingData` as arrays: tensors would take too much shared memory."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = TrainingData(*((torch.from_numpy(x), torch.from_numpy(y)) for x, y in arrays))
    return train_stages(data, epochs, recipe, label=f"teacher {seed}: ")


def train_stages(
    data: TrainingData,
    epochs: int,
    recipe: Recipe,
    teachers: Sequence[Network] = (),
    label: str = "",
) -> Network:
    """Train a network from the start, and fine-tune it if the recipe says so."""
    network = train_stage(recipe.init_network(), data, epochs, recipe, teachers, label)
    network = network.fold()
    if recipe.fine_tuning:
        epochs = max(1, epochs // 3)
        label += "fine-tuning, "
        network = train_stage(network, data, epochs, recipe.fine_tuning, teachers, label)
    return network


def train_stage(
    network: Network,
    data: TrainingData,
    epochs: int,
    recipe: Recipe,
    teachers: Sequence[Network],
    label: str,
) -> Network:
    """Train along one cosine schedule; gives the best of the last epochs' averages.

    `label` begins each line of progress.
    """
    (digits, labels), (pictures, picture_labels), validation = data
    part = round(len(pictures) * recipe.picture_share)
    steps = epochs * math.ceil((len(digits) + part) / recipe.batch_rows)
    trainer = Trainer(recipe, network, steps, teachers)
    best, best_accuracy = copy.deepcopy(network).eval(), -1.0
    started = time.monotonic()
    for epoch in range(1, epochs + 1):
        chosen = torch.randperm(len(pictures))[:part]
        loss = trainer.train_epoch(
            torch.cat([digits, pictures[chosen]]), torch.cat([labels, picture_labels[chosen]])
        )
        accuracy = measure_accuracy(classify(trainer.ema, validation[0]), validation[1])
        if accuracy >= best_accuracy and epoch > epochs - max(1, epochs // LAST_PART):
            best.load_state_dict(trainer.ema.module.state_dict())
            best_accuracy = accuracy
        seconds = time.monotonic() - started
        print(
            f"{label}epoch {epoch}/{epochs}  loss {loss:.4f}  validation {accuracy:.2%}  "
            f"{seconds:.0f} s, {seconds / epoch * (epochs - epoch):.0f} s left",
            file=sys.stderr,
        )
    return best


def make_writable(folder: Path, name: str) -> None:
    """Make the folder. Raises `UsageError` if it can't be written to, or has this model already."""
    if (folder / f"{name}.safetensors").exists():
        raise UsageError(f"{folder / name}.safetensors exists: choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"can't write to {folder}: {error.strerror or error}") from None


def train_model(
    name: str, seed: int, epochs: int | None, out: Path, limit_images: int | None
) -> Card:
    """Train, measure the test images once, and write `out/NAME.safetensors` and its card."""
    torch.set_num_threads(1)
    recipe = RECIPES[name]
    epochs = epochs or recipe.epochs
    make_writable(out, name)
    images, labels = (tensor[:limit_images] for tensor in load_mnist("train"))
    trained = train_network(images, labels, seed, epochs, recipe)
    print("calibrating and testing …", file=sys.stderr)
    validation = count_validation(images)
    images, labels = images[-validation:], labels[-validation:]
    temperature, review_below = calibrate(trained, images, labels)
    network = type(trained)(recipe.mean, recipe.std, temperature)
    network.load_state_dict(trained.state_dict())
    test_images, test_labels = load_mnist("test")
    answers = classify(network, test_images)
    data = save({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    limit = "" if limit_images is None else f" --limit-images {limit_images}"
    options = f"--seed {seed} --epochs {epochs}{limit} --out DIR"
    card = Card(
        name=name,
        architecture=network.architecture,
        mean=recipe.mean,
        std=recipe.std,
        seed=seed,
        command=f"digitq train {name} {options}",
        validation_accuracy=round(measure_accuracy(classify(network, images), labels), 6),
        test_accuracy=round(measure_accuracy(answers, test_labels), 6),
        test_calibration_error=round(measure_calibration_error(answers, test_labels), 6),
        temperature=temperature,
        review_below=review_below,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    weights = out / f"{name}.safetensors"
    try:
        weights.write_bytes(data)
        card.write(out / f"{name}.json")
    except OSError as error:
        weights.unlink(missing_ok=True)
        raise OutputError(f"can't write {out / name}: {error.strerror or error}") from None
    return card
