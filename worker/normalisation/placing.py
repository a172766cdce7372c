"""The last steps: crop, dilate_thin_strokes, scale, centre."""

from collections.abc import Sequence

import cv2
import numpy as np

from worker.normalisation.measuring import FAINT, disc, measure_reach, measure_stroke
from worker.pictures import Grey, ImageError

SIDE = 28


BOX = 20  # px: the longer side of the digit


BOX_TOLERANCE, PLACE_TOLERANCE = 2, 1.5  # px: so far off, an image still is as MNIST's are


RINGING = 32  # of 255: up to so much JPEG leaves beside ink


BLACK, WHITE = 8, 192  # of 255: so dark, or darker, is their ground; so light, or lighter, ink


MOST = 0.6 * SIDE**2  # pixels are not: of MNIST's, 0.45 of them


BORDER = 4 * (SIDE - 1)  # px around


TICKS = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2  # px from the middle


MOMENTS = np.stack([np.ones(SIDE * SIDE), np.repeat(TICKS, SIDE), np.tile(TICKS, SIDE)])


MOMENTS = MOMENTS.astype(np.float32)  # (3, 784): an image's mass, and its moments down and right


STROKE = 2.2  # px of the box: a thinner stroke is grown to this, the lower quartile of MNIST's own


STROKE_SIDE = 80  # px: the longer side of the ink whose strokes are measured and grown


WIDEST = 4.2  # px: half the width of the widest stroke; what is wider is solid, as garments are


def is_normalised(grey: Grey) -> bool:
    """Whether the image is as MNIST's: 28×28, white on black, box and centre of mass in place."""
    if grey.shape != (SIDE, SIDE):
        return False
    _, ink = cv2.threshold(grey, RINGING, 0, cv2.THRESH_TOZERO)
    if cv2.minMaxLoc(ink)[1] < WHITE:
        return False
    if cv2.countNonZero(cv2.threshold(grey, BLACK, 1, cv2.THRESH_BINARY)[1]) > MOST:
        return False
    _, _, width, height = cv2.boundingRect(ink)
    if abs(max(width, height) - BOX) > BOX_TOLERANCE:
        return False
    if cv2.countNonZero(ink) - cv2.countNonZero(ink[1:-1, 1:-1]) >= BORDER / 2:
        return False
    mass, down, right = (MOMENTS @ ink.reshape(-1)).tolist()  # twice as fast as cv2.moments
    return abs(down / mass) < PLACE_TOLERANCE and abs(right / mass) < PLACE_TOLERANCE


def crop(ink: Grey) -> Grey:
    """The box of the ink."""
    left, top, width, height = box_of(ink)
    return ink[top : top + height, left : left + width]


def box_of(ink: Grey) -> Sequence[int]:
    """Left, top, width and height of the ink. Raises `ImageError` where there is none."""
    box: Sequence[int] = cv2.boundingRect(cv2.threshold(ink, FAINT, 1, cv2.THRESH_BINARY)[1])
    if not any(box):
        raise ImageError("blank: no ink to be seen")
    return box


def dilate_thin_strokes(ink: Grey) -> Grey:
    """The ink with strokes of about `STROKE` px in the box, where they would be thinner.

    A pen is thin beside MNIST's, all the more on a digit written large.
    """
    enlarged = scale(ink, STROKE_SIDE)
    missing = STROKE * STROKE_SIDE / BOX - measure_stroke(
        cv2.threshold(enlarged, 127, 1, cv2.THRESH_BINARY)[1]
    )
    radius = round(missing / 2)
    if radius < 1:
        return ink
    around = (radius, radius, radius, radius)
    return cv2.dilate(cv2.copyMakeBorder(enlarged, *around, cv2.BORDER_CONSTANT), disc(radius))


def scale(ink: Grey, side: int = BOX) -> Grey:
    """The longer side `side` px, the other in proportion."""
    factor = side / max(ink.shape)
    size = [max(1, round(part * factor)) for part in ink.shape[::-1]]
    return cv2.resize(ink, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def centre_of_mass(ink: Grey) -> tuple[float, float]:
    """Row and column of the middle of the ink, in px from the upper left corner of the image."""
    moments = cv2.moments(ink)
    mass = moments["m00"] or 1.0
    return moments["m01"] / mass + 0.5, moments["m10"] / mass + 0.5


def is_solid(digit: Grey) -> bool:
    """Whether some of a 28×28 image is wider than strokes are."""
    return measure_reach(cv2.threshold(digit, 127, 1, cv2.THRESH_BINARY)[1]) > WIDEST


def centre(ink: Grey) -> Grey:
    """A 28×28 image with the ink's centre of mass at its centre, as far as it has room."""
    height, width = ink.shape
    row, column = centre_of_mass(ink)
    top = min(max(round(SIDE / 2 - row), 0), SIDE - height)
    left = min(max(round(SIDE / 2 - column), 0), SIDE - width)
    placed = np.zeros((SIDE, SIDE), np.uint8)
    placed[top : top + height, left : left + width] = ink
    return placed
