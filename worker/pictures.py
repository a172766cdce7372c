"""The types of a picture, and the errors of one that can't be read."""

import textwrap

import numpy as np
from numpy.typing import NDArray

LINE = 90  # characters of a decoder's error


MIN_CONTRAST = 16  # grey values between ground and ink, under which an image is blank


Grey = NDArray[np.uint8]  # (height, width)


Picture = NDArray[np.uint8]  # grey, or (height, width, 3): red, green and blue


Mask = NDArray[np.uint8]  # (height, width), 0 or 1


class ImageError(Exception):
    """Raised when there is no digit to be had from an image; its text goes into the row."""


class TimeLimitError(ImageError):
    """Raised when an image takes too long."""


def describe(error: Exception) -> str:
    """An error's text, in a short line; its type where it has none."""
    return textwrap.shorten(str(error), LINE, placeholder=" …") or type(error).__name__
