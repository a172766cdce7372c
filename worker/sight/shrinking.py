"""Shrinks a picture by a whole factor, which is fast."""

import cv2
import numpy as np

from digitq.worker.picture import Grey


def shrink_by_factor(picture: Grey, scale: float) -> tuple[Grey, int]:
    """Shrink a picture by a whole factor, to less than twice the size that `scale` asks for.

    Returns it with the factor: 1 if nothing was to be done, and at most the shorter side. Each px
    is a mean. At the right and lower edges, fewer px than the factor are left out.
    """
    factor = min(int(1 / scale), *picture.shape)
    if factor < 2:
        return picture, 1
    height, width = (side // factor for side in picture.shape)
    part = picture[: height * factor, : width * factor]
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)), factor
