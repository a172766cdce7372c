"""The columns and the expert as modules of torch, to train and to save; and their layers.

Their answer is described in `worker/models/number_networks.py`.
"""

from itertools import pairwise
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from digitq.worker.models.number_networks import BLANK, COLUMNS_SIZE, EXPERT_SIZE

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


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
        rows = -(-COLUMNS_SIZE.height // 8)
        self.join = nn.Sequential(
            *normalised(d, width, kernel_size=(rows, 1), padding=0), nn.ReLU(inplace=True)
        )
        self.along = nn.Sequential(*(along(width, dilation) for dilation in (1, 2, 4, 1)))
        self.head = nn.Conv2d(width, BLANK + 1, 1)

    def forward(self, strips: Tensor) -> Tensor:
        """(N, 1, 28, W), W even → logits (N, 21, 1, W / 2)."""
        return cast(Tensor, self.head(self.along(self.join(self.shrink(strips)))))


class Expert(nn.Module):
    """Convolutions that shrink the height to an eighth, and the width to a quarter; then many along
    the strip. The last layer gives two columns for each of these.
    """

    def __init__(
        self, channels: tuple[int, int, int, int] = (24, 32, 64, 128), width: int = 256
    ) -> None:
        super().__init__()
        a, b, c, d = channels
        self.shrink = nn.Sequential(
            *(convolution(1, a, 2), convolution(a, b), convolution(b, c, 2), residual(c)),
            *(convolution(c, d, (2, 1)), residual(d), residual(d)),
        )
        self.join = nn.Sequential(
            *normalised(d, width, kernel_size=(EXPERT_SIZE.height // 8, 1), padding=0),
            nn.ReLU(inplace=True),
        )
        self.along = nn.Sequential(*(along(width, dilation) for dilation in (1, 2, 4, 8) * 2))
        self.head = nn.ConvTranspose2d(width, BLANK + 1, (1, 2), (1, 2))

    def forward(self, strips: Tensor) -> Tensor:
        """(N, 1, 40, W), W even → logits (N, 21, 1, W / 2), or one column more."""
        return cast(Tensor, self.head(self.along(self.join(self.shrink(strips)))))


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
