"""From colours to grey values in which the ink stands out, whatever its colour."""

import cv2
import numpy as np

from worker.decoding import Grey, Picture

SAMPLED_SIDE = 48  # px: as many pixels say what the colours of an image are
LEAST_CHROMA = 24  # between a pixel's channels, under which it counts as grey
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


def to_grey(picture: Picture) -> Grey:
    """Grey values 0..255: (height, width) or (height, width, 3) → (height, width)."""
    return picture if picture.ndim == 2 else project_colours(picture)


def project_colours(image: Picture) -> Grey:
    """Grey values along the line through the colours of ground and ink.

    (height, width, 3) → (height, width). The line is the principal component of the colours about
    that of the ground: ink as light as its paper still stands out by its colour.
    """
    few = cv2.resize(image, (SAMPLED_SIDE, SAMPLED_SIDE), interpolation=cv2.INTER_NEAREST)
    red, green, blue = cv2.split(few)
    chroma = max(cv2.norm(red, green, cv2.NORM_INF), cv2.norm(green, blue, cv2.NORM_INF))
    if chroma < LEAST_CHROMA:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    edge = np.concatenate([few[0], few[-1], few[:, 0], few[:, -1]])
    ground = np.median(edge, axis=0)
    away = few.reshape(-1, 3).astype(np.float32) - ground.astype(np.float32)
    axis = np.linalg.eigh(away.T @ away)[1][:, -1]
    axis /= np.abs(axis).sum() * (1 if axis.sum() >= 0 else -1)
    along = few.reshape(-1, 3) @ axis
    offset = ground @ (LUMA - axis)  # the ground keeps its own grey value, where there is room
    offset = np.clip(offset, -along.min(), 255 - along.max())
    return np.asarray(cv2.transform(image, np.array([[*axis, offset]])))
