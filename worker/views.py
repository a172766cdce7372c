"""Other views of an image, for where the network is unsure of what it saw: test-time augmentation.

Each is a way round what the steps of `worker.images` get wrong now and then: grain and broken
strokes, a digit cut off at the edge, which of two colours is the ground, lines and ink around.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from worker.decoding import Picture
from worker.ground import border, shrink

View = Callable[[Picture], Picture]

SOFT = 0.025  # of the longer side: the blur's standard deviation
BEYOND = 0.15  # of it, past each edge
AROUND = 0.35  # of it, on each side
SEEN = 0.6  # of each side is the middle
SIDE = 128  # px: longer, an image is shrunk before it is blurred


def softened(picture: Picture) -> Picture:
    """Blurred: no grain, and broken strokes run together."""
    small = shrink(picture, SIDE)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), SOFT * max(small.shape[:2])))


def extended(picture: Picture) -> Picture:
    """Continued past its edges, each as it is there."""
    return surround(picture, BEYOND, cv2.BORDER_REPLICATE)


def framed(picture: Picture) -> Picture:
    """With more of its ground around, in the usual colour of its border."""
    ground = np.atleast_1d(np.median(border(picture), axis=0)).tolist()
    return surround(picture, AROUND, cv2.BORDER_CONSTANT, ground)


def surround(picture: Picture, share: float, kind: int, colour: Sequence[float] = ()) -> Picture:
    """An image with a share of its longer side around it."""
    width = round(share * max(picture.shape[:2])) + 1
    return np.asarray(cv2.copyMakeBorder(picture, width, width, width, width, kind, value=colour))


def middle(picture: Picture) -> Picture:
    """Without what lies around the middle."""
    height, width = picture.shape[:2]
    down, right = (int((1 - SEEN) / 2 * length) for length in (height, width))
    return picture[down : height - down, right : width - right].copy()


VIEWS: tuple[View, ...] = (softened, extended, framed, middle)
