"""Crops the digit, thickens its strokes, scales it and centres it, as MNIST's digits are."""

from collections.abc import Sequence

import cv2
import numpy as np

from digitq.worker.picture import INPUT_SIDE, Grey, ImageError
from digitq.worker.sight.normalisation.measuring import (
    HALF_INK,
    INK_THRESHOLD,
    disc,
    mask_over,
    measure_stroke_width,
)

DIGIT_SIDE = 20  # px: the longer side of an MNIST digit
MIN_STROKE_WIDTH = 2.2  # px at `DIGIT_SIDE`: thinner strokes are dilated; MNIST's lower quartile
STROKE_SIDE = 80  # px: strokes are measured and dilated while the digit's longer side is this

# An image is like MNIST's by these grey values, shares and px
MAX_INK = 0.6  # ink takes at most this share of the image; MNIST's densest digit has 45 %
JPEG_NOISE = 32  # JPEG leaves up to this around ink
MIN_MNIST_INK = 192  # MNIST's ink is at least as light
MAX_MNIST_GROUND = 8  # MNIST's background is at least as dark
MAX_SIZE_ERROR, MAX_PLACE_ERROR = 2, 1.5  # px: a digit's size and centre of mass differ by less
_ticks = np.arange(INPUT_SIDE, dtype=np.float32) - (INPUT_SIDE - 1) / 2  # px from the middle
_down, _right = np.meshgrid(_ticks, _ticks, indexing="ij")
# (3, 784): times pixels, they give the mass and the moments down and right
MOMENTS = np.stack([np.ones_like(_down), _down, _right]).reshape(3, -1)


def is_normalised(grey: Grey) -> bool:
    """Whether an image is like MNIST's: 28×28, white on black, its digit in size and place."""
    if grey.shape != (INPUT_SIDE, INPUT_SIDE):
        return False
    _, ink = cv2.threshold(grey, JPEG_NOISE, 0, cv2.THRESH_TOZERO)
    on_border = cv2.countNonZero(ink) - cv2.countNonZero(ink[1:-1, 1:-1])
    if (
        cv2.minMaxLoc(ink)[1] < MIN_MNIST_INK
        or cv2.countNonZero(mask_over(grey, MAX_MNIST_GROUND)) > MAX_INK * grey.size
        or abs(max(cv2.boundingRect(ink)[2:]) - DIGIT_SIDE) > MAX_SIZE_ERROR
        or on_border >= 2 * (INPUT_SIDE - 1)  # half of the border
    ):
        return False
    mass, down, right = (MOMENTS @ ink.reshape(-1)).tolist()  # twice as fast as cv2.moments
    return max(abs(down / mass), abs(right / mass)) < MAX_PLACE_ERROR


def crop(ink: Grey) -> Grey:
    """The bounding box of the ink. Raises `ImageError` if there is none."""
    left, top, width, height = bounding_box(ink)
    return ink[top : top + height, left : left + width]


def bounding_box(ink: Grey) -> Sequence[int]:
    """Left, top, width and height of the ink in px. Raises `ImageError` if there is none."""
    box: Sequence[int] = cv2.boundingRect(mask_over(ink, INK_THRESHOLD))
    if not any(box):
        raise ImageError("blank: no ink to be seen")
    return box


def dilate_thin_strokes(ink: Grey) -> Grey:
    """Dilate strokes that would be thinner than `MIN_STROKE_WIDTH`; this enlarges the image."""
    enlarged = scale(ink, STROKE_SIDE)
    width = measure_stroke_width(mask_over(enlarged, HALF_INK))
    radius = round((MIN_STROKE_WIDTH * STROKE_SIDE / DIGIT_SIDE - width) / 2)
    if radius < 1:
        return ink
    margins = (radius, radius, radius, radius)
    return cv2.dilate(cv2.copyMakeBorder(enlarged, *margins, cv2.BORDER_CONSTANT), disc(radius))


def scale(ink: Grey, side: int = DIGIT_SIDE) -> Grey:
    """Scale the longer side to `side` px, and the other in proportion."""
    factor = side / max(ink.shape)
    size = [max(1, round(length * factor)) for length in ink.shape[::-1]]
    return cv2.resize(ink, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def centre_of_mass(ink: Grey) -> tuple[float, float]:
    """Row and column of the ink's centre of mass, in px from the upper left corner."""
    moments = cv2.moments(ink)
    mass = moments["m00"] or 1.0
    return moments["m01"] / mass + 0.5, moments["m10"] / mass + 0.5


def centre(ink: Grey) -> Grey:
    """A 28×28 image with the ink's centre of mass at its centre, as far as there is room."""
    height, width = ink.shape
    row, column = centre_of_mass(ink)
    top = min(max(round(INPUT_SIDE / 2 - row), 0), INPUT_SIDE - height)
    left = min(max(round(INPUT_SIDE / 2 - column), 0), INPUT_SIDE - width)
    placed = np.zeros((INPUT_SIDE, INPUT_SIDE), np.uint8)
    placed[top : top + height, left : left + width] = ink
    return placed
