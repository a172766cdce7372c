"""Distorting images while a network trains: moved, kneaded, and as rough as paper makes them."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.network import PIXELS, SIDE

WHITE = 255.0


@dataclass(frozen=True)
class Distortion:
    """How far images are distorted; all but `rough` are standard deviations."""

    rotation_degrees: float = 6.0
    stretch: float = 0.07
    shear: float = 0.07
    shift_pixels: float = 0.8
    elastic_pixels: float = 0.56
    rough: float = 0.0  # share of the images that each step of `roughen` changes


class Distorter:
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
        if self.distortion.rough > 0:
            moved = roughen(moved, self.distortion.rough)
        return moved.view(count, PIXELS)

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


def roughen(images: Tensor, share: float) -> Tensor:
    """Change width, sharpness, contrast and edge, each in a share of the images at random.

    (N, 1, 28, 28) float 0..255 → the same. What a pencil, a marker, a lens, a scanner and the
    cell of a form do to a digit, and MNIST's authors didn't.
    """
    for change in (change_width, blur, change_contrast, change_edge):
        changed = torch.rand(len(images), 1, 1, 1) < share
        images = torch.where(changed, change(images), images)
    return images


def change_width(images: Tensor) -> Tensor:
    """Strokes up to a pixel thicker or thinner on either side, as bright at the brightest."""
    amount = torch.empty(len(images), 1, 1, 1).uniform_(-0.9, 1)
    thicker = dilate(images) - images
    thinner = -dilate(-images) - images
    changed = images + amount.clamp(min=0) * thicker - amount.clamp(max=0) * thinner
    return changed * (brightest(images) / brightest(changed).clamp(min=WHITE / 8)).clamp(max=8)


def dilate(images: Tensor) -> Tensor:
    """Each pixel the largest of itself and its four neighbours."""
    return torch.maximum(
        F.max_pool2d(images, (3, 1), 1, (1, 0)), F.max_pool2d(images, (1, 3), 1, (0, 1))
    )


def brightest(images: Tensor) -> Tensor:
    """Each image's largest value: (N, 1, 28, 28) → (N, 1, 1, 1)."""
    return images.amax((2, 3), keepdim=True)


def blur(images: Tensor) -> Tensor:
    """Part of the way, up to all of it, towards the mean of the 3×3 pixels around."""
    return torch.lerp(images, F.avg_pool2d(images, 3, 1, 1), torch.rand(len(images), 1, 1, 1))


def change_contrast(images: Tensor) -> Tensor:
    """From a fifth, as faint pencil, to five times with a hard edge, as if binarised."""
    gain = torch.exp(torch.empty(len(images), 1, 1, 1).uniform_(-1, 1) * math.log(5))
    return (images * gain).clamp(max=WHITE)


def change_edge(images: Tensor) -> Tensor:
    """Along one edge, up to 5 pixels deep, a line or another image's ink covers the digit."""
    count = len(images)
    ticks = torch.arange(SIDE)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    depths = torch.stack([y, y.flip(0), x, x.flip(1)])  # (4, 28, 28): from each edge
    side = torch.randint(4, (count,))
    depth = depths[side][:, None]  # (N, 1, 28, 28)
    reach = torch.randint(1, 6, (count, 1, 1, 1))
    others = images[torch.randperm(count)]
    upright = (side < 2).view(-1, 1, 1, 1)
    half = SIDE // 2  # rolled so far, an image's middle lies at the edge
    ink = torch.where(upright, others.roll(half, 2), others.roll(half, 3))
    line = torch.where(depth == reach - 1, torch.rand(count, 1, 1, 1) * WHITE, 0.0)
    content = torch.where(torch.rand(count, 1, 1, 1) < 0.5, ink, line)
    return torch.where(depth < reach, content, images)
