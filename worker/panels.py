"""A digit on a panel: on a plate, in a frame, in a plot with margins, on a sheet on a desk."""

import math

import cv2
import numpy as np

from worker.decoding import Grey

Window = tuple[float, float, float, float]  # of an image's height and width: from, to, from, to

LEAST = 0.2  # of the image
RECTANGLE = 0.93  # of the smallest rectangle around it, which may be tilted
TILT = 10  # degrees
NARROW, WIDE = 0.75, 2.5  # times as wide as high: else it may be a thick 0
FULL = 0.7  # of it is ink: more than of a digit
HOLE = 0.25  # of its height is a digit's at least
RIM = 0.03  # of its shorter side is cut off


def find_panel(ink: Grey) -> Window | None:
    """The part of the image that has a digit on it, where the ink is that part and the digit a
    hole in it."""
    height, width = ink.shape
    mask = cv2.threshold(ink, 127, 1, cv2.THRESH_BINARY)[1]
    if cv2.countNonZero(mask) < LEAST * FULL * mask.size:
        return None
    outlines, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outer = tree[0, :, 3] < 0
    sizes = [cv2.contourArea(outline) for outline in outlines]
    largest = int(np.where(outer, sizes, -1).argmax())
    left, top, w, h = cv2.boundingRect(outlines[largest])
    _, sides, angle = cv2.minAreaRect(outlines[largest])
    tilt = abs((angle + 45) % 90 - 45)
    if (
        w * h < max(LEAST * mask.size, 1)
        or (w, h) == (width, height)
        or not NARROW * h <= w <= WIDE * h
        or tilt > TILT
        or sizes[largest] < RECTANGLE * math.prod(sides)
        or cv2.countNonZero(mask[top : top + h, left : left + w]) < FULL * sizes[largest]
    ):
        return None
    holes = [cv2.boundingRect(outlines[n])[3] for n in np.flatnonzero(tree[0, :, 3] == largest)]
    if max(holes, default=0) < HOLE * h:
        return None
    off = math.tan(math.radians(tilt))
    down, right = (round(RIM * min(w, h) + off * side) + 1 for side in (w, h))
    return (
        (top + down) / height,
        (top + h - down) / height,
        (left + right) / width,
        (left + w - right) / width,
    )
