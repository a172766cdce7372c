"""The network that finds the digits of a number in a grey picture: a heat map of their middles.

A cell of the map covers 4×4 px. For each it gives how likely the middle of a sign is there, which
digit that is, if it is one, and where its edges are (X. Zhou et al., "Objects as Points", 2019).
"""

from itertools import pairwise
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from protocol.chunk import CLASSES

CELL = 4  # px: side of a cell of the map
MULTIPLE = 16  # the sides of a picture are padded to a multiple of this, in px
OTHER = CLASSES  # the class, after the ten digits, of letters and of digits that are crossed out
SIGNS = CLASSES + 1
EDGES = 4  # left, top, right and bottom
SIZE_UNIT = 16.0  # px: the distances of the edges from the cell's middle are learned in this unit

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)
Array = TypeVar("Array", Tensor, NDArray[np.float32])


class Maps(NamedTuple, Generic[Array]):
    """What the network gives for each cell of N pictures, or of N cells alone."""

    middle: Array  # (N, height, width): the logit of a sign's middle being there
    signs: Array  # (N, 11, height, width): the logits of the ten digits and of `OTHER`
    edges: Array  # (N, 4, height, width): distances to left, top, right, bottom, in SIZE_UNIT


def divide(answer: Array) -> Maps[Array]:
    """The maps in the network's answer, (N, 16, height, width), or in N cells of it, (N, 16)."""
    return Maps(answer[:, 0], answer[:, 1 : 1 + SIGNS], answer[:, 1 + SIGNS :])


def normalised(
    inputs: int, outputs: int, stride: int | tuple[int, int] = 1, **settings: Any
) -> list[nn.Module]:
    """A convolution, 3×3 unless the settings say another kernel, and its normalisation."""
    settings = {"kernel_size": 3, "padding": 1, **settings}
    convolve = nn.Conv2d(inputs, outputs, stride=stride, bias=False, **settings)
    return [convolve, nn.BatchNorm2d(outputs)]


def convolution(inputs: int, outputs: int, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    """3×3, normalised, and rectified."""
    return nn.Sequential(*normalised(inputs, outputs, stride), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Convolutions whose result is added to their input, and rectified."""

    def __init__(self, *convolve: nn.Module) -> None:
        super().__init__()
        self.convolve = nn.Sequential(*convolve)
        self.rectify = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.rectify(images + self.convolve(images)))


def residual(channels: int) -> Residual:
    """Two convolutions."""
    return Residual(convolution(channels, channels), *normalised(channels, channels))


class Detector(nn.Module):
    """Three scales of features, of cells of 4, 8 and 16 px, brought together in the finest."""

    def __init__(self, channels: tuple[int, int, int, int] = (16, 32, 64, 96)) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = channels
        self.to_4 = nn.Sequential(
            convolution(1, half, 2), convolution(half, quarter, 2), convolution(quarter, quarter)
        )
        self.to_8 = nn.Sequential(convolution(quarter, eighth, 2), residual(eighth))
        self.to_16 = nn.Sequential(convolution(eighth, sixteenth, 2), residual(sixteenth))
        self.from_16 = nn.Conv2d(sixteenth, eighth, 1)
        self.join_8 = convolution(eighth, eighth)
        self.from_8 = nn.Conv2d(eighth, quarter, 1)
        self.enlarge = nn.Upsample(scale_factor=2.0)  # each cell becomes 2×2
        self.join_4 = nn.Sequential(convolution(quarter, quarter), convolution(quarter, 48))
        self.head = nn.Conv2d(48, 1 + SIGNS + EDGES, 1)
        nn.init.zeros_(cast(Tensor, self.head.bias))
        cast(Tensor, self.head.bias).data[0] = -4.0  # most cells are not the middle of a sign
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, height, width), sides multiples of 16 → (N, 16, height / 4, width / 4)."""
        fine = self.to_4(images)
        middle = self.to_8(fine)
        coarse = self.to_16(middle)
        middle = self.join_8(middle + self.enlarge(self.from_16(coarse)))
        return cast(Tensor, self.head(self.join_4(fine + self.enlarge(self.from_8(middle)))))

    def scale(self, slope: float, offset: float, factor: float) -> None:
        """Scale the logits of the chances, and add an offset to them; scale those of the signs."""
        weight, bias = self.head.weight, cast(Tensor, self.head.bias)
        for part, by in ((slice(0, 1), slope), (slice(1, 1 + SIGNS), factor)):
            weight[part] *= by
            bias[part] *= by
        bias[0] += offset


def fold(network: AnyNetwork) -> AnyNetwork:
    """Merge the batch normalisations into the convolutions; the answers stay the same."""
    for module in network.eval().modules():
        if not isinstance(module, nn.Sequential):
            continue
        for at, (first, second) in enumerate(pairwise([*module])):
            if isinstance(second, nn.BatchNorm2d):
                merged = fuse_conv_bn_eval(cast(nn.Conv2d, first), second)
                module[at] = merged.requires_grad_()  # the bias is new, and would not be learned
                module[at + 1] = nn.Identity()
    return network
