"""From the bytes of a file to what the network sees: decode, then normalise."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from digitq.protocol.chunk import ARRAY, PIXELS, Reason
from digitq.worker.picture import INPUT_SIDE, Grey, ImageError
from digitq.worker.sight.decoding.any_file import has_more_pages, open_image
from digitq.worker.sight.limits import Watch
from digitq.worker.sight.normalisation.measuring import shrink
from digitq.worker.sight.normalisation.steps import FINE, Step, Views, trace_steps, trace_views

MAX_VIEW_SIDE = 1024  # px: an image whose longer side exceeds this is shrunk before its views


def trace_digit(content: bytes) -> Iterator[Step]:
    """Yield the grey values of a file and the result of each step. The last one is the digit.

    Raises `ImageError`.
    """
    if content.startswith(ARRAY):  # 28×28 pixels among files
        if len(content) != len(ARRAY) + PIXELS:
            raise ImageError("an array of another size")
        pixels = np.frombuffer(content, np.uint8, offset=len(ARRAY))
        return iter([Step("array", pixels.reshape(INPUT_SIDE, INPUT_SIDE))])
    review_reason: Reason = "pages" if has_more_pages(content) else ""
    return trace_steps(open_image(content, FINE[0]), review_reason)


def trace_other_views(content: bytes) -> Iterator[Views]:
    """The other views of a file, as `trace_views` gives them. Raises `ImageError`."""
    if content.startswith(ARRAY):
        return iter([{}])
    return trace_views(open_image(content, FINE[0], partial(shrink, side=MAX_VIEW_SIDE)))


def see_digit(content: bytes, watch: Watch) -> Grey | None:
    """The 28×28 pixels that the network sees of an image file; `None` if it can't be read."""
    watch.forget()
    try:
        with watch.running(), watch.on(0):
            *_, digit = trace_digit(content)
    except Exception:  # its row has the error
        return None
    return digit.image
