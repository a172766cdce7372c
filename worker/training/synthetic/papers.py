"""What a number is written on, and how it is photographed or scanned."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.pictures import Picture
from worker.training.synthetic.scenes import Rng, compress, light_unevenly

Layer = NDArray[np.float32]  # (height, width) or (height, width, 3)
NOISE_SIDE = 1024  # px, of the noise from which all grain is cut


@cache
def noise_tile() -> Layer:
    """Noise of deviation 1, (1024, 1024), always the same."""
    return np.random.default_rng(7).standard_normal((NOISE_SIDE, NOISE_SIDE), np.float32)


def cut_noise(height: int, width: int, rng: Rng) -> Layer:
    """Noise of deviation 1, cut from the tile at a random place."""
    top = rng.integers(NOISE_SIDE - height + 1)
    left = rng.integers(NOISE_SIDE - width + 1)
    part = noise_tile()[top : top + height, left : left + width]
    return part[:, ::-1] if rng.random() < 0.5 else part


def draw_clouds(height: int, width: int, scale: float, rng: Rng) -> Layer:
    """Smooth noise of deviation about 1, whose clouds are about `scale` px wide."""
    rows, columns = (max(2, round(length / scale) + 1) for length in (height, width))
    coarse = rng.standard_normal((rows, columns), np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def photograph_line(ink: Picture, print_: Picture, rng: Rng) -> Picture:
    """Ink and print of 0..255 on paper, under uneven light, with grain."""
    height, width = ink.shape
    coloured = rng.random() < 0.5
    tint = 1 - rng.uniform(0, 0.25, 3) * (coloured and rng.random() < 0.5)
    paper = rng.uniform(120, 255) * tint
    pen = paper * rng.uniform(0.02, 0.65) * (1 - rng.uniform(0, 0.7, 3) * (rng.random() < 0.4))
    form = paper * rng.uniform(0.05, 0.8) * (1 - rng.uniform(0, 0.6, 3) * (rng.random() < 0.4))
    if not coloured:
        paper, pen, form = (value.mean(keepdims=True) for value in (paper, pen, form))
    inked = ink[..., None] * np.float32(1 / 255)
    printed = print_[..., None] * np.float32(1 / 255)
    image = paper.astype(np.float32) + printed * (form - paper).astype(np.float32)
    image += inked * (pen.astype(np.float32) - image)
    image += (cut_noise(height, width, rng) * np.float32(rng.uniform(0, 9)))[..., None]
    image *= light_unevenly(height, width, 0.3, rng)[..., None]
    picture = np.clip(image, 0, 255).astype(np.uint8)
    picture = picture if coloured else picture[..., 0]
    if rng.random() < 0.2:
        picture = 255 - picture
    return compress(picture, rng, 30) if rng.random() < 0.5 else picture
