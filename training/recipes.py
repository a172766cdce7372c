"""How each network is trained: with the seed, a recipe decides the weights."""

from dataclasses import dataclass, replace

import torch

from worker.learning.augmentation import Distortion
from worker.models.network import Cnn, Mlp, Network, TwoViewCnn


@dataclass(frozen=True)
class BaseRecipe:
    """What the recipes of all networks have in common.

    Each has `init_network`, `make_optimiser`, whose rates a cosine schedule lowers to 0, and
    `finish`, which gives the trained network in the form that ships.
    """

    epochs: int = 1
    batch_rows: int = 512
    ema_decay: float = 0.999  # a step keeps this share of the weights' moving average
    mean: float = 0.1307  # the mean of MNIST's training pixels, scaled to 0..1
    std: float = 0.3081  # their standard deviation
    bfloat16: bool = False  # training multiplies in 16 bits if the processor can
    copies: int = 3  # so many pictures are rendered from each image
    picture_share: float = 0.25  # an epoch shows this share of the pictures
    teachers: int = 0  # the mean answer of so many networks is learned in place of the labels
    distillation_temperature: float = 2.0
    distortion: Distortion = Distortion()
    fine_tuning: "Recipe | None" = None  # trains the folded network for a third as many epochs


@dataclass(frozen=True)
class MlpRecipe(BaseRecipe):
    """How to train `mlp`.

    The hidden softmax spreads 1 over 256 units, so the second layer's inputs are about 1/256. Its
    initial weights and its learning rate are therefore several hundred times the first layer's.
    The loss after 30 epochs was 0.104 with a scale of 8 and a rate of 0.03, and 0.072 with 30 and
    0.3. A rate of 1 gave a still lower loss, but it is unstable over a long run.
    """

    epochs: int = 900
    picture_share: float = 0.4
    first_learning_rate: float = 5e-4  # Adam's learning rate for the first layer
    second_learning_rate: float = 0.3  # the learning rate for the second layer
    first_scale: float = 0.02  # standard deviation of the first layer's initial weights
    second_scale: float = 30.0  # the same for the second layer

    def init_network(self) -> Mlp:
        network = Mlp(self.mean, self.std)
        torch.nn.init.normal_(network.w1, std=self.first_scale)
        torch.nn.init.normal_(network.w2, std=self.second_scale)
        torch.nn.init.zeros_(network.b1)
        torch.nn.init.zeros_(network.b2)
        return network

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

    epochs: int = 48
    batch_rows: int = 256
    bfloat16: bool = True
    teachers: int = 4
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    distortion: Distortion = Distortion(
        rotation_degrees=8.0,
        stretch=0.15,
        shear=0.15,
        shift_pixels=1.0,
        elastic_pixels=0.6,
        thresholded_share=0.06,
        faded_share=0.06,
    )

    def init_network(self) -> Cnn:
        return Cnn(self.mean, self.std, normalised=True)

    def make_optimiser(self, network: Network) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )

    def finish(self, network: Network) -> TwoViewCnn:
        shipped = TwoViewCnn(self.mean, self.std)
        shipped.load_state_dict(network.state_dict())
        return shipped.eval()


Recipe = MlpRecipe | CnnRecipe
# The data are closer to MNIST: fewer rendered pictures, less distortion. The rate is lower.
FINE_TUNING = CnnRecipe(
    learning_rate=5e-4,
    picture_share=0.2,
    distortion=Distortion(thresholded_share=0.04, faded_share=0.04),
)
RECIPES: dict[str, Recipe] = {"mlp": MlpRecipe(), "cnn": CnnRecipe(fine_tuning=FINE_TUNING)}
# How a shipped network goes on with a user's own images (`own.py`), 500 of them in three minutes.
OWN_RECIPES: dict[str, Recipe] = {
    "mlp": MlpRecipe(
        epochs=25, first_learning_rate=1e-4, second_learning_rate=0.06, ema_decay=0.99
    ),
    "cnn": replace(FINE_TUNING, epochs=8, teachers=0, learning_rate=3e-4, ema_decay=0.99),
}
