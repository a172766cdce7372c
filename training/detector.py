"""The detector as a module of torch, to train and to save.

Its answer is described in `worker/models/number_networks.py`.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from digitq.worker.learning.columns import convolution, residual
from digitq.worker.models.number_networks import EDGES, SIGNS


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
        cast(Any, self).to(memory_format=torch.channels_last)  # not all torch's types know this

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
