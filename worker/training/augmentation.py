"""Distorting images while a network trains: moved and kneaded, some thresholded or faded."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.models.network import PIXELS, SIDE


@dataclass(frozen=True)
class Distortion:
    """How far images are distorted, as standard deviations, and how many of them in values too."""

    rotation_degrees: float = 6.0
    stretch: float = 0.07
    shear: float = 0.07
    shift_pixels: float = 0.8
    elastic_pixels: float = 0.56
    thresholded_share: float = 0.0  # the share that is black and white alone
    faded_share: float = 0.0  # the share of less contrast


class Augmenter:
    """Moves, turns, stretches and kneads images, each at random and each in its own way.

    Where a pixel comes from is a sum of fields over the image: x, y, 1 (an affine map) and 7 × 7
    bumps (the elastic part of Simard et al. 2003, smoothed beforehand). So a batch's sampling
    grid is one product: (N · 2, fields) @ (fields, 784).
    """

    BUMPS = 7
    BUMP_WIDTH = 0.3  # of the image's half side

    def __init__(self, distortion: Distortion) -> None:
        self.distortion = distortion
        ticks = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
        y, x = (axis.flatten() for axis in torch.meshgrid(ticks, ticks, indexing="ij"))
        ticks = torch.linspace(-1, 1, self.BUMPS)
        centre_y, centre_x = torch.meshgrid(ticks, ticks, indexing="ij")
        square = (x - centre_x.reshape(-1, 1)) ** 2 + (y - centre_y.reshape(-1, 1)) ** 2
        bumps = torch.exp(-square / (2 * self.BUMP_WIDTH**2))
        bumps /= bumps.square().sum(0).sqrt()  # then N(0, 1) times the bumps is N(0, 1) anywhere
        self.fields = torch.cat([torch.stack([x, y, torch.ones(PIXELS)]), bumps])  # (52, 784)

    def __call__(self, images: Tensor) -> Tensor:
        """Distort each image in its own way: (N, 28, 28) float → (N, 784), the same range."""
        count, fields = len(images), len(self.fields)
        grid = (self.draw_mix(count).view(-1, fields) @ self.fields).view(count, 2, SIDE, SIDE)
        grid = grid.permute(0, 2, 3, 1)
        moved = F.grid_sample(images[:, None].float(), grid, align_corners=False)
        return self.change_values(moved.view(count, PIXELS))

    def change_values(self, pixels: Tensor) -> Tensor:
        """Threshold some, at any level, and fade some, to a quarter at most: (N, 784) → the same,
        values in 0..255."""
        if self.distortion.thresholded_share:
            levels = torch.empty(len(pixels), 1).uniform_(1, 200)
            chosen = torch.rand(len(pixels), 1) < self.distortion.thresholded_share
            pixels = torch.where(chosen, torch.where(pixels > levels, 255.0, 0.0), pixels)
        if self.distortion.faded_share:
            contrast = torch.empty(len(pixels), 1).uniform_(0.25, 1)
            chosen = torch.rand(len(pixels), 1) < self.distortion.faded_share
            pixels = torch.where(chosen, pixels * contrast, pixels)
        return pixels

    def draw_mix(self, count: int) -> Tensor:
        """How much of each field moves x, and y, in units of half a side: (count, 2, fields)."""
        by = self.distortion
        angle = torch.randn(count) * math.radians(by.rotation_degrees)
        stretch_x, stretch_y = torch.exp(torch.randn(2, count) * by.stretch)
        mix = torch.randn(count, 2, len(self.fields)) * (by.elastic_pixels * 2 / SIDE)
        mix[:, 0, 0] = stretch_x * angle.cos()
        mix[:, 0, 1] = stretch_x * (torch.randn(count) * by.shear - angle.sin())
        mix[:, 1, 0] = stretch_y * angle.sin()
        mix[:, 1, 1] = stretch_y * angle.cos()
        mix[:, :, 2] = torch.randn(count, 2) * (by.shift_pixels * 2 / SIDE)
        return mix
