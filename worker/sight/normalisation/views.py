"""Changes a picture in eight ways, for when the network is unsure (test-time augmentation)."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from worker.sight.normalisation.background import is_photo
from worker.sight.normalisation.colours import to_grey
from worker.sight.normalisation.measuring import border, ones, shrink, sort_pixels
from worker.sight.types import ImageError, Picture

View = Callable[[Picture], Picture]

MIDDLE_CUT = 0.2  # the middle lacks this share of a side at each of its ends
MIN_VIEW_SHARE = 1 - 2 * MIDDLE_CUT  # a view shows at least this share of a side


def softened(picture: Picture) -> Picture:
    """The picture blurred: grain disappears, and broken strokes join."""
    small = shrink(picture, 128)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 0.025 * max(small.shape[:2])))


def extended(picture: Picture) -> Picture:
    """The picture continued past its edges."""
    return surround(picture, 0.15, cv2.BORDER_REPLICATE)


def framed(picture: Picture) -> Picture:
    """The picture in a wide frame, whose colour is the median of its border."""
    background = np.atleast_1d(np.median(border(picture), axis=0)).tolist()
    return surround(picture, 0.35, cv2.BORDER_CONSTANT, background)


def surround(picture: Picture, share: float, kind: int, colour: Sequence[float] = ()) -> Picture:
    """Add this share of the longer side at each edge."""
    width = round(share * max(picture.shape[:2])) + 1
    return np.asarray(cv2.copyMakeBorder(picture, width, width, width, width, kind, value=colour))


def middle(picture: Picture) -> Picture:
    return inner(picture, MIDDLE_CUT, MIDDLE_CUT)


def trimmed(picture: Picture) -> Picture:
    return inner(picture, 0.1, 0.1)


def middle_rows(picture: Picture) -> Picture:
    return inner(picture, 0.15, 0)


def middle_columns(picture: Picture) -> Picture:
    return inner(picture, 0, 0.15)


def inner(picture: Picture, ends: float, sides: float) -> Picture:
    """Cut off a share of the height at the top and bottom, and of the width at each side."""
    height, width = picture.shape[:2]
    top, left = int(ends * height), int(sides * width)
    return picture[top : height - top, left : width - left].copy()


def levelled(picture: Picture) -> Picture:
    """A photo without anything wider than thin strokes. Raises `ImageError` for a drawing."""
    grey = to_grey(shrink(picture, 192))
    if not is_photo(sort_pixels(grey)):
        raise ImageError("no light falls on a drawing")
    wide = ones(11, 11)  # px: wider than thin strokes
    lighter = cv2.norm(cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, wide))
    if lighter > cv2.norm(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, wide)):
        grey = cv2.bitwise_not(grey)
    background = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, wide)
    return np.asarray(cv2.divide(grey, cv2.max(background, 1), scale=255))


PART_VIEWS: tuple[View, ...] = (middle, trimmed, middle_rows, middle_columns)
VIEWS: tuple[View, ...] = (softened, extended, framed, levelled, *PART_VIEWS)
VIEW_WEIGHTS = {part.__name__: 0.5 for part in PART_VIEWS}  # a part may cut the digit
