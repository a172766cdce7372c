"""Small images drawn by the tests themselves."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch

RING_SIDE = 120  # px: of a ring


def draw_one(
    size: tuple[int, int] = (60, 80), ink: int = 0, ground: int = 255, mode: str = "L"
) -> PIL.Image.Image:
    """A thick stroke, as of a 1, off the centre."""
    image = PIL.Image.new("L", size, ground)
    width, height = size
    stroke = [(width * 0.6, height * 0.15), (width * 0.5, height * 0.85)]
    PIL.ImageDraw.Draw(image).line(stroke, fill=ink, width=max(2, width // 10))
    return image.convert(mode)


def encode_image(image: PIL.Image.Image, format: str = "PNG", **options: object) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def random_digits(rows: int, seed: int = 0) -> np.ndarray:
    """Noise of the shape (rows, 28, 28), uint8, dark at the border."""
    digits = np.random.default_rng(seed).integers(0, 256, (rows, 28, 28), dtype=np.uint8)
    digits[:, :4] = digits[:, -4:] = digits[:, :, :4] = digits[:, :, -4:] = 0
    return digits


def draw_bars(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that are easy to tell apart: label n is a bar in the n-th pair of rows."""
    labels = torch.arange(count) % 10
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[4 + 2 * label : 6 + 2 * label, 6:22] = 255
    return images, labels


def draw_ring(side: int = RING_SIDE, width: int = 8, ink: int = 0, ground: int = 255) -> np.ndarray:
    """A ring, as of a 0, in the middle of an image."""
    image = PIL.Image.new("L", (side, side), ground)
    box = (side * 0.3, side * 0.2, side * 0.7, side * 0.8)
    PIL.ImageDraw.Draw(image).ellipse(box, outline=ink, width=width)
    return np.array(image)


def draw_tight_ring(width: int = 58, stroke: int = 24) -> np.ndarray:
    """A 0 in thick ink, cut at its edges: most of the image is ink, and taken for the ground."""
    image = PIL.Image.new("L", (width, 90), 255)
    PIL.ImageDraw.Draw(image).ellipse((0, 0, width - 1, 89), outline=0, width=stroke)
    return np.array(image)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two images."""
    return float(np.corrcoef(first.reshape(-1), second.reshape(-1))[0, 1])


def same_digit(first: np.ndarray, second: np.ndarray, least: float = 0.95) -> bool:
    """Whether two images are alike, but for one pixel's move; `least` is of their correlation."""
    moves = [np.roll(first, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return max(likeness(moved, second) for moved in moves) > least


def add_grain(grey: np.ndarray, sigma: float = 3) -> np.ndarray:
    """As a camera sees it."""
    grain = np.random.default_rng(0).normal(0, sigma, grey.shape)
    return np.asarray(np.clip(grey + grain, 0, 255), np.uint8)


RING = 255 - draw_ring()  # as ink


def write_glyphs(folder: Path, source: str, writers: int) -> None:
    """Write a glyph of each digit by each writer, whose number its grey value tells."""
    glyphs = folder / "glyphs"
    glyphs.mkdir(exist_ok=True, parents=True)
    labels = np.tile(np.arange(10), writers)
    images = np.zeros((len(labels), 48, 48), np.uint8)
    names = np.repeat([f"w{writer:03}" for writer in range(writers)], 10)
    for row, label in enumerate(labels):
        images[row, 4:44, 20 : 24 + 2 * label] = 100 + row // 10
    np.savez(glyphs / f"{source}.npz", image=images, label=labels, writer=names)
