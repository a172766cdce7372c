"""The types of a picture, and the errors of an image that can't be read."""

import textwrap

import numpy as np
from numpy.typing import NDArray

MAX_ERROR_CHARACTERS = 90  # a longer error text of a library is cut
MIN_CONTRAST = 16  # an image with less between background and ink, in grey values, is blank

Grey = NDArray[np.uint8]  # (height, width)
Picture = NDArray[np.uint8]  # grey, or (height, width, 3): red, green and blue
Mask = NDArray[np.uint8]  # (height, width), 0 or 1


class ImageError(Exception):
    """Raised if no digit can be read from an image; its text becomes the error of the row."""


class TimeLimitError(ImageError):
    """Raised if an image takes too long."""


def describe(error: Exception) -> str:
    """An error's text on one line of limited length, or its type if it has no text."""
    return (
        textwrap.shorten(str(error), MAX_ERROR_CHARACTERS, placeholder=" …") or type(error).__name__
    )
