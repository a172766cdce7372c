"""Perspective: points on another plane, and pictures of it."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import Grey

Points = NDArray[np.float64]  # (N, 2): x and y, px from the picture's edge
# OpenCV counts from the middle of the first pixel
HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])


def to_corners(box: Sequence[float]) -> Points:
    """The corners (4, 2) of a box, clockwise from the upper left one."""
    left, top, right, bottom = box
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def project(matrix: NDArray[np.float64], points: Points) -> Points:
    """Points (N, 2) by a homography (3, 3)."""
    mapped = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(mapped[:, :2] / mapped[:, 2:])


def warp(picture: Grey, matrix: NDArray[np.float64], size: tuple[int, int]) -> Grey:
    """The picture of width and height `size` whose px `matrix` (3, 3) puts into those of `picture`.

    Where it is smaller than the part that it shows, the pixels are means. What is outside of the
    picture is like its edge.
    """
    width, height = size
    corners = project(matrix, to_corners((0, 0, *size)))
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    ratio = float(max(sides[1] / width, sides[3] / width, sides[0] / height, sides[2] / height))
    factor = max(1, min(8, math.ceil(ratio - 0.5)))
    enlarged = matrix @ np.diag([1 / factor, 1 / factor, 1])
    seen = cv2.warpPerspective(
        picture,
        np.linalg.inv(HALF) @ enlarged @ HALF,
        (width * factor, height * factor),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if factor > 1:
        seen = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
    return np.asarray(seen)
