"""The network that reads a line of digits column by column.

For every second column of a strip it gives how likely the middle of each digit is there, or of none
(A. Graves et al., "Connectionist Temporal Classification", 2006).
"""

from typing import cast

from torch import Tensor, nn

from protocol.chunk import CLASSES
from worker.models.detector import Residual, convolution, normalised

STRIP_HEIGHT = 28  # px
STRIDE = 2  # px: a column of the answer covers so many of the strip
BLANK = CLASSES  # the class, after the ten digits, of a column that is no digit's middle


def along(channels: int, dilation: int) -> Residual:
    """A convolution along the strip, added to its input."""
    parts = normalised(
        channels, channels, kernel_size=(1, 3), padding=(0, dilation), dilation=dilation
    )
    return Residual(*parts)


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
        rows = -(-STRIP_HEIGHT // 8)
        self.join = nn.Sequential(
            *normalised(d, width, kernel_size=(rows, 1), padding=0), nn.ReLU(inplace=True)
        )
        self.along = nn.Sequential(*(along(width, dilation) for dilation in (1, 2, 4, 1)))
        self.head = nn.Conv2d(width, CLASSES + 1, 1)

    def forward(self, strips: Tensor) -> Tensor:
        """(N, 1, 28, W), W even → logits (N, 11, 1, W / 2)."""
        return cast(Tensor, self.head(self.along(self.join(self.shrink(strips)))))
