"""Distorts training images by affine and elastic maps; some are thresholded or faded."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from digitq.protocol.chunk import PIXELS
from digitq.worker.picture import INPUT_SIDE

BUMPS = 7  # the number of bumps in each direction
BUMP_WIDTH = 0.3  # standard deviation of a bump, in half sides of the image


@dataclass(frozen=True)
class Distortion:
    """The standard deviations of a distortion, and the shares of images whose values change."""

    rotation_degrees: float = 6.0
    stretch: float = 0.07
    shear: float = 0.07
    shift_pixels: float = 0.8
    elastic_pixels: float = 0.56
    thresholded_share: float = 0.0  # the share of images made black and white
    faded_share: float = 0.0  # the share of images of less contrast


class Augmenter:
    """Distorts each image of a batch at random and in its own way.

    The source of a pixel is a weighted sum of fields over the image: x, y and 1 (an affine map) and
    7 × 7 Gaussian bumps (the elastic distortion of Simard et al. 2003, smoothed beforehand). So a
    batch's sampling grid is one product: (N · 2, fields) @ (fields, 784).
    """

    def __init__(self, distortion: Distortion) -> None:
        self.distortion = distortion
        ticks = (torch.arange(INPUT_SIDE) + 0.5) * 2 / INPUT_SIDE - 1
        y, x = (axis.flatten() for axis in torch.meshgrid(ticks, ticks, indexing="ij"))
        ticks = torch.linspace(-1, 1, BUMPS)
        centre_y, centre_x = torch.meshgrid(ticks, ticks, indexing="ij")
        square = (x - centre_x.reshape(-1, 1)) ** 2 + (y - centre_y.reshape(-1, 1)) ** 2
        bumps = torch.exp(-square / (2 * BUMP_WIDTH**2))
        bumps /= bumps.square().sum(0).sqrt()  # so weights from N(0, 1) move each pixel by N(0, 1)
        self.fields = torch.cat([torch.stack([x, y, torch.ones(PIXELS)]), bumps])  # (52, 784)

    def __call__(self, images: Tensor) -> Tensor:
        """Distort a batch: (N, 28, 28) uint8 or float → (N, 784) float of the same range."""
        count, fields = len(images), len(self.fields)
        grid = self.draw_mix(count).view(-1, fields) @ self.fields
        grid = grid.view(count, 2, INPUT_SIDE, INPUT_SIDE).permute(0, 2, 3, 1)
        moved = F.grid_sample(images[:, None].float(), grid, align_corners=False)
        return self.change_values(moved.view(count, PIXELS))

    def change_values(self, pixels: Tensor) -> Tensor:
        """Threshold a share of the images, and fade a share to 25 % or more of their contrast."""
        by, size = self.distortion, (len(pixels), 1)
        if by.thresholded_share:
            levels = torch.empty(size).uniform_(1, 200)
            chosen = torch.rand(size) < by.thresholded_share
            pixels = torch.where(chosen, torch.where(pixels > levels, 255.0, 0.0), pixels)
        if by.faded_share:
            contrast = torch.empty(size).uniform_(0.25, 1)
            pixels = torch.where(torch.rand(size) < by.faded_share, pixels * contrast, pixels)
        return pixels

    def draw_mix(self, count: int) -> Tensor:
        """Draw the weights of the fields for x and y, in half sides: (count, 2, fields)."""
        by = self.distortion
        angle = torch.randn(count) * math.radians(by.rotation_degrees)
        stretch_x, stretch_y = torch.exp(torch.randn(2, count) * by.stretch)
        mix = torch.randn(count, 2, len(self.fields)) * (by.elastic_pixels * 2 / INPUT_SIDE)
        mix[:, 0, 0] = stretch_x * angle.cos()
        mix[:, 0, 1] = stretch_x * (torch.randn(count) * by.shear - angle.sin())
        mix[:, 1, 0] = stretch_y * angle.sin()
        mix[:, 1, 1] = stretch_y * angle.cos()
        mix[:, :, 2] = torch.randn(count, 2) * (by.shift_pixels * 2 / INPUT_SIDE)
        return mix
