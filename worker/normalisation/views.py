"""Other views of an image, for where the network is unsure of what it saw: test-time augmentation.

Each is a way round what the steps get wrong now and then: grain and broken strokes, a digit cut off
at the edge, which of two colours is the ground, lines and ink around, shadows and desks.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from worker.normalisation.background import is_photo
from worker.normalisation.colours import to_grey
from worker.normalisation.measuring import border, order, shrink
from worker.pictures import ImageError, Picture

View = Callable[[Picture], Picture]

SOFT = 0.025  # of the longer side: the blur's standard deviation
BEYOND = 0.15  # of it, past each edge
FRAME_SHARE = 0.35  # of it, on each side
MIDDLE_CUT, TRIM_CUT, ROWS_CUT = 0.2, 0.1, 0.15  # of a side, left out at each of its ends
SEEN = 1 - 2 * MIDDLE_CUT  # of a side, at the least
SOFTENED_SIDE = 128  # px: longer, an image is shrunk before it is blurred
LEVELLED_SIDE = 192  # px: the same before it is levelled
WIDE_STROKE = np.ones((11, 11), np.uint8)  # of these: what is as wide or wider is no stroke


def softened(picture: Picture) -> Picture:
    """Blurred: no grain, and broken strokes run together."""
    small = shrink(picture, SOFTENED_SIDE)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), SOFT * max(small.shape[:2])))


def extended(picture: Picture) -> Picture:
    """Continued past its edges, each as it is there."""
    return surround(picture, BEYOND, cv2.BORDER_REPLICATE)


def framed(picture: Picture) -> Picture:
    """With more of its ground around, in the usual colour of its border."""
    background = np.atleast_1d(np.median(border(picture), axis=0)).tolist()
    return surround(picture, FRAME_SHARE, cv2.BORDER_CONSTANT, background)


def surround(picture: Picture, share: float, kind: int, colour: Sequence[float] = ()) -> Picture:
    """An image with a share of its longer side around it."""
    width = round(share * max(picture.shape[:2])) + 1
    return np.asarray(cv2.copyMakeBorder(picture, width, width, width, width, kind, value=colour))


def middle(picture: Picture) -> Picture:
    """Without what lies around the middle."""
    return inner(picture, MIDDLE_CUT, MIDDLE_CUT)


def trimmed(picture: Picture) -> Picture:
    """Without its edges."""
    return inner(picture, TRIM_CUT, TRIM_CUT)


def middle_rows(picture: Picture) -> Picture:
    """Without what lies above and below."""
    return inner(picture, ROWS_CUT, 0)


def middle_columns(picture: Picture) -> Picture:
    """Without what lies at the sides."""
    return inner(picture, 0, ROWS_CUT)


def inner(picture: Picture, ends: float, sides: float) -> Picture:
    """Without a share of its height at each end, and of its width at each side."""
    height, width = picture.shape[:2]
    top, left = int(ends * height), int(sides * width)
    return picture[top : height - top, left : width - left].copy()


def levelled(picture: Picture) -> Picture:
    """Without what is wider than thin strokes: the light, shadows and their edges, a desk.

    Raises `ImageError` for a drawing: it has none of these, and may be in thick strokes.
    """
    grey = to_grey(shrink(picture, LEVELLED_SIDE))
    if not is_photo(order(grey)):
        raise ImageError("no light falls on a drawing")
    lighter, darker = (
        cv2.norm(cv2.morphologyEx(grey, kind, WIDE_STROKE))
        for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)
    )
    if lighter > darker:
        grey = cv2.bitwise_not(grey)
    background = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, WIDE_STROKE)
    return np.asarray(cv2.divide(grey, cv2.max(background, 1), scale=255))


PART_VIEWS: tuple[View, ...] = (middle, trimmed, middle_rows, middle_columns)
VIEWS: tuple[View, ...] = (softened, extended, framed, levelled, *PART_VIEWS)
VIEW_WEIGHTS = {
    part.__name__: 0.5 for part in PART_VIEWS
}  # 1 is the others': a part may lack some digit
