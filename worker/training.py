"""Training the network on distorted MNIST: `python -m worker.training mlp --out DIR`."""

import hashlib
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from protocol.errors import DigitqError
from worker.dataset import load_mnist
from worker.models import Card
from worker.network import ARCHITECTURE, PIXELS, DigitNetwork

SIDE = 28
HELD_BACK = 5_000  # the last training images, which choose the epoch that is kept
LAST_PART = 10  # it is one of the last tenth: earlier, a good epoch is mostly luck


@dataclass(frozen=True)
class Recipe:
    """How to train: everything that decides the weights, beside the seed and the epochs.

    A hidden softmax spreads 1 over 256 units, so what reaches the second layer is about 1/256:
    its weights start, and move, several hundredfold larger than the first layer's. (Loss after
    30 epochs: 0.104 from a scale of 8 at a rate of 0.03, 0.072 from 30 at 0.3. A rate of 1 is
    better still there, but too restless for a long run.)
    """

    batch_rows: int = 512
    first_rate: float = 5e-4  # Adam's rate for the first layer, and for the second
    second_rate: float = 0.3
    first_scale: float = 0.02  # standard deviation of the initial weights
    second_scale: float = 30.0
    averaged: float = 0.999  # what the moving average of the weights keeps at a step
    mean: float = 0.1307  # of MNIST's training pixels
    std: float = 0.3081
    rotation_degrees: float = 6.0  # all distortions: standard deviations
    stretch: float = 0.07
    shear: float = 0.07
    shift_pixels: float = 0.8
    elastic_pixels: float = 0.56


class Distorter:
    """Moves, turns, stretches and kneads images, each at random and each in its own way.

    Where a pixel comes from is a sum of fields over the image: x, y, 1 (an affine map) and 7 × 7
    bumps (the elastic part of Simard et al. 2003, smoothed beforehand). So a batch's sampling
    grid is one product: (N · 2, fields) @ (fields, 784).
    """

    BUMPS = 7
    BUMP_WIDTH = 0.3  # of the image's half side

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        ticks = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
        y, x = (axis.flatten() for axis in torch.meshgrid(ticks, ticks, indexing="ij"))
        ticks = torch.linspace(-1, 1, self.BUMPS)
        centre_y, centre_x = torch.meshgrid(ticks, ticks, indexing="ij")
        square = (x - centre_x.reshape(-1, 1)) ** 2 + (y - centre_y.reshape(-1, 1)) ** 2
        bumps = torch.exp(-square / (2 * self.BUMP_WIDTH**2))
        bumps /= bumps.square().sum(0).sqrt()  # then N(0, 1) times the bumps is N(0, 1) anywhere
        self.fields = torch.cat([torch.stack([x, y, torch.ones(PIXELS)]), bumps])  # (52, 784)

    def __call__(self, images: Tensor) -> Tensor:
        """Distort each image in its own way: (N, 28, 28) float → (N, 784), the same range."""
        count, fields = len(images), len(self.fields)
        grid = (self.draw_mix(count).view(-1, fields) @ self.fields).view(count, 2, SIDE, SIDE)
        grid = grid.permute(0, 2, 3, 1)
        moved = F.grid_sample(images[:, None].float(), grid, align_corners=False)
        return moved.view(count, PIXELS)

    def draw_mix(self, count: int) -> Tensor:
        """How much of each field moves x, and y, in units of half a side: (count, 2, fields)."""
        recipe = self.recipe
        angle = torch.randn(count) * math.radians(recipe.rotation_degrees)
        stretch_x, stretch_y = torch.exp(torch.randn(2, count) * recipe.stretch)
        mix = torch.randn(count, 2, len(self.fields)) * (recipe.elastic_pixels * 2 / SIDE)
        mix[:, 0, 0] = stretch_x * angle.cos()
        mix[:, 0, 1] = stretch_x * (torch.randn(count) * recipe.shear - angle.sin())
        mix[:, 1, 0] = stretch_y * angle.sin()
        mix[:, 1, 1] = stretch_y * angle.cos()
        mix[:, :, 2] = torch.randn(count, 2) * (recipe.shift_pixels * 2 / SIDE)
        return mix


def draw_network(recipe: Recipe) -> DigitNetwork:
    """An untrained network with the recipe's initial scales."""
    network = DigitNetwork(recipe.mean, recipe.std)
    with torch.no_grad():
        network.w1.normal_(0, recipe.first_scale)
        network.w2.normal_(0, recipe.second_scale)
        network.b1.zero_()
        network.b2.zero_()
    return network


class Trainer:
    """A network being trained: its optimiser, its schedule and the average of its weights."""

    def __init__(self, recipe: Recipe, steps: int) -> None:
        """`steps` is the length of the cosine along which both rates fall to 0."""
        self.network = draw_network(recipe)
        average = get_ema_multi_avg_fn(recipe.averaged)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(self.network, multi_avg_fn=average)
        self.distort = Distorter(recipe)
        self.recipe = recipe
        self.optimiser = torch.optim.Adam(
            [
                {"params": [self.network.w1, self.network.b1], "lr": recipe.first_rate},
                {"params": [self.network.w2, self.network.b2], "lr": recipe.second_rate},
            ],
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, steps)

    def train_epoch(self, images: Tensor, labels: Tensor) -> float:
        """Show every image once, distorted, in random order; gives the mean loss."""
        losses = []
        for rows in torch.split(torch.randperm(len(images)), self.recipe.batch_rows):
            losses.append(self.train_batch(self.distort(images[rows]), labels[rows]))
        return torch.stack(losses).mean().item()

    def train_batch(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """One step down the cross entropy of (N, 784) pixels and (N,) labels; gives the loss."""
        loss = F.cross_entropy(self.network.logits(pixels), labels)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.schedule.step()
        self.averaged.update_parameters(self.network)
        return loss.detach()


def measure_accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of (N, 28, 28) images whose most probable label is the right one."""
    with torch.inference_mode():
        predictions = network(images.flatten(1)).argmax(1)
    return float((predictions == labels).float().mean())


def train_network(
    images: Tensor, labels: Tensor, seed: int, epochs: int, recipe: Recipe
) -> tuple[DigitNetwork, float]:
    """Train on all but the held back images, which choose one of the last epochs' averages.

    (N, 28, 28) uint8 and (N,) int64 → the network and its validation accuracy. The same seed
    gives the same weights on the same machine: one thread, one random generator.
    """
    torch.manual_seed(seed)
    held_back = min(HELD_BACK, len(images) // 6)
    train_images, validation_images = images[:-held_back].float(), images[-held_back:]
    trainer = Trainer(recipe, epochs * math.ceil(len(train_images) / recipe.batch_rows))
    best, best_accuracy = draw_network(recipe), -1.0
    started = time.monotonic()
    for epoch in range(1, epochs + 1):
        loss = trainer.train_epoch(train_images, labels[:-held_back])
        accuracy = measure_accuracy(trainer.averaged, validation_images, labels[-held_back:])
        if accuracy >= best_accuracy and epoch > epochs - max(1, epochs // LAST_PART):
            best.load_state_dict(trainer.averaged.module.state_dict())
            best_accuracy = accuracy
        print(
            f"epoch {epoch}/{epochs}  loss {loss:.4f}  validation {accuracy:.2%}  "
            f"{time.monotonic() - started:.0f} s",
            file=sys.stderr,
        )
    return best, best_accuracy


def train_model(name: str, seed: int, epochs: int, out: Path, limit_images: int | None) -> Card:
    """Train, measure the test images once, write `out/NAME.safetensors` and its card."""
    torch.set_num_threads(1)
    recipe = Recipe()
    out.mkdir(parents=True, exist_ok=True)
    images, labels = load_mnist("train")
    network, validation = train_network(
        images[:limit_images], labels[:limit_images], seed, epochs, recipe
    )
    data = save({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    (out / f"{name}.safetensors").write_bytes(data)
    limit = "" if limit_images is None else f" --limit-images {limit_images}"
    options = f"--seed {seed} --epochs {epochs}{limit} --out DIR"
    card = Card(
        name=name,
        architecture=ARCHITECTURE,
        mean=recipe.mean,
        std=recipe.std,
        seed=seed,
        command=f"python -m worker.training {name} {options}",
        validation_accuracy=round(validation, 6),
        test_accuracy=round(measure_accuracy(network, *load_mnist("test")), 6),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    card.write(out / f"{name}.json")
    return card


@click.command()
@click.argument("name", type=click.Choice(["mlp"]))
@click.option("--seed", default=0, show_default=True, help="the same seed, the same weights")
@click.option("--epochs", default=1300, show_default=True, type=click.IntRange(1))
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="folder for NAME.safetensors and NAME.json",
)
@click.option("--limit-images", type=click.IntRange(60), help="train on the first images only")
def main(name: str, seed: int, epochs: int, out: Path, limit_images: int | None) -> None:
    """Train the network NAME on MNIST and write its weights and its card to a folder."""
    try:
        card = train_model(name, seed, epochs, out, limit_images)
    except DigitqError as error:
        print(f"digitq: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{out / name}.safetensors: {card.test_accuracy:.2%} of the test images", file=sys.stderr)


if __name__ == "__main__":
    main(prog_name="digitq train")
