"""The types of a picture, and the errors of an image that can't be read."""

import textwrap

import numpy as np
from numpy.typing import NDArray

INPUT_SIDE = 28  # px: height and width of what a network sees
MIN_CONTRAST = 16  # an image with less between background and ink, in grey values, is blank

Grey = NDArray[np.uint8]  # (height, width)
Picture = NDArray[np.uint8]  # grey, or (height, width, 3): red, green and blue
Mask = NDArray[np.uint8]  # (height, width), 0 or 1


class ImageError(Exception):
    """Raised if no digit can be read from an image; its text becomes the error of the row."""


class TimeLimitError(ImageError):
    """Raised if an image takes too long."""


def describe(error: Exception) -> str:
    """An error's text on one line of at most 90 characters, or its type if it has none."""
    return textwrap.shorten(str(error), 90, placeholder=" …") or type(error).__name__


def error_of_row(error: Exception) -> str:
    """The error of an image's row: whatever was raised while it was read is the image's error."""
    if isinstance(error, ImageError):
        return str(error)
    is_memory = isinstance(error, MemoryError)
    return "needs too much memory" if is_memory else f"can't be read: {describe(error)}"
