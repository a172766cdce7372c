"""How networks of single digits are trained, and in which batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from digitq.worker.learning.augmentation import Augmenter, Distortion
from digitq.worker.learning.learner import Recipe, has_bfloat16
from digitq.worker.models.network import Mlp, Network, TwoViewCnn


@dataclass(frozen=True)
class BaseRecipe(Recipe):
    """What the recipes of networks of single digits have in common.

    Each has `make_optimiser`, and `finish`, which gives the trained network in the form in which it
    is used.
    """

    batch_rows: int = 512
    bfloat16: bool = False  # training multiplies in 16 bits if the processor can
    most_rows: int | None = None  # an epoch shows at most so many of `DigitData.images`
    more_share: float = 0.25  # an epoch shows this share of `DigitData.more_images`
    distortion: Distortion = Distortion()
    mean: float = 0.1307  # the mean of MNIST's training pixels, scaled to 0..1
    std: float = 0.3081  # their standard deviation


@dataclass(frozen=True)
class MlpRecipe(BaseRecipe):
    """How to train `mlp`.

    The hidden softmax spreads 1 over 256 units, so the second layer's inputs are about 1/256. Its
    learning rate is therefore several hundred times the first layer's.
    """

    more_share: float = 0.4
    first_learning_rate: float = 5e-4  # Adam's learning rate for the first layer
    second_learning_rate: float = 0.3  # the learning rate for the second layer

    def make_optimiser(self, network: Network) -> torch.optim.Optimizer:
        groups = [
            {"params": [network.w1, network.b1], "lr": self.first_learning_rate},
            {"params": [network.w2, network.b2], "lr": self.second_learning_rate},
        ]
        return torch.optim.Adam(groups, fused=True)

    def finish(self, network: Network) -> Network:
        """Subtract the first layer's mean over the 256 hidden units.

        The answers stay the same, since a softmax ignores what all its inputs have in common. But
        the sums become smaller, so their rounding errors do too.
        """
        assert isinstance(network, Mlp)
        with torch.no_grad():
            for parameter in (network.w1, network.b1):
                exact = parameter.double()
                parameter.copy_(exact - exact.mean(-1, keepdim=True))
        return network


@dataclass(frozen=True)
class CnnRecipe(BaseRecipe):
    """How to train `cnn`.

    With bfloat16 a step is more than twice as fast on a processor that multiplies in 16 bits. On
    one that does not, the same seed gives other weights.
    """

    batch_rows: int = 256
    bfloat16: bool = True
    learning_rate: float = 3e-3
    weight_decay: float = 0.05

    def make_optimiser(self, network: Network) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )

    def finish(self, network: Network) -> TwoViewCnn:
        shipped = TwoViewCnn(self.mean, self.std)
        shipped.load_state_dict(network.state_dict())
        return shipped.eval()


DigitRecipe = MlpRecipe | CnnRecipe
# How an installed network goes on with a user's own images: 500 of them in three minutes
OWN_RECIPES: dict[str, DigitRecipe] = {
    "mlp": MlpRecipe(
        epochs=25, first_learning_rate=1e-4, second_learning_rate=0.06, ema_decay=0.99
    ),
    "cnn": CnnRecipe(
        epochs=8,
        learning_rate=3e-4,
        ema_decay=0.99,
        distortion=Distortion(thresholded_share=0.04, faded_share=0.04),
    ),
}
# How it goes on with the answers of a network to a user's images
ADAPTING_RECIPES: dict[str, DigitRecipe] = {
    "mlp": MlpRecipe(
        epochs=40,
        first_learning_rate=6e-4,
        second_learning_rate=0.3,
        ema_decay=0.99,
        most_rows=6000,
    ),
    "cnn": CnnRecipe(
        epochs=6,
        learning_rate=6e-4,
        ema_decay=0.99,
        most_rows=6000,
        distortion=OWN_RECIPES["cnn"].distortion,
    ),
}
DigitBatch = tuple[Tensor, Tensor]  # (N, 784) pixels and the probabilities to learn, (N, 10)


class DigitData(NamedTuple):
    """Images, (N, 28, 28) uint8, with the probabilities to learn, (N, 10)."""

    images: Tensor  # an epoch shows all of these
    targets: Tensor
    more_images: Tensor  # each epoch draws anew which share of these it shows
    more_targets: Tensor


def draw_batches(
    data: DigitData, recipe: DigitRecipe, augment: Augmenter, epoch: int
) -> Iterator[tuple[float, DigitBatch]]:
    """The batches of an epoch in random order, with the share of the images before each."""
    part = round(len(data.more_images) * recipe.more_share)
    chosen = torch.randperm(len(data.more_images))[:part]
    images, targets = data.images, data.targets
    if recipe.most_rows and recipe.most_rows < len(images):
        rows = torch.randperm(len(images))[: recipe.most_rows]
        images, targets = images[rows], targets[rows]
    shown = torch.cat([images, data.more_images[chosen]])
    targets = torch.cat([targets, data.more_targets[chosen]])
    order = torch.randperm(len(shown))
    for start in range(0, len(shown), recipe.batch_rows):
        rows = order[start : start + recipe.batch_rows]
        yield start / len(shown), (augment(shown[rows]), targets[rows])


def measure_loss(
    recipe: DigitRecipe, temperature: float, network: Network, batch: DigitBatch
) -> tuple[Tensor]:
    """The cross entropy of a batch, whose targets were taken at this temperature."""
    pixels, targets = batch
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16 and has_bfloat16()):
        logits = network.logits(pixels)
    return (F.cross_entropy(logits.float() / temperature, targets) * temperature**2,)
