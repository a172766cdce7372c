"""Cuts the line of a number out of a picture: upright, and its digits of one height."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.models.column_network import STRIDE, STRIP_HEIGHT
from worker.sight.numbers.finding import equalise, find_median, shrink_by_factor
from worker.sight.types import Grey

DIGIT_HEIGHT = 17  # px: the usual height of a digit in a strip
MIN_STRIP, MAX_STRIP = 16, 1200  # px: no strip is narrower, and none is wider
Boxes = NDArray[np.float32]


class Place(NamedTuple):
    """Where a line is in a picture, in its px."""

    x: float  # the middle of the line
    y: float
    length: float
    height: float  # of its digits
    slope: float  # downwards, for each px to the right


def place_line(boxes: Boxes) -> Place:
    """The place of a line of digits: (N, 4), from left to right."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    height = max(1.0, find_median(boxes[:, 3] - boxes[:, 1]))
    across = middles[:, 0] - middles[:, 0].mean()
    spread = float((across**2).sum())
    # A line of few digits is taken to be level, unless they are clearly not.
    slope = float((across * middles[:, 1]).sum()) / (spread + height**2)
    left, right = float(boxes[:, 0].min()), float(boxes[:, 2].max())
    x = (left + right) / 2
    y = float(middles[:, 1].mean()) + slope * (x - float(middles[:, 0].mean()))
    return Place(x, y, (right - left) * math.hypot(1, slope), height, slope)


def turn(picture: Grey, angle: float) -> tuple[Grey, NDArray[np.float64]]:
    """The whole picture turned counterclockwise, in degrees, and the (2, 3) matrix to its px.

    Its corners have the usual value of the picture, so that ink at an edge is not drawn out.
    """
    height, width = picture.shape[:2]
    # OpenCV counts from the middle of the first pixel, a place from the picture's edge
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), angle, 1)
    cos, sin = np.abs(matrix[0, :2])
    size = math.ceil(width * cos + height * sin), math.ceil(height * cos + width * sin)
    matrix[:, 2] += (np.array(size) - (width, height)) / 2
    paper = np.median(picture, axis=(0, 1)).tolist()
    turned = cv2.warpAffine(picture, matrix, size, borderValue=paper)
    matrix[:, 2] += 0.5 - matrix[:, :2] @ (0.5, 0.5)
    return np.asarray(turned), matrix


def cut_strip(
    picture: Grey, place: Place, before: float, after: float
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The strip, (STRIP_HEIGHT, W) with W even, normalised, and the (2, 3) matrix to its px.

    It shows `before` and `after` heights of a digit beyond the line's ends, and at most a quarter
    of a height beyond the picture's edges. A very long line is squeezed to MAX_STRIP.
    """
    scale = DIGIT_HEIGHT / place.height
    cos, sin = (part / math.hypot(1, place.slope) for part in (1.0, place.slope))
    # Where the strip starts and ends, from the line's middle, in px of the picture along the line
    start = -place.length / 2 - before * place.height
    end = place.length / 2 + after * place.height
    start = max(start, (0 - place.x) / cos - 0.25 * place.height)
    end = min(end, (picture.shape[1] - place.x) / cos + 0.25 * place.height)
    end = max(end, start + place.height)
    along = min(scale, MAX_STRIP / (end - start))
    width = max(MIN_STRIP, STRIDE * math.ceil((end - start) * along / STRIDE - 1e-6))
    small, factor = shrink_by_factor(picture, scale)  # or fine strokes would be lost
    scaled = np.array([[along], [scale]]) * [[cos, sin], [-sin, cos]]
    shift = np.array([-start * along, STRIP_HEIGHT / 2]) - scaled @ (place.x, place.y)
    matrix = np.column_stack([scaled, shift])
    # OpenCV counts from the middle of the first pixel, a place from the picture's edge
    inner = scaled * factor
    offset = shift + (inner @ (0.5, 0.5)) - 0.5
    strip = cv2.warpAffine(
        small,
        np.column_stack([inner, offset]),
        (width, STRIP_HEIGHT),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return equalise(strip), matrix
