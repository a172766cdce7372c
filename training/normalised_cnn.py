"""The network `cnn` with a batch normalisation after each convolution, as it is trained."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from digitq.worker.models.network import Cnn


class NormalisedCnn(Cnn):
    """A `Cnn` that normalises what each convolution gives."""

    def make_layers(self, before: int, channels: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(before, channels, 3, stride, bias=False)
        return [convolution, nn.BatchNorm2d(channels), nn.ReLU()]

    def fold(self) -> "NormalisedCnn":
        """A copy with the layers of a `Cnn`: each normalisation is merged into its convolution."""
        folded = copy.deepcopy(self).eval()
        steps = [*folded.convolve]
        folded.convolve = nn.Sequential()
        for convolution, norm, relu in zip(steps[::3], steps[1::3], steps[2::3], strict=True):
            folded.convolve.append(fuse_conv_bn_eval(convolution, norm))
            folded.convolve.append(relu)
        return folded
