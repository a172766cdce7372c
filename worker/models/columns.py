"""The network that reads a line of digits column by column.

For every second column of a strip it gives how likely the middle of each digit is there, or of none
(A. Graves et al., "Connectionist Temporal Classification", 2006).
"""

from typing import cast

from torch import Tensor, nn

from protocol.chunk import CLASSES
from worker.models.detector import Residual, convolution

STRIP_HEIGHT = 28  # px
STRIDE = 2  # px: a column of the answer covers so many of the strip
BLANK = CLASSES  # the class, after the ten digits, of a column that is no digit's middle


def along(channels: int, dilation: int) -> Residual:
    """A convolution along the strip."""
    return Residual(
        nn.Conv1d(channels, channels, 3, 1, dilation, dilation, bias=False),
        nn.BatchNorm1d(channels),
        nn.ReLU(inplace=True),
    )


class Columns(nn.Module):
    """Convolutions that shrink the height to an eighth, then some along the strip."""

    def __init__(self, channels: tuple[int, int, int, int] = (16, 32, 64, 80), width: int = 96):
        super().__init__()
        a, b, c, d = channels
        self.shrink = nn.Sequential(
            convolution(1, a, 2),
            convolution(a, b),
            convolution(b, c, (2, 1)),
            convolution(c, d, (2, 1)),
        )
        self.flatten = nn.Flatten(1, 2)
        self.join = nn.Sequential(
            nn.Conv1d(d * -(-STRIP_HEIGHT // 8), width, 1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
        )
        self.along = nn.Sequential(*(along(width, dilation) for dilation in (1, 2, 4, 1)))
        self.head = nn.Conv1d(width, CLASSES + 1, 1)

    def forward(self, strips: Tensor) -> Tensor:
        """(N, 1, 28, W), W even → logits (N, 11, W / 2)."""
        features = self.flatten(self.shrink(strips))
        return cast(Tensor, self.head(self.along(self.join(features))))
