"""Trains a network of single digits along one schedule, and writes its weights and its card."""

import copy
import hashlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from protocol.errors import OutputError, UsageError
from worker.learning.augmentation import Augmenter
from worker.learning.calibration import classify, measure_accuracy
from worker.learning.recipes import StageRecipe
from worker.models.card import Card
from worker.models.network import Network

VALIDATION_IMAGES = 5_000  # the last training images of MNIST are never learned
LAST_PART = 10  # the best epoch is sought in the last tenth: an earlier one is good by luck

# The loss for (N, 784) pixels, and the probabilities to learn, (N, 10)
Measure = Callable[[Network, Tensor, Tensor, StageRecipe], Tensor]


class StageData(NamedTuple):
    """Images, (N, 28, 28) uint8, with the probabilities to learn, (N, 10), or labels, (N,)."""

    images: Tensor  # an epoch shows all of these ...
    targets: Tensor
    more_images: Tensor  # ... and a share of these, which is drawn anew
    more_targets: Tensor
    validation: Tensor  # these choose the epoch that is kept
    labels: Tensor


def measure_loss(network: Network, pixels: Tensor, targets: Tensor, recipe: StageRecipe) -> Tensor:
    """The cross entropy for (N, 784) pixels and the probabilities to learn, (N, 10)."""
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16 and has_bfloat16()):
        logits = network.logits(pixels)
    return F.cross_entropy(logits.float(), targets)


def has_bfloat16() -> bool:
    """Whether the processor multiplies in 16 bits; one that doesn't takes ten times as long."""
    is_supported = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # has no public name
    return bool(is_supported())


def train_stage(
    network: Network,
    data: StageData,
    recipe: StageRecipe,
    label: str = "",
    measure: Measure = measure_loss,
) -> Network:
    """Train along one cosine schedule that lowers the rates to 0; `label` begins each line printed.

    Gives the best of the last epochs' moving averages of the weights.
    """
    epochs = recipe.epochs
    part = round(len(data.more_images) * recipe.more_share)
    steps = epochs * math.ceil((len(data.images) + part) / recipe.batch_rows)
    average = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
    ema = AveragedModel(network.train(), multi_avg_fn=average, use_buffers=True).eval()
    augment = Augmenter(recipe.distortion)
    optimiser = recipe.make_optimiser(network)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, best_accuracy = copy.deepcopy(network).eval(), -1.0
    started = time.monotonic()
    for epoch in range(1, epochs + 1):
        chosen = torch.randperm(len(data.more_images))[:part]
        shown = torch.cat([data.images, data.more_images[chosen]])
        targets = torch.cat([data.targets, data.more_targets[chosen]])
        losses = []
        for rows in torch.split(torch.randperm(len(shown)), recipe.batch_rows):
            loss = measure(network, augment(shown[rows]), targets[rows], recipe)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            ema.update_parameters(network)
            losses.append(loss.detach())
        accuracy = measure_accuracy(classify(ema, data.validation), data.labels)
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


def make_writable(folder: Path, name: str) -> None:
    """Make the folder. Raises `UsageError` if it can't be written to, or has this model already."""
    if (folder / f"{name}.safetensors").exists():
        raise UsageError(f"{folder / name}.safetensors exists: choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"can't write to {folder}: {error.strerror or error}") from None


def write_model(out: Path, card: Card, weights: dict[str, Tensor]) -> Card:
    """Write the weights and the card to a folder; gives the card with the weights' SHA-256.

    Raises `OutputError`.
    """
    content = save({key: tensor.contiguous() for key, tensor in weights.items()})
    card = replace(card, sha256=hashlib.sha256(content).hexdigest())
    path = out / f"{card.name}.safetensors"
    try:
        path.write_bytes(content)
        card.write(out / f"{card.name}.json")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OutputError(f"can't write {path}: {error.strerror or error}") from None
    return card
