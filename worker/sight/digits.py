"""From the bytes of a file to what the network sees: decode, then normalise."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from protocol.chunk import ARRAY, PIXELS, Reason
from worker.sight.decoding.any_file import has_more_pages, open_image
from worker.sight.normalisation.measuring import shrink
from worker.sight.normalisation.steps import FINE, Step, Views, trace_steps, trace_views
from worker.sight.types import INPUT_SIDE, ImageError

PAGES: Reason = "pages"
MAX_VIEW_SIDE = 1024  # px: an image whose longer side exceeds this is shrunk before its views


def trace_digit(content: bytes) -> Iterator[Step]:
    """A file as it is read and after each step; the last is the digit. Raises `ImageError`."""
    if content.startswith(ARRAY):  # 28×28 pixels among files
        if len(content) != len(ARRAY) + PIXELS:
            raise ImageError("an array of another size")
        pixels = np.frombuffer(content, np.uint8, offset=len(ARRAY))
        return iter([Step("array", pixels.reshape(INPUT_SIDE, INPUT_SIDE))])
    review_reason: Reason = PAGES if has_more_pages(content) else ""
    return trace_steps(open_image(content, FINE[0]), review_reason)


def trace_other_views(content: bytes) -> Iterator[Views]:
    """The other views of a file, as `trace_views` gives them. Raises `ImageError`."""
    if content.startswith(ARRAY):
        return iter([{}])
    return trace_views(open_image(content, FINE[0], partial(shrink, side=MAX_VIEW_SIDE)))
