"""Finds the line that a pen drew in an MNIST digit, so that another pen can draw it again."""

import cv2
import numpy as np
from numpy.typing import NDArray

from training.synthetic.handwriting import Shape
from training.synthetic.scenes import crop

THINNED_SIDE = 56  # px, of the square in which a digit is thinned: twice 28
TRACED_SIDE = 84  # px, of the square in which it is drawn again: three times 28
TRACED_HEIGHT = 60  # px, of a digit in that square
NATURAL_LEVEL = 95  # grey value at the edge of an MNIST digit's stroke
MAX_THINNING_STEPS = 10  # each takes one pixel from both sides of a stroke
BLUR_DEPTH = 0.7  # px, by which the blur of the distances makes a stroke's middle deeper
# Bits of a pixel's neighbours: clockwise, from the one above.
NEIGHBOURS = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]], np.float32)


def _removable(step: int) -> NDArray[np.uint8]:
    """Whether thinning removes a pixel, for each code of its neighbours (Zhang and Suen 1984)."""
    table = np.zeros(256, np.uint8)
    for code in range(256):
        ring = [code >> bit & 1 for bit in range(8)]
        north, east, south, west = ring[::2]
        sides = [(north, east, south), (east, south, west)]
        if step == 1:
            sides = [(north, east, west), (north, south, west)]
        starts = sum(one < other for one, other in zip(ring, [*ring[1:], ring[0]], strict=True))
        edge = starts == 1 and not any(all(side) for side in sides)
        table[code] = edge and 2 <= sum(ring) <= 6
    return table


REMOVABLE = [_removable(0), _removable(1)]


def thin(mask: Shape) -> Shape:
    """Thin the strokes of a mask of 0 and 1 to lines of one pixel."""
    left = cv2.countNonZero(mask)
    for _ in range(MAX_THINNING_STEPS):
        for table in REMOVABLE:
            codes = cv2.filter2D(mask, cv2.CV_8U, NEIGHBOURS, borderType=cv2.BORDER_CONSTANT)
            mask = mask & ~cv2.LUT(codes, table)
        before, left = left, cv2.countNonZero(mask)
        if left == before:
            break
    return mask


def lean_of(example: Shape) -> float:
    """How far a digit leans to the right, in px per px of height."""
    moments = cv2.moments(example)
    return float(-moments["mu11"] / max(1.0, moments["mu02"]))


def trace(example: Shape, pen: float, shear: float, aspect: float) -> Shape:
    """Draw an MNIST digit again, (28, 28), and crop it to its ink.

    The strokes are `pen` heights of the digit wide, or as wide as they were if it is 0. `shear` is
    a shift to the right in px per px of height, and `aspect` a factor of the width.
    """
    size = (THINNED_SIDE, THINNED_SIDE)
    field = cv2.GaussianBlur(cv2.resize(example, size, interpolation=cv2.INTER_CUBIC), (5, 5), 1.1)
    outside = 0  # the value outside of the field
    if pen:
        line = thin((field > NATURAL_LEVEL).astype(np.uint8))
        field = cv2.GaussianBlur(cv2.distanceTransform(1 - line, cv2.DIST_L2, 5), (5, 5), 1)
        outside = 99
    scale, middle = TRACED_SIDE / THINNED_SIDE, THINNED_SIDE / 2
    across, down = aspect * scale, -shear * scale
    shift = TRACED_SIDE - (across + down) * middle
    matrix = np.array([[across, down, shift], [0, scale, 0]])
    size = (2 * TRACED_SIDE, TRACED_SIDE)
    drawn = cv2.warpAffine(field, matrix, size, borderValue=outside).astype(np.float32)
    if not pen:
        return crop(np.clip((drawn - NATURAL_LEVEL) * 4, 0, 255).astype(np.uint8))
    radius = max(1.0, pen * TRACED_HEIGHT / 2) + 0.5 + BLUR_DEPTH
    return crop((np.clip(radius - drawn * np.float32(scale), 0, 1) * 255).astype(np.uint8))
