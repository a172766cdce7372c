"""Cuts the line of a number out of a picture, upright and with digits of one height, and shows it
to a network.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from digitq.worker.models.number_networks import STRIDE, StripSize
from digitq.worker.picture import Grey
from digitq.worker.sight.numbers.finding import (
    Candidates,
    equalise,
    find_median,
    shrink_by_factor,
)

LIKELY = 0.3  # a line is placed by its candidates with at least this chance
STRIP_MARGIN = 1.0  # a strip shows this many heights of a digit before and after its line
MIN_STRIP, MAX_STRIP = 16, 1200  # px: the least and the greatest width of a strip
BEYOND_EDGE = 0.25  # a strip shows at most this share of a digit's height beyond the picture
Boxes = NDArray[np.float32]  # (N, 4): left, top, right and bottom, in px


class TextLine(NamedTuple):
    """Where the line of a number is in a picture, in px."""

    x: float  # the middle of the line
    y: float
    length: float
    height: float  # the usual height of a digit
    slope: float  # how far the line falls for each px to the right


def fit_line(boxes: Boxes) -> TextLine:
    """The line through the boxes of digits, from left to right."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    height = max(1.0, find_median(boxes[:, 3] - boxes[:, 1]))
    across = middles[:, 0] - middles[:, 0].mean()
    spread = float((across**2).sum())
    # the added term makes a line of few digits level, unless its digits clearly are not
    slope = float((across * middles[:, 1]).sum()) / (spread + height**2)
    left, right = float(boxes[:, 0].min()), float(boxes[:, 2].max())
    x = (left + right) / 2
    y = float(middles[:, 1].mean()) + slope * (x - float(middles[:, 0].mean()))
    return TextLine(x, y, (right - left) * math.hypot(1, slope), height, slope)


def place_line(line: Candidates) -> TextLine:
    """The line through the likely candidates of a line, which has one at least."""
    return fit_line(line.boxes[line.chances >= min(LIKELY, float(line.chances.max()))])


def turn(picture: Grey, angle: float) -> tuple[Grey, NDArray[np.float64]]:
    """The whole picture turned counterclockwise, in degrees, and the (2, 3) matrix to its px.

    New corners get the picture's median, so that ink at an edge is not continued there.
    """
    height, width = picture.shape[:2]
    # OpenCV counts from the middle of the first pixel, this matrix from the picture's edge
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), angle, 1)
    cos, sin = np.abs(matrix[0, :2])
    size = math.ceil(width * cos + height * sin), math.ceil(height * cos + width * sin)
    matrix[:, 2] += (np.array(size) - (width, height)) / 2
    paper = np.median(picture, axis=(0, 1)).tolist()
    turned = cv2.warpAffine(picture, matrix, size, borderValue=paper)
    matrix[:, 2] += 0.5 - matrix[:, :2] @ (0.5, 0.5)
    return np.asarray(turned), matrix


def cut_strip(
    picture: Grey, line: TextLine, before: float, after: float, size: StripSize
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The strip, (size.height, W) with W even, normalised, and the (2, 3) matrix to its px.

    It shows `before` and `after` heights of a digit beyond the line's ends, if the picture reaches
    that far. A very long line is squeezed to MAX_STRIP.
    """
    scale = size.digit / line.height
    cos, sin = (part / math.hypot(1, line.slope) for part in (1.0, line.slope))
    # where the strip starts and ends: px of the picture along the line, from the line's middle
    start = -line.length / 2 - before * line.height
    end = line.length / 2 + after * line.height
    start = max(start, (0 - line.x) / cos - BEYOND_EDGE * line.height)
    end = min(end, (picture.shape[1] - line.x) / cos + BEYOND_EDGE * line.height)
    end = max(end, start + line.height)
    along = min(scale, MAX_STRIP / (end - start))
    width = max(MIN_STRIP, STRIDE * math.ceil((end - start) * along / STRIDE - 1e-6))
    small, factor = shrink_by_factor(picture, scale)  # otherwise fine strokes would be lost
    scaled = np.array([[along], [scale]]) * [[cos, sin], [-sin, cos]]
    shift = np.array([-start * along, size.height / 2]) - scaled @ (line.x, line.y)
    matrix = np.column_stack([scaled, shift])
    # OpenCV counts from the middle of the first pixel, this matrix from the picture's edge
    inner = scaled * factor
    offset = shift + (inner @ (0.5, 0.5)) - 0.5
    strip = cv2.warpAffine(
        small,
        np.column_stack([inner, offset]),
        (width, size.height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return equalise(strip), matrix


def read_strip(
    network: Callable[[Tensor], Tensor], picture: Grey, line: TextLine, size: StripSize
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What a network sees in a line, (21, T) log-probabilities, and the (2, 3) matrix to px of its
    strip.
    """
    strip, to_strip = cut_strip(picture, line, STRIP_MARGIN, STRIP_MARGIN, size)
    answer = network(torch.from_numpy(strip)[None, None])[0, :, 0].log_softmax(0).numpy()
    return answer, to_strip
