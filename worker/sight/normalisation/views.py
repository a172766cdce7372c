"""Changes a picture in eight ways, for when the network is unsure (test-time augmentation)."""

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np

from digitq.worker.picture import ImageError, Picture
from digitq.worker.sight.normalisation.background import is_photo
from digitq.worker.sight.normalisation.colours import to_grey
from digitq.worker.sight.normalisation.measuring import border, ones, shrink, sort_pixels

View = Callable[[Picture], Picture]

MIN_VIEW_SHARE = 0.6  # a view shows at least this share of a side
PARTS = {  # the shares that a view lacks: of the height at top and bottom, of the width beside
    "middle": (0.2, 0.2),
    "trimmed": (0.1, 0.1),
    "middle_rows": (0.15, 0.0),
    "middle_columns": (0.0, 0.15),
}
SOFTENED_SIDE, SOFTENED_SIGMA = 128, 0.025  # px, and a share of the longer side
EXTENDED_MARGIN, FRAME = 0.15, 0.35  # these shares of the longer side are added at each edge
LEVELLED_SIDE = 192  # px: a photo is levelled with a longer side of at most this
MAX_THIN_STROKE = 11  # px: what is wider in a levelled photo counts as background


def softened(picture: Picture) -> Picture:
    """The picture blurred: grain disappears, and broken strokes join."""
    small = shrink(picture, SOFTENED_SIDE)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), SOFTENED_SIGMA * max(small.shape[:2])))


def extended(picture: Picture) -> Picture:
    """The picture continued past its edges."""
    return surround(picture, EXTENDED_MARGIN, cv2.BORDER_REPLICATE)


def framed(picture: Picture) -> Picture:
    """The picture in a wide frame, whose colour is the median of its border."""
    background = np.atleast_1d(np.median(border(picture), axis=0)).tolist()
    return surround(picture, FRAME, cv2.BORDER_CONSTANT, background)


def surround(picture: Picture, share: float, kind: int, colour: Sequence[float] = ()) -> Picture:
    """Add this share of the longer side at each edge."""
    width = round(share * max(picture.shape[:2])) + 1
    return np.asarray(cv2.copyMakeBorder(picture, width, width, width, width, kind, value=colour))


def cut_off(picture: Picture, ends: float, sides: float) -> Picture:
    """The picture without a share of its height at the top and bottom, and of its width beside."""
    height, width = picture.shape[:2]
    top, left = int(ends * height), int(sides * width)
    return picture[top : height - top, left : width - left].copy()


def levelled(picture: Picture) -> Picture:
    """A photo without anything wider than thin strokes. Raises `ImageError` for a drawing."""
    grey = to_grey(shrink(picture, LEVELLED_SIDE))
    if not is_photo(sort_pixels(grey)):
        raise ImageError("no light falls on a drawing")
    wide = ones(MAX_THIN_STROKE, MAX_THIN_STROKE)
    lighter = cv2.norm(cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, wide))
    if lighter > cv2.norm(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, wide)):
        grey = cv2.bitwise_not(grey)
    background = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, wide)
    return np.asarray(cv2.divide(grey, cv2.max(background, 1), scale=255))


# Without views, 67 instead of 94 % of the sheets that are seen aslant are right
VIEWS: dict[str, View] = {
    "softened": softened,
    "extended": extended,
    "framed": framed,
    "levelled": levelled,
    **{name: partial(cut_off, ends=ends, sides=sides) for name, (ends, sides) in PARTS.items()},
}
VIEW_WEIGHTS = dict.fromkeys(PARTS, 0.5)  # a part counts half, because it may cut the digit
