"""The networks: grey values of 28×28 images → ten probabilities.

`mlp` is 784-256-10 with a softmax after both layers; `cnn` is a row of small convolutions.
"""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.fusion import fuse_conv_bn_eval

PIXELS = 28 * 28  # 784
SIDE = 28
HIDDEN = 256
CLASSES = 10
CHANNELS = (16, 32, 64, 64, 96, 96)  # of the convolutions: 28 → 26 → 12 → 10 → 8 → 6 → 4 pixels
STRIDES = (1, 2, 1, 1, 1, 1)
CONVOLVED = CHANNELS[-1] * 4 * 4  # 1536


def softmax(logits: Tensor, dim: int = -1) -> Tensor:
    """exp(x − max) / Σ exp(x − max) along `dim`; every row is ≥ 0 and sums to 1.

    Each row has its own maximum, so its largest term is exp(0) = 1: nothing overflows and no
    sum is 0. Infinite entries count as the largest finite number: −inf gets 0, +inf takes all
    (several share it), and a row that is −inf everywhere knows nothing and comes out uniform.
    NaN stays NaN. Same shape and type as `logits`.
    """
    finite = torch.finfo(logits.dtype)
    bounded = logits.clamp(finite.min, finite.max)
    exponentials = torch.exp(bounded - bounded.amax(dim, keepdim=True))
    return exponentials / exponentials.sum(dim, keepdim=True)


class Network(nn.Module):
    """A classifier of (N, 784) grey values as images hold them, 0..255; it normalises them itself.

    Each kind has its own `logits` and `architecture`, the words by which a card names it.
    """

    architecture = ""
    tile_rows = 128  # it computes at once
    row_multiple = 16  # a part of a tile is a multiple of it; with a row or two, last bits differ

    def __init__(self, mean: float, std: float) -> None:
        """Weights are arbitrary; `mean` and `std` are of grey values scaled to 0..1.

        `temperature` divides the logits: above 1, the answers are less confident.
        """
        super().__init__()
        self.scale = 1 / (255 * std)
        self.shift = -mean / std
        self.temperature = 1.0

    def normalise(self, pixels: Tensor) -> Tensor:
        """(pixels / 255 − mean) / std, as float; `pixels` uint8 or float 0..255, any shape."""
        return (pixels * self.scale).add_(self.shift)

    def logits(self, pixels: Tensor) -> Tensor:
        """The ten sums before the last softmax: (N, 784) uint8 or float 0..255 → (N, 10)."""
        raise NotImplementedError

    def forward(self, pixels: Tensor) -> Tensor:
        """Ten probabilities for each image: (N, 784) uint8 or float 0..255 → (N, 10)."""
        return softmax(self.logits(pixels) / self.temperature)

    def fold(self) -> "Network":
        """The same network, as it classifies, without what only its training needs."""
        return self


class Mlp(Network):
    """784-256-10 with a softmax after both layers."""

    architecture = "784-256-10, softmax after both layers"
    tile_rows = 256

    def __init__(self, mean: float, std: float, hidden: int = HIDDEN) -> None:
        super().__init__(mean, std)
        self.w1 = nn.Parameter(torch.empty(PIXELS, hidden))
        self.b1 = nn.Parameter(torch.empty(hidden))
        self.w2 = nn.Parameter(torch.empty(hidden, CLASSES))
        self.b2 = nn.Parameter(torch.empty(CLASSES))

    def logits(self, pixels: Tensor) -> Tensor:
        # the normalisation's shift is folded into the bias, so that pixels of 0 add nothing
        b1 = self.b1 + self.shift * self.w1.sum(0)
        hidden = softmax(torch.addmm(b1, pixels * self.scale, self.w1))  # (N, 256)
        # by rows of 256: with ten columns, MKL's sums depend on whether a row's place is odd
        return linear(hidden, self.w2.t().contiguous(), self.b2)


class Cnn(Network):
    """Six 3×3 convolutions without padding, each with a ReLU, and one linear layer.

    It trains with a batch normalisation after each convolution (`normalised=True`). `fold` puts
    those into the convolutions; what ships is a `TwoViewCnn` of the same weights.
    """

    architecture = "3×3 convolutions 16-32/2-64-64-96-96 with ReLU, linear 1536-10"

    def __init__(self, mean: float, std: float, normalised: bool = False) -> None:
        super().__init__(mean, std)
        steps: list[nn.Module] = []
        before = 1
        for channels, stride in zip(CHANNELS, STRIDES, strict=True):
            steps.append(nn.Conv2d(before, channels, 3, stride, bias=not normalised))
            if normalised:
                steps.append(nn.BatchNorm2d(channels))
            steps.append(nn.ReLU())
            before = channels
        self.convolve = nn.Sequential(*steps)
        self.decide = nn.Linear(CONVOLVED, CLASSES)
        cast(Any, self).to(memory_format=torch.channels_last)  # a sixth faster

    def logits(self, pixels: Tensor) -> Tensor:
        images = self.normalise(pixels).view(-1, 1, SIDE, SIDE)
        logits: Tensor = self.decide(self.convolve(images).flatten(1))
        return logits

    def fold(self) -> "Cnn":
        """Without the batch normalisations."""
        steps = list(copy.deepcopy(self).eval().convolve)
        folded = copy.deepcopy(self)
        folded.convolve = nn.Sequential()
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if isinstance(step, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                step = fuse_conv_bn_eval(step, following)
            if not isinstance(step, nn.BatchNorm2d):
                folded.convolve.append(step)
        return folded


class TwoViewCnn(Cnn):
    """A `Cnn` that looks at each image again, as if it lay a pixel further up and left.

    With its stride of 2 it sees every other pixel of what the first convolution finds, (N, 16, 26,
    26), and then the others, (N, 16, 25, 25). The mean is right more often (test-time
    augmentation), at about half the speed.
    """

    architecture = f"{Cnn.architecture}, mean of two views"

    def logits(self, pixels: Tensor) -> Tensor:
        images = self.normalise(pixels).view(-1, 1, SIDE, SIDE)
        found = self.convolve[:2](images)
        views = found, found[:, :, 1:, 1:]
        first, second = (self.decide(self.convolve[2:](view).flatten(1)) for view in views)
        logits: Tensor = (first + second) / 2
        return logits


NETWORKS: dict[str, type[Network]] = {kind.architecture: kind for kind in (Mlp, Cnn, TwoViewCnn)}
