"""Thresholds, percentiles, components and stroke widths, which several steps measure."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import Grey, Mask, Picture

CORNERS = [0, 0, -1, -1], [0, -1, 0, -1]  # rows and columns: `image[CORNERS]` has four pixels
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
INK_THRESHOLD = 64  # grey value: paler pixels are only the blurred edge of a stroke
HALF_INK = 127  # grey value: the edge of a stroke, where ink and paper are equal
FULL_INK = 90  # percentile of the ink that counts as its full strength
HALVED_FROM = 7  # an image this many times too large is halved first, in a tenth of the time
MIN_LINEAR = 0.7  # above this factor, linear interpolation looks the same in a quarter of the time

SortedPixels = NDArray[np.uint8]  # (pixels,): grey values from the darkest to the lightest
Contour = NDArray[np.int32]  # (points, 1, 2): x and y in px
Contours = Sequence[Contour]


def shrink(picture: Picture, side: int) -> Picture:
    """Shrink a picture so that its longer side has at most `side` px."""
    height, width = picture.shape[:2]
    while max(height, width) >= HALVED_FROM * side and min(height, width) > 1:
        # halving drops the last row or column if their number is uneven
        height, width = height // 2, width // 2
        even = picture[: 2 * height, : 2 * width]
        picture = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
    factor = side / max(height, width)
    if factor >= 1:
        return picture
    size = [max(1, round(length * factor)) for length in (width, height)]
    interpolation = cv2.INTER_LINEAR if factor > MIN_LINEAR else cv2.INTER_AREA
    return cv2.resize(picture, size, interpolation=interpolation)


def border(image: NDArray[Any]) -> NDArray[Any]:
    """The outermost pixels of an image: (height, width, …) → (pixels, …)."""
    return np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])


def mask_over(grey: Grey, threshold: float) -> Mask:
    """The mask of the values above a threshold."""
    return cv2.threshold(grey, threshold, 1, cv2.THRESH_BINARY)[1]


def measure_radius(mask: Mask) -> float:
    """The maximum of the distance transform in px: half the width of the widest stroke."""
    return cv2.norm(cv2.distanceTransform(mask, cv2.DIST_L2, 3), cv2.NORM_INF)


@cache
def ones(height: int, width: int) -> Mask:
    """A rectangular kernel."""
    return np.ones((height, width), np.uint8)


@cache
def disc(radius: int) -> Mask:
    """A round kernel."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def sort_pixels(grey: Grey) -> SortedPixels:
    """Sort all grey values; for bytes, NumPy's stable sort is a fast radix sort."""
    return np.sort(grey, axis=None, kind="stable")


def percentiles(pixels: SortedPixels, *percents: float) -> list[int]:
    """The grey values below which these percentages of the pixels lie."""
    return [pixels.item(int(percent / 100 * len(pixels))) for percent in percents]


def otsu_threshold(values: Grey) -> int:
    """The threshold of N. Otsu, "A threshold selection method from gray-level histograms", 1979."""
    return int(cv2.threshold(values, 0, 1, cv2.THRESH_OTSU)[0])


def largest_component(mask: Mask) -> Mask:
    """The connected component with the most pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, ltype=cv2.CV_16U)
    return mask if count == 1 else (labels == 1 + np.argmax(stats[1:, 4])).astype(np.uint8)


def find_largest(mask: Mask, chain: int) -> tuple[Contours, list[int], int, Contours] | None:
    """The contours, the parent of each, the index of the largest component, and its holes.

    The parent of a hole is the index of the contour around it; other contours have −1. Returns
    `None` if the largest component has no hole.
    """
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, chain)
    if len(contours) < 2 or max(parents := tree[0, :, 3].tolist()) < 0:
        return None
    areas = [cv2.contourArea(contour) for contour in contours]
    largest = max((n for n, parent in enumerate(parents) if parent < 0), key=areas.__getitem__)
    holes = [hole for hole, parent in zip(contours, parents, strict=True) if parent == largest]
    return (contours, parents, largest, holes) if holes else None


def measure_stroke_width(mask: Mask) -> float:
    """The mean stroke width in px: twice the area divided by the number of edge pixels."""
    area = cv2.countNonZero(mask)
    inner = cv2.erode(mask, CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return 2 * area / max(area - cv2.countNonZero(inner), 1)
