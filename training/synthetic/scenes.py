"""Renders a digit as people photograph, scan or draw it.

The numbers were chosen by eye so that the pictures cover what real ones look like.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import Picture
from training.chance import Rng
from training.synthetic.handwriting import SHAPE_SIDE, Shape, draw_digit

T = TypeVar("T")
Kind = Callable[[Shape, Shape, Rng], Picture]  # draws the first shape; some draw both
Point = tuple[float, float]
DEFAULT_DRAWN_SHARE = 0.35  # this share of digits is drawn, the others are MNIST's
DRAWN_SHARES = {1: 0.6, 7: 0.6}  # more are drawn: 1 and 7 differ most between countries


def draw_shape(digit: Shape, label: int, rng: Rng) -> Shape:
    """The shape of a given digit, (side, side), or of a drawn digit of that label, distorted."""
    drawn = rng.random() < DRAWN_SHARES.get(label, DEFAULT_DRAWN_SHARE)
    return warp(draw_digit(label, rng) if drawn else enlarge(digit, rng), rng)


def enlarge(digit: Shape, rng: Rng) -> Shape:
    """Enlarge a digit to a smooth shape with thinner or thicker strokes, (112, 112)."""
    large = cv2.resize(digit, (SHAPE_SIDE, SHAPE_SIDE), interpolation=cv2.INTER_CUBIC)
    mask = (cv2.GaussianBlur(large, (0, 0), 2) > 110).astype(np.uint8)
    change = rng.uniform(-1, 1)
    if change < 0:  # keep the ridges of the distance from the background
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        ridge = cv2.dilate(depth, np.ones((9, 9), np.uint8))
        mask = ((depth > -0.75 * change * ridge) & (mask > 0)).astype(np.uint8)
    else:
        side = 2 * int(change * 4) + 1
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return cv2.GaussianBlur(mask * np.uint8(255), (0, 0), 0.8)


def warp(mask: Shape, rng: Rng) -> Shape:
    """Turn, slant and stretch the shape at random, and crop it to its ink."""
    angle = np.radians(rng.normal(0, 6))
    slant, aspect = rng.normal(0, 0.12), np.exp(rng.normal(0, 0.12))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[aspect, -slant], [0, 1]])
    side = int(1.4 * SHAPE_SIDE)
    shift = np.array([side / 2, side / 2]) - matrix @ np.array([SHAPE_SIDE / 2, SHAPE_SIDE / 2])
    return crop(cv2.warpAffine(mask, np.column_stack([matrix, shift]), (side, side)))


def crop(mask: Shape) -> Shape:
    """Crop to the bounding box of the ink."""
    left, top, width, height = cv2.boundingRect((mask > 64).astype(np.uint8))
    return mask[top : top + max(1, height), left : left + max(1, width)]


def resize(mask: Shape, height: float, width: float | None = None) -> Shape:
    """Resize to a height, and to a width in px or in proportion."""
    width = mask.shape[1] * height / mask.shape[0] if width is None else width
    size = (max(2, round(width)), max(2, round(height)))
    shrinks = size[1] < mask.shape[0]
    return cv2.resize(mask, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def put(canvas: Shape, mask: Shape, top: int, left: int) -> None:
    """Draw a shape onto the canvas; what is outside of the canvas is cut off."""
    bottom, right = max(0, top + mask.shape[0]), max(0, left + mask.shape[1])
    place = canvas[max(0, top) : bottom, max(0, left) : right]
    part = mask[max(0, -top) :, max(0, -left) :][: place.shape[0], : place.shape[1]]
    np.maximum(place, part, out=place)


def lay_out(mask: Shape, rng: Rng, height: int, width: int, least: float, most: float) -> Shape:
    """Place the shape on an empty canvas; it fills a random share from `least` to `most` of it."""
    room = rng.uniform(least, most)
    scale = min(height * room / mask.shape[0], width * room / mask.shape[1])
    mask = resize(mask, mask.shape[0] * scale)
    canvas = np.zeros((height, width), np.uint8)
    top, left = (
        int(np.clip(rng.normal(0.5, 0.2), 0, 1) * max(0, whole - part))
        for whole, part in zip(canvas.shape, mask.shape, strict=True)
    )
    put(canvas, mask, top, left)
    return canvas


def draw_line(canvas: Shape, start: Point, end: Point, strength: float, thickness: int) -> None:
    """Draw a straight line whose ink has a strength of 0..1."""
    line = np.zeros_like(canvas)
    first, last = ([round(v * 16) for v in point] for point in (start, end))  # in 1/16 px
    cv2.line(line, first, last, int(255 * strength), max(1, thickness), cv2.LINE_AA, 4)
    np.maximum(canvas, line, out=canvas)


def add_neighbour(canvas: Shape, other: Shape, rng: Rng, height: int) -> None:
    """Draw another digit that reaches in from an edge."""
    h, w = canvas.shape
    other = resize(other, height)
    depth = int(rng.uniform(0.02, 0.1) * max(h, w)) + 1
    side = rng.integers(4)
    along = int(rng.uniform(-0.3, 1) * (h if side < 2 else w))
    top, left = [
        (along, depth - other.shape[1]),
        (along, w - depth),
        (depth - other.shape[0], along),
        (h - depth, along),
    ][side]
    put(canvas, other, top, left)


def light_unevenly(height: int, width: int, strength: float, rng: Rng) -> NDArray[np.float32]:
    """The share of full light at each pixel: a gradient, and sometimes the edge of a shadow."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)

    def draw_slope() -> NDArray[np.float64]:
        angle = rng.uniform(0, 2 * np.pi)
        return (x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle)

    along = draw_slope()
    light = 1 - rng.uniform(0, strength) * (along + 0.5)
    if rng.random() < 0.35 * (strength > 0.15):
        along, soft = draw_slope(), rng.uniform(0.02, 0.3)
        shade = 1 / (1 + np.exp(-(along - rng.uniform(-0.4, 0.4)) / soft * 4))
        light = light * (1 - rng.uniform(0.1, 0.5) * shade)
    return light.astype(np.float32)


@dataclass(frozen=True)
class PhotoRanges:
    """The ranges from which the properties of a photo are drawn."""

    paper: tuple[float, float]  # the range of its grey value
    pen: tuple[float, float]  # the range of its grey value
    shade: float  # the largest loss of light towards one side, as a share
    grain: float  # the largest noise of paper and camera, as a standard deviation in grey values
    coloured: float  # the share of coloured pens


ON_PAPER = PhotoRanges((140, 255), (5, 110), 0.5, 7, 0.4)
IN_PENCIL = PhotoRanges((170, 255), (30, 150), 0.15, 4, 0.1)
IN_A_FORM = PhotoRanges((170, 255), (0, 110), 0.15, 6, 0.25)


def photograph(ink: NDArray[np.float32], ranges: PhotoRanges, rng: Rng) -> Picture:
    """Ink of 0..1 on paper, under uneven light, with grain; in colour or grey."""
    height, width = ink.shape
    tint = np.array([1, 1, 1]) - rng.uniform(0, 0.25, 3) * (rng.random() < 0.4)
    background = rng.uniform(*ranges.paper) * tint
    pen = rng.uniform(*ranges.pen) * np.ones(3) * tint
    if rng.random() < ranges.coloured:
        pen = background * (rng.uniform(0, 1, 3) ** 1.5)
        pen[rng.integers(3)] *= rng.uniform(0, 0.4)
    image = background + ink[..., None] * (pen - background)
    grain = rng.normal(0, rng.uniform(0, ranges.grain), (height, width, 1)).astype(np.float32)
    if rng.random() < 0.5:
        rough = rng.normal(0, 1, (max(2, height // 4), max(2, width // 4))).astype(np.float32)
        rough = cv2.resize(rough, (width, height), interpolation=cv2.INTER_LINEAR)
        grain = grain + rough[..., None] * rng.uniform(0, ranges.grain)
    lit = (image + grain) * light_unevenly(height, width, ranges.shade, rng)[..., None]
    picture = np.clip(lit, 0, 255).astype(np.uint8)
    return picture if rng.random() < 0.5 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def compress(image: Picture, rng: Rng, least: int) -> Picture:
    """Compress to JPEG with a quality of `least` or more, and decode again."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(least, 96))]
    _, data = cv2.imencode(".jpg", image, quality)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))


def blurred(ink: Shape, rng: Rng, most: float) -> NDArray[np.float32]:
    """Blur by a random standard deviation of up to `most` px; gives 0..1."""
    sigma = rng.uniform(0, most)
    soft = cv2.GaussianBlur(ink, (0, 0), sigma) if sigma > 0.2 else ink
    return np.divide(np.asarray(soft, np.float32), np.float32(255), dtype=np.float32)


def paper(mask: Shape, other: Shape, rng: Rng) -> Picture:
    """A photo or scan of a digit on paper, some ruled, some with a neighbour."""
    height = int(np.exp(rng.uniform(np.log(40), np.log(300))))
    width = int(height * np.exp(rng.normal(0, 0.2)))
    canvas = lay_out(mask, rng, height, width, 0.35, 0.95)
    if rng.random() < 0.25:
        add_neighbour(canvas, other, rng, int(0.6 * height))
    if rng.random() < 0.3:
        pitch, tilt = rng.uniform(0.25, 0.9) * height, rng.normal(0, 0.015)
        thick, strength = 1 + int(height / 150), rng.uniform(0.1, 0.6)
        for y in np.arange(rng.uniform(0, pitch), height, pitch):
            draw_line(canvas, (0, y), (width, y + tilt * width), strength, thick)
        if rng.random() < 0.4:
            for x in np.arange(rng.uniform(0, pitch), width, pitch):
                draw_line(canvas, (x, 0), (x - tilt * height, height), strength, thick)
    if rng.random() < 0.2:
        for _ in range(rng.integers(1, 6)):
            spot = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.circle(canvas, spot, int(rng.integers(0, 1 + height // 60)), 200, -1)
    image = photograph(blurred(canvas, rng, height / 120), ON_PAPER, rng)
    return compress(image, rng, 40) if rng.random() < 0.7 else image


def screen(mask: Shape, other: Shape, rng: Rng) -> Picture:
    """A digit drawn with a mouse or a finger, dark on light or light on dark."""
    side = int(rng.choice([28, 28, 28, 32, 50, 64, 100, 140, 200, 280, 400]))
    canvas = lay_out(mask, rng, side, side, 0.35, 1.0)
    if rng.random() < 0.3:
        canvas = np.where(canvas > 127, 255, 0).astype(np.uint8)
    ink = canvas.astype(np.float32) / 255
    if rng.random() < 0.2:
        ink *= rng.uniform(0.2, 1)
    image = (255 * (1 - ink)).astype(np.uint8)
    return 255 - image if rng.random() < 0.4 else image


def pencil(mask: Shape, other: Shape, rng: Rng) -> Picture:
    """A small JPEG of a thin, faint stroke."""
    large = int(rng.uniform(64, 160))
    canvas = lay_out(mask, rng, large, large, 0.5, 0.98)
    side = int(rng.choice([28, 32, 32, 32, 40, 48]))
    ink = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    ink *= rng.uniform(0.3, 1)
    return compress(photograph(ink, IN_PENCIL, rng), rng, 50)


def cell(mask: Shape, other: Shape, rng: Rng) -> Picture:
    """A digit cut from a printed form, with some of its lines."""
    height = int(np.exp(rng.uniform(np.log(28), np.log(120))))
    width = int(height * np.exp(rng.normal(0, 0.15)))
    canvas = lay_out(mask, rng, height, width, 0.45, 0.92)
    if rng.random() < 0.15:
        add_neighbour(canvas, other, rng, int(0.7 * height))
    thick = max(1, round(rng.uniform(0.01, 0.05) * height))
    strength, tilt = rng.uniform(0.4, 1), rng.normal(0, 0.012)
    for side, length in enumerate([height, height, width, width]):  # top, bottom, left, right
        if rng.random() < 0.6:
            inset = rng.uniform(-0.02, 0.13) * length
            place = length - 1 - inset if side % 2 else inset
            if side < 2:
                draw_line(canvas, (0, place), (width, place + tilt * width), strength, thick)
            else:
                draw_line(canvas, (place, 0), (place - tilt * height, height), strength, thick)
    image = photograph(blurred(canvas, rng, height / 80), IN_A_FORM, rng)
    return compress(image, rng, 40) if rng.random() < 0.5 else image


def binarised(mask: Shape, other: Shape, rng: Rng) -> Picture:
    """A digit in black and white, cropped to the ink, sometimes stretched towards a square."""
    side = int(rng.choice([28, 28, 32, 40, 64, 100]))
    height, width = mask.shape
    squeeze = rng.uniform(0, 1) if rng.random() < 0.6 else 0
    target = width / height * side
    target = target * (1 - squeeze) + side * squeeze * min(1, width / height + 0.4)
    shape = resize(mask, side, min(1.3 * side, target))
    image = np.where(shape > rng.integers(70, 190), 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), 0.5)
    free = side - image.shape[1]
    if free > 0 and rng.random() < 0.7:
        image = np.pad(image, ((0, 0), (free // 2, free - free // 2)), constant_values=255)
    return 255 - image if rng.random() < 0.2 else image


def coarse(mask: Shape, other: Shape, rng: Rng) -> Picture:
    """A digit of few pixels, often stretched to a square, in two, four or all grey values."""
    side = int(rng.integers(14, 22))
    width = side if rng.random() < 0.5 else max(6.0, side * min(1, mask.shape[1] / mask.shape[0]))
    ink = np.pad(resize(mask, side, width), int(rng.integers(0, 4))).astype(np.float32) / 255
    levels = int(rng.choice([1, 1, 3, 255]))
    stretched = np.clip(ink * rng.uniform(1, 2.2), 0, 1)
    image = (255 - 255 / levels * np.round(stretched * levels)).astype(np.uint8)
    return 255 - image if rng.random() < 0.4 else image


def crowded(mask: Shape, other: Shape, rng: Rng) -> Picture:
    """A digit cut out of a line of writing, whose neighbours reach in from one or both sides."""
    height = int(np.exp(rng.uniform(np.log(18), np.log(100))))
    shape, near = resize(mask, height), resize(other, height * rng.uniform(0.7, 1.2))
    above, below = (int(rng.uniform(-0.05, 0.2) * height) for _ in range(2))
    before, after = (
        int(rng.uniform(0, 0.45) * near.shape[1] * (rng.random() < 0.7)) for _ in range(2)
    )
    gaps = [int(rng.normal(0.08, 0.08) * height) for _ in range(2)]
    width = max(8, before + gaps[0] + shape.shape[1] + gaps[1] + after)
    canvas = np.zeros((max(8, above + height + below), width), np.uint8)
    put(canvas, shape, above, before + gaps[0])
    down = above + height - near.shape[0] + int(rng.normal(0, 0.08) * height)
    for left in (before - near.shape[1], width - after):
        put(canvas, near, down, left)
    return compress(photograph(blurred(canvas, rng, height / 40), ON_PAPER, rng), rng, 40)


PICTURE_KINDS: dict[str, Kind] = {
    kind.__name__: kind for kind in (paper, screen, pencil, cell, binarised, coarse, crowded)
}
