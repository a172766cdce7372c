"""From colours to grey values in which the ink stands out, whatever its colour."""

import cv2
import numpy as np

from worker.normalisation.measuring import border
from worker.pictures import Grey, Picture

SAMPLED_SIDE = 48  # px: a sample of 48×48 pixels stands for all colours of an image
SAMPLE_RIM = 10  # px: so near an edge, the sample may show a frame or a desk, and counts less
LUMA = (0.299, 0.587, 0.114)  # the weights of red, green and blue in ITU-R BT.601
SAMPLE_WEIGHTS = np.full((SAMPLED_SIDE, SAMPLED_SIDE, 3), 0.2, np.float32)
SAMPLE_WEIGHTS[SAMPLE_RIM:-SAMPLE_RIM, SAMPLE_RIM:-SAMPLE_RIM] = 1
OF_ONE_PIXEL = np.tile(np.array([1, 1, 0], np.uint8), SAMPLED_SIDE**2)[:-1]  # pairs of channels


def to_grey(picture: Picture) -> Grey:
    """Grey values 0..255: (height, width) or (height, width, 3) → (height, width)."""
    return picture if picture.ndim == 2 else project_colours(picture)


def project_colours(image: Picture) -> Grey:
    """Grey values along the line through the colours of ground and ink.

    (height, width, 3) → (height, width). The line is the principal component of the colours about
    that of the ground, so that ink which is as light as its paper still stands out by its colour.
    """
    few = cv2.resize(image, (SAMPLED_SIDE, SAMPLED_SIDE), interpolation=cv2.INTER_NEAREST)
    channels = few.reshape(-1)
    chroma = cv2.norm(cv2.absdiff(channels[:-1], channels[1:]), cv2.NORM_INF, OF_ONE_PIXEL)
    if chroma < 24:  # the image counts as grey
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    rim = border(few[SAMPLE_RIM:-SAMPLE_RIM, SAMPLE_RIM:-SAMPLE_RIM])
    background = np.sort(rim, axis=0)[len(rim) // 2].astype(np.float64)  # about the median
    away = cv2.subtract(few, (*background, 0.0), dtype=cv2.CV_32F)
    away = cv2.multiply(away, SAMPLE_WEIGHTS).reshape(-1, 3)
    axis = cv2.eigen(away.T @ away)[2][0]
    axis /= np.abs(axis).sum() * (1 if axis.sum() >= 0 else -1)
    along = few.reshape(-1, 3) @ axis
    offset = background @ (LUMA - axis)  # the ground keeps its own grey value if there is room
    offset = min(max(offset, -along.min()), 255 - along.max())
    return np.asarray(cv2.transform(image, np.array([[*axis, offset]])))
