"""Other views of an image, for where the network is unsure of what it saw: test-time augmentation.

Each is a way round what the steps of `worker.images` get wrong now and then: grain and broken
strokes, a digit cut off at the edge, which of two colours is the ground, lines and ink around.
"""

from collections.abc import Callable

import cv2
import numpy as np

from worker.decoding import Grey
from worker.ground import border, shrink

View = Callable[[Grey], Grey]

SOFT = 0.025  # of the longer side: the blur's standard deviation
BEYOND = 0.15  # of it, past each edge
AROUND = 0.35  # of it, on each side
OFF = 0.2  # of each side, at both of its ends
SIDE = 128  # px: longer, an image is shrunk before it is blurred


def softened(grey: Grey) -> Grey:
    """Blurred: no grain, and broken strokes run together."""
    small = shrink(grey, SIDE)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), SOFT * max(small.shape)))


def extended(grey: Grey) -> Grey:
    """Continued past its edges, each as it is there."""
    return np.pad(grey, round(BEYOND * max(grey.shape)) + 1, "edge")


def framed(grey: Grey) -> Grey:
    """With more of its ground around, in the usual colour of its border."""
    ground = int(np.median(border(grey)))
    return np.pad(grey, round(AROUND * max(grey.shape)) + 1, constant_values=ground)


def middle(grey: Grey) -> Grey:
    """Without what lies around the middle."""
    down, right = (int(OFF * length) for length in grey.shape)
    return grey[down : grey.shape[0] - down, right : grey.shape[1] - right].copy()


VIEWS: tuple[View, ...] = (softened, extended, framed, middle)
