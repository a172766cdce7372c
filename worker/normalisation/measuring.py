"""Measures of grey values and of ink, which several steps use."""

from bisect import bisect_right
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.pictures import Grey, Mask, Picture

MIN_HALVED_LENGTH = 7  # an image so many times longer than it should be is halved first
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
FAINT = 64  # of 255: paler ink is the soft edge of a stroke

Ordered = NDArray[np.uint8]  # (pixels,): grey values in their order


def shrink(picture: Picture, side: int) -> Picture:
    """The longer side at most `side` px."""
    height, width = picture.shape[:2]
    while max(height, width) >= MIN_HALVED_LENGTH * side and min(height, width) > 1:
        # but for what is left over below and on the right: this takes a tenth of the time
        height, width = height // 2, width // 2
        whole = picture[: 2 * height, : 2 * width]
        picture = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    factor = side / max(height, width)
    if factor >= 1:
        return picture
    size = [max(1, round(length * factor)) for length in (width, height)]
    # the mean of all pixels takes four times as long, and is hardly another in a size that is near
    kind = cv2.INTER_LINEAR if factor > 0.7 else cv2.INTER_AREA
    return cv2.resize(picture, size, interpolation=kind)


def border(image: NDArray[Any]) -> NDArray[Any]:
    """The outermost pixels, in a row."""
    return np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])


def measure_reach(mask: Mask) -> float:
    """The largest distance, in px, from a pixel of the mask to one outside of it."""
    return cv2.norm(cv2.distanceTransform(mask, cv2.DIST_L2, 3), cv2.NORM_INF)


@cache
def ones(height: int, width: int) -> Mask:
    """A kernel that takes in all of a rectangle."""
    return np.ones((height, width), np.uint8)


@cache
def disc(radius: int) -> Mask:
    """A kernel that takes in all that is no farther away."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def order(grey: Grey) -> Ordered:
    """All grey values, from the darkest to the lightest: by a stable sort, which counts them."""
    return np.sort(grey, axis=None, kind="stable")


def count_to(ordered: Ordered, value: int) -> int:
    """How many of the values are no higher than this."""
    return bisect_right(ordered, value)


def percentiles(ordered: Ordered, *percents: float) -> list[int]:
    """Values below which such parts of the values lie."""
    return [ordered.item(int(part / 100 * len(ordered))) for part in percents]


def otsu_threshold(values: Grey) -> int:
    """The threshold that parts values into two classes farthest apart.

    N. Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    return int(cv2.threshold(values, 0, 1, cv2.THRESH_OTSU)[0])


def measure_rows(mask: Mask) -> NDArray[np.float64]:
    """How much of each row is 1: (height, width) → (height,), 0..1."""
    return count_ink(mask)[:, 0] / mask.shape[1]


def count_ink(mask: Mask) -> NDArray[np.int32]:
    """How many pixels of each row are 1: (height, width) → (height, 1)."""
    return cv2.reduce(mask, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)


def largest_shape(mask: Mask) -> Mask:
    """The connected shape of the most pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, ltype=cv2.CV_16U)
    return mask if count == 1 else (labels == 1 + np.argmax(stats[1:, 4])).astype(np.uint8)


def measure_stroke(mask: Mask) -> float:
    """The mean width of the strokes in px: twice their area for the length of their edge."""
    area = cv2.countNonZero(mask)
    inner = cv2.erode(mask, CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return 2 * area / max(area - cv2.countNonZero(inner), 1)


def find_runs(flags: NDArray[np.bool_]) -> list[list[int]]:
    """From where to where each run of true goes in a row of flags."""
    padded = np.zeros(len(flags) + 2, np.bool_)
    padded[1:-1] = flags
    runs: list[list[int]] = np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2).tolist()
    return runs


def is_box(shape: NDArray[np.bool_]) -> bool:
    """Whether the outline of a shape is about a rectangle, perhaps with rounded corners."""
    (outline, *_), _ = cv2.findContours(
        shape.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    hull = cv2.convexHull(outline)
    _, sides, _ = cv2.minAreaRect(hull)
    return bool(cv2.contourArea(hull) > 0.9 * sides[0] * sides[1])  # a circle fills less
