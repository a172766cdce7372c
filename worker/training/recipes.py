"""How each network is trained: all that decides its weights, beside the seed."""

from dataclasses import dataclass, replace

import torch

from worker.models.network import Cnn, Mlp, Network, TwoViewCnn
from worker.training.augmentation import Distortion


@dataclass(frozen=True)
class Recipe:
    """How to train a network."""

    epochs: int = 1
    batch_rows: int = 512
    ema_decay: float = 0.999  # what the moving average of the weights keeps at a step
    mean: float = 0.1307  # of MNIST's training pixels
    std: float = 0.3081
    bfloat16: bool = False  # multiply in 16 bits, where the processor has that
    copies: int = 3  # pictures rendered of each image
    picture_share: float = 0.25  # of the pictures, that an epoch shows
    teachers: int = 0  # networks of the same kind whose mean answer is learned, not the labels
    distillation_temperature: float = 2.0
    distortion: Distortion = Distortion()
    fine_tuning: "Recipe | None" = None  # of the folded network, for a third as many epochs

    def init_network(self) -> Network:
        """An untrained network, as it trains."""
        raise NotImplementedError

    def make_optimiser(self, network: Network) -> torch.optim.Optimizer:
        """What moves the weights; a cosine brings its rates down to 0."""
        raise NotImplementedError

    def finish(self, network: Network) -> Network:
        """The trained network, as it ships."""
        return network

    @property
    def teacher(self) -> "Recipe":
        """How to train a teacher, for half as many epochs."""
        return replace(self, teachers=0)


@dataclass(frozen=True)
class MlpRecipe(Recipe):
    """How to train `mlp`.

    A hidden softmax spreads 1 over 256 units, so what reaches the second layer is about 1/256:
    its weights start, and move, several hundredfold larger than the first layer's. (Loss after
    30 epochs: 0.104 from a scale of 8 at a rate of 0.03, 0.072 from 30 at 0.3. A rate of 1 is
    better still there, but too restless for a long run.)
    """

    epochs: int = 900
    picture_share: float = 0.4
    first_learning_rate: float = 5e-4  # Adam's rate for the first layer, and for the second
    second_learning_rate: float = 0.3
    first_scale: float = 0.02  # standard deviation of the initial weights
    second_scale: float = 30.0

    def init_network(self) -> Mlp:
        network = Mlp(self.mean, self.std)
        with torch.no_grad():
            network.w1.normal_(0, self.first_scale)
            network.w2.normal_(0, self.second_scale)
            network.b1.zero_()
            network.b2.zero_()
        return network

    def make_optimiser(self, network: Network) -> torch.optim.Optimizer:
        first, second = [network.w1, network.b1], [network.w2, network.b2]
        groups = [
            {"params": first, "lr": self.first_learning_rate},
            {"params": second, "lr": self.second_learning_rate},
        ]
        return torch.optim.Adam(groups, fused=True)

    def finish(self, network: Network) -> Network:
        """The same answers from smaller sums, whose last bits weigh less: a softmax knows only by
        how much its 256 numbers differ, so their mean is taken out of the first layer."""
        assert isinstance(network, Mlp)
        with torch.no_grad():
            for parameter in (network.w1, network.b1):
                exact = parameter.double()
                parameter.copy_(exact - exact.mean(-1, keepdim=True))
        return network


@dataclass(frozen=True)
class CnnRecipe(Recipe):
    """How to train `cnn`.

    Sixteen bits make a step more than twice as fast on a processor that multiplies them. On one
    that doesn't, the seed gives other weights.
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


# Closer to MNIST: more of it, less distorted, at a lower rate
FINE_TUNING = CnnRecipe(
    learning_rate=5e-4,
    picture_share=0.2,
    distortion=Distortion(thresholded_share=0.04, faded_share=0.04),
)
RECIPES: dict[str, Recipe] = {"mlp": MlpRecipe(), "cnn": CnnRecipe(fine_tuning=FINE_TUNING)}
