"""Trains the networks: `digitq train NAME --out DIR`.

The training set is MNIST, rendered pictures of its digits and of drawn ones, and shapes that are
no digit. All are distorted anew in each epoch.
"""

import copy
import hashlib
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from protocol.chunk import CLASSES
from protocol.errors import OutputError, UsageError
from protocol.text import plural
from training.recipes import RECIPES, Recipe
from training.synthetic.rendering import NO_DIGIT, Labelled, render_set, start_processes
from worker.dataset import load_mnist
from worker.learning.augmentation import Augmenter
from worker.learning.calibration import (
    calibrate,
    classify,
    measure_accuracy,
    measure_calibration_error,
)
from worker.models.card import Card
from worker.models.network import Network, softmax

VALIDATION_IMAGES = 5_000  # so many images, the last ones, choose the epoch that is kept
LAST_PART = 10  # the best epoch is sought in the last tenth: an earlier one is good by luck


class TrainingData(NamedTuple):
    """Images and labels to learn from, and those that choose the epoch that is kept.

    Arrays travel to the processes of teachers: tensors would take too much shared memory.
    """

    digits: Labelled
    pictures: Labelled
    validation: Labelled


def target_probabilities(labels: Tensor) -> Tensor:
    """The probabilities to learn, (N,) → (N, 10): 1 for the label, or 0.1 each for `NO_DIGIT`."""
    exact = F.one_hot(labels.clamp(min=0), CLASSES).float()
    return torch.where((labels == NO_DIGIT)[:, None], 1 / CLASSES, exact)


def prepare_data(images: Tensor, labels: Tensor, seed: int, copies: int) -> TrainingData:
    """Split off the validation images, and render `copies` pictures of each training image.

    The images are (N, 28, 28) uint8, the labels (N,) int64.
    """
    validation = min(VALIDATION_IMAGES, len(images) // 6)
    pixels, answers = images.numpy(), labels.numpy()
    digits = pixels[:-validation], answers[:-validation]
    pictures = pixels[:0], answers[:0]
    if copies:
        print(f"drawing {copies * len(digits[0]):,} pictures to learn from …", file=sys.stderr)
        pictures = render_set(*digits, seed, copies)
    return TrainingData(digits, pictures, (pixels[-validation:], answers[-validation:]))


def train_network(data: TrainingData, seed: int, recipe: Recipe) -> Network:
    """Train a network; gives it as it ships.

    On the same machine the same seed gives the same weights, since each network has one thread and
    one generator.
    """
    torch.manual_seed(seed)
    teachers = train_teachers(data, seed, recipe) if recipe.teachers else []
    return recipe.finish(train_stages(data, recipe, teachers))


def train_teachers(data: TrainingData, seed: int, recipe: Recipe) -> list[Network]:
    """Train each teacher from a seed of its own, as many at a time as there are cores."""
    train = partial(train_teacher, data, replace(recipe, epochs=max(1, recipe.epochs // 2)))
    print(f"training {plural(recipe.teachers, 'teacher')} …", file=sys.stderr)
    with start_processes() as pool:
        return list(pool.map(train, range(seed + 1, seed + 1 + recipe.teachers)))


def train_teacher(data: TrainingData, recipe: Recipe, seed: int) -> Network:
    """Train a teacher in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return train_stages(data, recipe, label=f"teacher {seed}: ")


def train_stages(
    data: TrainingData, recipe: Recipe, teachers: Sequence[Network] = (), label: str = ""
) -> Network:
    """Train a network from the start, and fine-tune it if the recipe says so."""
    network = train_stage(recipe.init_network(), data, recipe, teachers, label).fold()
    if recipe.fine_tuning:
        tuning = replace(recipe.fine_tuning, epochs=max(1, recipe.epochs // 3))
        network = train_stage(network, data, tuning, teachers, f"{label}fine-tuning, ")
    return network


def train_stage(
    network: Network, data: TrainingData, recipe: Recipe, teachers: Sequence[Network], label: str
) -> Network:
    """Train along one cosine schedule that lowers the rates to 0; `label` begins each line printed.

    Gives the best of the last epochs' moving averages of the weights.
    """
    epochs = recipe.epochs
    (digits, labels), (pictures, picture_labels), (held_back, answers) = (
        [torch.from_numpy(array) for array in part] for part in data
    )
    part = round(len(pictures) * recipe.picture_share)
    steps = epochs * math.ceil((len(digits) + part) / recipe.batch_rows)
    average = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
    ema = AveragedModel(network.train(), multi_avg_fn=average, use_buffers=True).eval()
    augment = Augmenter(recipe.distortion)
    optimiser = recipe.make_optimiser(network)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, best_accuracy = copy.deepcopy(network).eval(), -1.0
    started = time.monotonic()
    for epoch in range(1, epochs + 1):
        chosen = torch.randperm(len(pictures))[:part]
        shown = torch.cat([digits, pictures[chosen]])
        targets = target_probabilities(torch.cat([labels, picture_labels[chosen]]))
        losses = []
        for rows in torch.split(torch.randperm(len(shown)), recipe.batch_rows):
            loss = measure_loss(network, augment(shown[rows]), targets[rows], recipe, teachers)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            ema.update_parameters(network)
            losses.append(loss.detach())
        accuracy = measure_accuracy(classify(ema, held_back), answers)
        if accuracy >= best_accuracy and epoch > epochs - max(1, epochs // LAST_PART):
            best.load_state_dict(ema.module.state_dict())
            best_accuracy = accuracy
        seconds = time.monotonic() - started
        print(
            f"{label}epoch {epoch}/{epochs}  loss {torch.stack(losses).mean():.4f}  "
            f"validation {accuracy:.2%}  {seconds:.0f} s, "
            f"{seconds / epoch * (epochs - epoch):.0f} s left",
            file=sys.stderr,
        )
    return best


def measure_loss(
    network: Network, pixels: Tensor, targets: Tensor, recipe: Recipe, teachers: Sequence[Network]
) -> Tensor:
    """The cross entropy for (N, 784) pixels and the probabilities to learn, (N, 10).

    Instead, the mean of the teachers' answers is learned if there are any, at a temperature that
    shows which wrong answers are nearly right, and which images are hard (G. Hinton et al.,
    "Distilling the knowledge in a neural network", 2015).
    """
    temperature = recipe.distillation_temperature if teachers else 1.0
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16 and has_bfloat16()):
        logits = network.logits(pixels).float() / temperature
        if teachers:
            with torch.no_grad():
                answers = [softmax(each.logits(pixels).float() / temperature) for each in teachers]
            targets = torch.stack(answers).mean(0)
    return F.cross_entropy(logits, targets) * temperature**2


def has_bfloat16() -> bool:
    """Whether the processor multiplies in 16 bits; one that doesn't takes ten times as long."""
    is_supported = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # has no public name
    return bool(is_supported())


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
    recipe = replace(recipe, epochs=epochs or recipe.epochs)
    make_writable(out, name)
    images, labels = (tensor[:limit_images] for tensor in load_mnist("train"))
    data = prepare_data(images, labels, seed, recipe.copies)
    network = train_network(data, seed, recipe)
    print("calibrating and testing …", file=sys.stderr)
    images, labels = (torch.from_numpy(array) for array in data.validation)
    network.temperature, review_below = calibrate(network, images, labels)
    test_images, test_labels = load_mnist("test")
    answers = classify(network, test_images)
    limit = "" if limit_images is None else f" --limit-images {limit_images}"
    card = Card(
        name=name,
        architecture=network.architecture,
        mean=recipe.mean,
        std=recipe.std,
        seed=seed,
        command=f"digitq train {name} --seed {seed} --epochs {recipe.epochs}{limit} --out DIR",
        validation_accuracy=round(measure_accuracy(classify(network, images), labels), 6),
        test_accuracy=round(measure_accuracy(answers, test_labels), 6),
        test_calibration_error=round(measure_calibration_error(answers, test_labels), 6),
        temperature=network.temperature,
        review_below=review_below,
    )
    return write_model(out, card, network)


def write_model(out: Path, card: Card, network: nn.Module) -> Card:
    """Write the weights and the card to a folder; gives the card with the weights' SHA-256.

    Raises `OutputError`.
    """
    content = save({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    card = replace(card, sha256=hashlib.sha256(content).hexdigest())
    weights = out / f"{card.name}.safetensors"
    try:
        weights.write_bytes(content)
        card.write(out / f"{card.name}.json")
    except OSError as error:
        weights.unlink(missing_ok=True)
        raise OutputError(f"can't write {weights}: {error.strerror or error}") from None
    return card
