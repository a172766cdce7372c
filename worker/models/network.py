"""The networks: from the grey values of 28×28 images to ten probabilities."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from digitq.protocol.chunk import CLASSES, PIXELS
from digitq.worker.picture import INPUT_SIDE

HIDDEN = 256
CHANNELS = (16, 32, 64, 64, 96, 96)  # the sides after each convolution: 26, 12, 10, 8, 6, 4 px
STRIDES = (1, 2, 1, 1, 1, 1)


class Network(nn.Module):
    """A classifier of (N, 784) grey values 0..255, which it normalises itself."""

    architecture = ""  # names the network in a card
    tile_rows = 128  # how many rows are classified at once

    def __init__(self, mean: float, std: float, temperature: float = 1.0) -> None:
        """Build the network with arbitrary weights, for a mean and std of grey values in 0..1."""
        super().__init__()
        self.scale = 1 / (255 * std)
        self.shift = -mean / std
        self.temperature = temperature  # divides the logits: above 1, answers are less confident

    def logits(self, pixels: Tensor) -> Tensor:
        """What the last softmax is applied to: (N, 784) uint8 or float 0..255 → (N, 10)."""
        raise NotImplementedError

    def forward(self, pixels: Tensor) -> Tensor:
        """Ten probabilities for each image: (N, 784) uint8 or float 0..255 → (N, 10)."""
        return softmax(self.logits(pixels) / self.temperature)


def softmax(logits: Tensor, dim: int = -1) -> Tensor:
    """exp(x − max) / Σ exp(x − max) along `dim`: values ≥ 0 that sum to 1.

    Each row has its own maximum, so its largest term is exp(0) = 1: nothing overflows and no sum is
    0. Infinite entries count as the largest finite number: −inf gets 0, +inf gets all (several
    share it), and a row that is −inf everywhere becomes uniform. NaN stays NaN.
    """
    finite = torch.finfo(logits.dtype)
    bounded = logits.clamp(finite.min, finite.max)
    exponentials = torch.exp(bounded - bounded.amax(dim, keepdim=True))
    return exponentials / exponentials.sum(dim, keepdim=True)


class Mlp(Network):
    """784-256-10 with a softmax after both layers."""

    architecture = "784-256-10, softmax after both layers"
    tile_rows = 256

    def __init__(self, mean: float, std: float, temperature: float = 1.0) -> None:
        super().__init__(mean, std, temperature)
        self.w1 = nn.Parameter(torch.empty(PIXELS, HIDDEN))
        self.b1 = nn.Parameter(torch.empty(HIDDEN))
        self.w2 = nn.Parameter(torch.empty(HIDDEN, CLASSES))
        self.b2 = nn.Parameter(torch.empty(CLASSES))

    def logits(self, pixels: Tensor) -> Tensor:
        # the bias includes the normalisation's shift, so that pixels of 0 add nothing
        b1 = self.b1 + self.shift * self.w1.sum(0)
        hidden = softmax(torch.addmm(b1, pixels * self.scale, self.w1))  # (N, 256)
        # the weights are transposed first: on (256, 10), MKL sums odd and even rows differently
        return linear(hidden, self.w2.t().contiguous(), self.b2)


class Cnn(Network):
    """Six 3×3 convolutions without padding, each with a ReLU, and one linear layer.

    It is trained as it is here, and classifies as a `TwoViewCnn`.
    """

    architecture = "3×3 convolutions 16-32/2-64-64-96-96 with ReLU, linear 1536-10"

    def __init__(self, mean: float, std: float, temperature: float = 1.0) -> None:
        super().__init__(mean, std, temperature)
        self.convolve = nn.Sequential()
        for before, channels, stride in zip((1, *CHANNELS), CHANNELS, STRIDES, strict=False):
            self.convolve.extend(self.make_layers(before, channels, stride))
        self.decide = nn.Linear(CHANNELS[-1] * 4 * 4, CLASSES)
        cast(Any, self).to(memory_format=torch.channels_last)  # takes a sixth less time

    def make_layers(self, before: int, channels: int, stride: int) -> list[nn.Module]:
        """A convolution with its ReLU."""
        return [nn.Conv2d(before, channels, 3, stride), nn.ReLU()]

    def logits(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.decide(self.convolve(self.to_images(pixels)).flatten(1)))

    def to_images(self, pixels: Tensor) -> Tensor:
        """(pixels / 255 − mean) / std: (N, 784) uint8 or float → (N, 1, 28, 28) float."""
        return (pixels * self.scale).add_(self.shift).view(-1, 1, INPUT_SIDE, INPUT_SIDE)


class TwoViewCnn(Cnn):
    """A `Cnn` that sees each image twice: as it is, and moved up and left by a pixel.

    The second convolution has a stride of 2, so it skips every other pixel of the first one's
    output, (N, 16, 26, 26). The second view, (N, 16, 25, 25), covers these. The mean of both logits
    is right more often (test-time augmentation), at about half the speed.
    """

    architecture = f"{Cnn.architecture}, mean of two views"

    def logits(self, pixels: Tensor) -> Tensor:
        found = self.convolve[:2](self.to_images(pixels))
        views = found, found[:, :, 1:, 1:]
        first, second = (self.decide(self.convolve[2:](view).flatten(1)) for view in views)
        return cast(Tensor, (first + second) / 2)


# The architecture of `number`, see `worker/models/number_networks.py`
NUMBER_READER = "detector, columns and expert, version 4"
NETWORKS: dict[str, type[Network]] = {kind.architecture: kind for kind in (Mlp, Cnn, TwoViewCnn)}
