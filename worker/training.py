"""Training the networks: `python -m worker.training NAME --out DIR`.

On MNIST, distorted anew for each epoch; on pictures rendered around its digits, and drawn ones,
taken to 28×28 as a person's images are; and on what is no digit.
"""

import copy
import hashlib
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from protocol.errors import DigitqError
from worker.calibration import calibrate, classify, measure_accuracy, measure_calibration_error
from worker.dataset import load_mnist
from worker.distortion import Distorter, Distortion
from worker.models import Card
from worker.network import LABELS, ConvNetwork, DigitNetwork, Network
from worker.rendering import NO_DIGIT, render_set

HELD_BACK = 5_000  # the last training images, which choose the epoch that is kept
LAST_PART = 10  # it is one of the last tenth: earlier, a good epoch is mostly luck


@dataclass(frozen=True)
class Recipe:
    """How to train: everything that decides the weights, beside the seed and the epochs."""

    epochs: int = 1
    batch_rows: int = 512
    averaged: float = 0.999  # what the moving average of the weights keeps at a step
    mean: float = 0.1307  # of MNIST's training pixels
    std: float = 0.3081
    bfloat16: bool = False  # multiply in 16 bits, where the processor is fast at that
    copies: int = 3  # pictures rendered of each image
    share: float = 0.25  # of the pictures, that an epoch shows
    distortion: Distortion = Distortion()

    def draw_network(self) -> Network:
        """An untrained network, as it trains."""
        raise NotImplementedError

    def make_optimiser(self, network: Network) -> torch.optim.Optimizer:
        """What moves the weights; a cosine brings its rates down to 0."""
        raise NotImplementedError

    def finish(self, network: Network) -> Network:
        """The trained network, as it ships."""
        return network

    @property
    def settling(self) -> "Recipe | None":
        """How to train the finished network on, for a third as many epochs."""
        return None


@dataclass(frozen=True)
class MlpRecipe(Recipe):
    """How to train `mlp`.

    A hidden softmax spreads 1 over 256 units, so what reaches the second layer is about 1/256:
    its weights start, and move, several hundredfold larger than the first layer's. (Loss after
    30 epochs: 0.104 from a scale of 8 at a rate of 0.03, 0.072 from 30 at 0.3. A rate of 1 is
    better still there, but too restless for a long run.)
    """

    epochs: int = 900
    first_rate: float = 5e-4  # Adam's rate for the first layer, and for the second
    second_rate: float = 0.3
    first_scale: float = 0.02  # standard deviation of the initial weights
    second_scale: float = 30.0

    def draw_network(self) -> DigitNetwork:
        network = DigitNetwork(self.mean, self.std)
        with torch.no_grad():
            network.w1.normal_(0, self.first_scale)
            network.w2.normal_(0, self.second_scale)
            network.b1.zero_()
            network.b2.zero_()
        return network

    def make_optimiser(self, network: Network) -> torch.optim.Optimizer:
        first, second = [network.w1, network.b1], [network.w2, network.b2]
        groups = [
            {"params": first, "lr": self.first_rate},
            {"params": second, "lr": self.second_rate},
        ]
        return torch.optim.Adam(groups, fused=True)


@dataclass(frozen=True)
class CnnRecipe(Recipe):
    """How to train `cnn`.

    Sixteen bits make a step more than twice as fast on a processor that multiplies them, and much
    slower on one that doesn't know them.
    """

    epochs: int = 60
    batch_rows: int = 256
    bfloat16: bool = True
    rate: float = 3e-3
    decay: float = 0.05
    settles: bool = True
    distortion: Distortion = Distortion(
        rotation_degrees=8.0,
        stretch=0.15,
        shear=0.15,
        shift_pixels=1.0,
        elastic_pixels=0.6,
    )

    def draw_network(self) -> ConvNetwork:
        return ConvNetwork(self.mean, self.std, normalised=True)

    def make_optimiser(self, network: Network) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            network.parameters(), lr=self.rate, weight_decay=self.decay, fused=True
        )

    def finish(self, network: Network) -> Network:
        assert isinstance(network, ConvNetwork)
        return network.fold()

    @property
    def settling(self) -> Recipe | None:
        """Closer to MNIST: more of it, less distorted, at a lower rate."""
        if not self.settles:
            return None
        return replace(self, settles=False, rate=5e-4, share=0.2, distortion=Distortion())


RECIPES: dict[str, Recipe] = {"mlp": MlpRecipe(), "cnn": CnnRecipe()}


class Trainer:
    """A network being trained: its optimiser, its schedule and the average of its weights."""

    def __init__(self, recipe: Recipe, network: Network, steps: int) -> None:
        """`steps` is the length of the cosine along which the rates fall to 0."""
        self.network = network.train()
        average = get_ema_multi_avg_fn(recipe.averaged)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True).eval()
        self.distort = Distorter(recipe.distortion)
        self.recipe = recipe
        self.optimiser = recipe.make_optimiser(network)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, steps)

    def train_epoch(self, images: Tensor, labels: Tensor) -> float:
        """Show every image once, distorted, in random order; gives the mean loss."""
        losses = []
        for rows in torch.split(torch.randperm(len(images)), self.recipe.batch_rows):
            losses.append(self.train_batch(self.distort(images[rows]), labels[rows]))
        return torch.stack(losses).mean().item()

    def train_batch(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """One step down the cross entropy of (N, 784) pixels and (N,) labels; gives the loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            logits = self.network.logits(pixels)
        loss = F.cross_entropy(logits.float(), aim(labels))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.schedule.step()
        self.averaged.update_parameters(self.network)
        return loss.detach()


def aim(labels: Tensor) -> Tensor:
    """The probabilities to learn, (N,) → (N, 10): 1 for the label; all alike for `NO_DIGIT`."""
    exact = F.one_hot(labels.clamp(min=0), LABELS).float()
    return torch.where((labels == NO_DIGIT)[:, None], 1 / LABELS, exact)


def count_held_back(images: Tensor) -> int:
    """How many of the training images are held back, at their end."""
    return min(HELD_BACK, len(images) // 6)


def render(images: Tensor, labels: Tensor, seed: int, copies: int) -> tuple[Tensor, Tensor]:
    """`render_set` with tensors; of no copies, nothing."""
    if copies == 0:
        return images[:0], labels[:0]
    rendered, known = render_set(images.numpy(), labels.numpy(), seed, copies)
    return torch.from_numpy(rendered), torch.from_numpy(known)


def train_network(
    images: Tensor, labels: Tensor, seed: int, epochs: int, recipe: Recipe
) -> tuple[Network, float]:
    """Train on all but the held back images, which choose one of the last epochs' averages.

    (N, 28, 28) uint8 and (N,) int64 → the network and its validation accuracy. The same seed
    gives the same weights on the same machine: one thread, one random generator.
    """
    torch.manual_seed(seed)
    held_back = count_held_back(images)
    shown = images[:-held_back], labels[:-held_back]
    pictures = render(*shown, seed, recipe.copies)
    validation = images[-held_back:], labels[-held_back:]
    network, accuracy = train_stage(
        recipe.draw_network(), epochs, recipe, shown, pictures, validation
    )
    network = recipe.finish(network)
    if recipe.settling:
        network, accuracy = train_stage(
            network, max(1, epochs // 3), recipe.settling, shown, pictures, validation
        )
    return network, accuracy


Labelled = tuple[Tensor, Tensor]  # (N, 28, 28) uint8 and (N,) int64


def train_stage(
    network: Network,
    epochs: int,
    recipe: Recipe,
    shown: Labelled,
    pictures: Labelled,
    validation: Labelled,
) -> tuple[Network, float]:
    """Train a network along one cosine; gives the average that was best at its end."""
    part = round(len(pictures[0]) * recipe.share)
    steps = epochs * math.ceil((len(shown[0]) + part) / recipe.batch_rows)
    trainer = Trainer(recipe, network, steps)
    best, best_accuracy = copy.deepcopy(network).eval(), -1.0
    started = time.monotonic()
    for epoch in range(1, epochs + 1):
        chosen = torch.randperm(len(pictures[0]))[:part]
        loss = trainer.train_epoch(
            torch.cat([shown[0], pictures[0][chosen]]), torch.cat([shown[1], pictures[1][chosen]])
        )
        accuracy = measure_accuracy(classify(trainer.averaged, validation[0]), validation[1])
        if accuracy >= best_accuracy and epoch > epochs - max(1, epochs // LAST_PART):
            best.load_state_dict(trainer.averaged.module.state_dict())
            best_accuracy = accuracy
        print(
            f"epoch {epoch}/{epochs}  loss {loss:.4f}  validation {accuracy:.2%}  "
            f"{time.monotonic() - started:.0f} s",
            file=sys.stderr,
        )
    return best, best_accuracy


def train_model(
    name: str, seed: int, epochs: int | None, out: Path, limit_images: int | None
) -> Card:
    """Train, measure the test images once, write `out/NAME.safetensors` and its card."""
    torch.set_num_threads(1)
    recipe = RECIPES[name]
    epochs = epochs or recipe.epochs
    out.mkdir(parents=True, exist_ok=True)
    images, labels = (tensor[:limit_images] for tensor in load_mnist("train"))
    network, validation = train_network(images, labels, seed, epochs, recipe)
    held_back = count_held_back(images)
    network.temperature, review_below = calibrate(network, images[-held_back:], labels[-held_back:])
    test_images, test_labels = load_mnist("test")
    answers = classify(network, test_images)
    data = save({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    (out / f"{name}.safetensors").write_bytes(data)
    limit = "" if limit_images is None else f" --limit-images {limit_images}"
    options = f"--seed {seed} --epochs {epochs}{limit} --out DIR"
    card = Card(
        name=name,
        architecture=network.architecture,
        mean=recipe.mean,
        std=recipe.std,
        seed=seed,
        command=f"python -m worker.training {name} {options}",
        validation_accuracy=round(validation, 6),
        test_accuracy=round(measure_accuracy(answers, test_labels), 6),
        test_calibration_error=round(measure_calibration_error(answers, test_labels), 6),
        temperature=network.temperature,
        review_below=review_below,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    card.write(out / f"{name}.json")
    return card


@click.command()
@click.argument("name", type=click.Choice(sorted(RECIPES)))
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="the same seed, the same weights",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="[default: "
    + ", ".join(f"{recipe.epochs} for {name}" for name, recipe in RECIPES.items())
    + "]",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="folder for NAME.safetensors and NAME.json",
)
@click.option("--limit-images", type=click.IntRange(60), help="train on the first images only")
def main(name: str, seed: int, epochs: int | None, out: Path, limit_images: int | None) -> None:
    """Train the network NAME on MNIST and write its weights and its card to a folder."""
    try:
        card = train_model(name, seed, epochs, out, limit_images)
    except DigitqError as error:
        print(f"digitq: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{out / name}.safetensors: {card.test_accuracy:.2%} of the test images", file=sys.stderr)


if __name__ == "__main__":
    main(prog_name="digitq train")
