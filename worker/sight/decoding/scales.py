"""How much larger a picture is in its file than it was decoded."""

import numpy as np
from numpy.typing import NDArray

from digitq.worker.sight.decoding.pillow import measure_image

DECODED_SIDE = 700  # px: the shorter side of a number may be reduced to this, a page's to no less


def scale_to_file(content: bytes, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The (3, 3) matrix from px of a decoded picture of this shape to px of that in the file."""
    if max(shape[:2]) < DECODED_SIDE:  # only a large picture was reduced
        return np.eye(3)
    width, height = size_of(content, shape)
    return np.diag((width / shape[1], height / shape[0], 1.0))


def size_of(content: bytes, shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of the upright picture in a file; `shape` is that of the decoded one."""
    shorter, longer = sorted(measure_image(content))
    if shape[0] == shape[1]:  # if the file is nearly square, the longer side is unknown
        longer = shorter
    return (longer, shorter) if shape[1] > shape[0] else (shorter, longer)
