"""Measures of grey values and of ink, which several steps use."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.pictures import Grey, Mask, Picture

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
FAINT = 64  # of 255: ink that is paler than this is only the soft edge of a stroke

Ordered = NDArray[np.uint8]  # (pixels,): grey values from the darkest to the lightest
Outline = NDArray[np.int32]  # (points, 1, 2): x and y
Outlines = Sequence[Outline]


def shrink(picture: Picture, side: int) -> Picture:
    """Shrink a picture so that its longer side has at most `side` px."""
    height, width = picture.shape[:2]
    while max(height, width) >= 7 * side and min(height, width) > 1:
        # halving takes a tenth of the time; it leaves out an odd row or column at the end
        height, width = height // 2, width // 2
        whole = picture[: 2 * height, : 2 * width]
        picture = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    factor = side / max(height, width)
    if factor >= 1:
        return picture
    size = [max(1, round(length * factor)) for length in (width, height)]
    # for a similar size, linear interpolation gives nearly the same in a quarter of the time
    kind = cv2.INTER_LINEAR if factor > 0.7 else cv2.INTER_AREA
    return cv2.resize(picture, size, interpolation=kind)


def border(image: NDArray[Any]) -> NDArray[Any]:
    """The outermost pixels of an image, in one row."""
    return np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])


def mask_over(grey: Grey, threshold: float) -> Mask:
    """A mask of the values above a threshold."""
    return cv2.threshold(grey, threshold, 1, cv2.THRESH_BINARY)[1]


def measure_reach(mask: Mask) -> float:
    """The largest distance, in px, from a pixel of the mask to one outside of it."""
    return cv2.norm(cv2.distanceTransform(mask, cv2.DIST_L2, 3), cv2.NORM_INF)


@cache
def ones(height: int, width: int) -> Mask:
    """A rectangular kernel."""
    return np.ones((height, width), np.uint8)


@cache
def disc(radius: int) -> Mask:
    """A round kernel."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def order(grey: Grey) -> Ordered:
    """Sort all grey values; for bytes, NumPy's stable sort is the fast radix sort."""
    return np.sort(grey, axis=None, kind="stable")


def percentiles(ordered: Ordered, *percents: float) -> list[int]:
    """The values below which these shares of all values lie."""
    return [ordered.item(int(part / 100 * len(ordered))) for part in percents]


def otsu_threshold(values: Grey) -> int:
    """The threshold that separates values into the two classes that are farthest apart.

    N. Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    return int(cv2.threshold(values, 0, 1, cv2.THRESH_OTSU)[0])


def largest_shape(mask: Mask) -> Mask:
    """The connected shape with the most pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, ltype=cv2.CV_16U)
    return mask if count == 1 else (labels == 1 + np.argmax(stats[1:, 4])).astype(np.uint8)


def find_largest(mask: Mask, chain: int) -> tuple[Outlines, list[int], int, Outlines] | None:
    """All outlines of a mask, which of them each is a hole in or −1, and the largest and its holes.

    It is `None` if the largest shape has no hole.
    """
    outlines, tree = cv2.findContours(mask, cv2.RETR_CCOMP, chain)
    if len(outlines) < 2 or max(around := tree[0, :, 3].tolist()) < 0:
        return None
    sizes = [cv2.contourArea(outline) for outline in outlines]
    main = max((n for n, of in enumerate(around) if of < 0), key=sizes.__getitem__)
    holes = [hole for hole, of in zip(outlines, around, strict=True) if of == main]
    return (outlines, around, main, holes) if holes else None


def measure_stroke(mask: Mask) -> float:
    """The mean width of the strokes in px: twice their area divided by the length of their edge."""
    area = cv2.countNonZero(mask)
    inner = cv2.erode(mask, CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return 2 * area / max(area - cv2.countNonZero(inner), 1)
