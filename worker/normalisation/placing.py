"""The last steps: the digit is cropped, grown, scaled and centred as those of MNIST are."""

from collections.abc import Sequence

import cv2
import numpy as np

from worker.normalisation.measuring import FAINT, disc, measure_reach, measure_stroke
from worker.pictures import SIDE, Grey, ImageError

DIGIT_SIDE = 20  # px: the longer side of an MNIST digit
MAX_SIDE_ERROR, MAX_PLACE_ERROR = 2, 1.5  # px by which an image that is like MNIST may be off
MAX_RINGING = 32  # grey values that JPEG leaves beside ink
MAX_GROUND_GREY, MIN_INK_GREY = 8, 192  # of 255: MNIST's ground is as dark, its ink as light
MAX_INK_PIXELS = 0.6 * SIDE**2  # more ink than this is not like MNIST, whose densest digit has 45 %
STROKE = 2.2  # px at `DIGIT_SIDE`: thinner strokes are grown to this, MNIST's own lower quartile
STROKE_SIDE = 80  # px: the longer side of the ink when its strokes are measured and grown
MAX_REACH = 4.2  # px: half the width of the widest stroke; wider ink is solid, as garments are
_ticks = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2  # px from the middle
MOMENTS = np.stack(  # (3, 784): what gives an image's mass, and its moments down and right
    [np.ones(SIDE * SIDE, np.float32), np.repeat(_ticks, SIDE), np.tile(_ticks, SIDE)]
)


def is_normalised(grey: Grey) -> bool:
    """Whether the image is as MNIST's: 28×28, white on black, box and centre of mass in place."""
    if grey.shape != (SIDE, SIDE):
        return False
    _, ink = cv2.threshold(grey, MAX_RINGING, 0, cv2.THRESH_TOZERO)
    if cv2.minMaxLoc(ink)[1] < MIN_INK_GREY:
        return False
    if (
        cv2.countNonZero(cv2.threshold(grey, MAX_GROUND_GREY, 1, cv2.THRESH_BINARY)[1])
        > MAX_INK_PIXELS
    ):
        return False
    _, _, width, height = cv2.boundingRect(ink)
    if abs(max(width, height) - DIGIT_SIDE) > MAX_SIDE_ERROR:
        return False
    if cv2.countNonZero(ink) - cv2.countNonZero(ink[1:-1, 1:-1]) >= 2 * (
        SIDE - 1
    ):  # half of the border
        return False
    mass, down, right = (MOMENTS @ ink.reshape(-1)).tolist()  # twice as fast as cv2.moments
    return abs(down / mass) < MAX_PLACE_ERROR and abs(right / mass) < MAX_PLACE_ERROR


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
    missing = STROKE * STROKE_SIDE / DIGIT_SIDE - measure_stroke(
        cv2.threshold(enlarged, 127, 1, cv2.THRESH_BINARY)[1]
    )
    radius = round(missing / 2)
    if radius < 1:
        return ink
    around = (radius, radius, radius, radius)
    return cv2.dilate(cv2.copyMakeBorder(enlarged, *around, cv2.BORDER_CONSTANT), disc(radius))


def scale(ink: Grey, side: int = DIGIT_SIDE) -> Grey:
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
    return measure_reach(cv2.threshold(digit, 127, 1, cv2.THRESH_BINARY)[1]) > MAX_REACH


def centre(ink: Grey) -> Grey:
    """A 28×28 image with the ink's centre of mass at its centre, as far as it has room."""
    height, width = ink.shape
    row, column = centre_of_mass(ink)
    top = min(max(round(SIDE / 2 - row), 0), SIDE - height)
    left = min(max(round(SIDE / 2 - column), 0), SIDE - width)
    placed = np.zeros((SIDE, SIDE), np.uint8)
    placed[top : top + height, left : left + width] = ink
    return placed
