"""The types of a picture, and the errors of one that can't be read."""

import textwrap

import numpy as np
from numpy.typing import NDArray

SIDE = 28  # px: height and width of what a network sees
MIN_CONTRAST = 16  # grey values between ground and ink: an image with less is blank

Grey = NDArray[np.uint8]  # (height, width)
Picture = NDArray[np.uint8]  # grey, or (height, width, 3): red, green and blue
Mask = NDArray[np.uint8]  # (height, width), 0 or 1


class ImageError(Exception):
    """Raised when no digit can be read from an image; its text is the row's error."""


class TimeLimitError(ImageError):
    """Raised when an image takes too long."""


def describe(error: Exception) -> str:
    """An error's text in one line of at most 90 characters, or the name of its type."""
    return textwrap.shorten(str(error), 90, placeholder=" …") or type(error).__name__
