"""From an image to the 28×28 that the network was trained on.

The last steps are those of the MNIST authors (yann.lecun.com/exdb/mnist); the others separate the
digit from paper, shadow, lines and neighbours.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.chunk import Reason
from worker.normalisation.background import extract_ink
from worker.normalisation.colours import to_grey
from worker.normalisation.doubts import find_review_reason
from worker.normalisation.lines import remove_lines
from worker.normalisation.measuring import shrink
from worker.normalisation.panels import Corners, Window, find_panel, find_sheet, surroundings
from worker.normalisation.placing import centre, crop, dilate_thin_strokes, is_normalised, scale
from worker.normalisation.shapes import fill_outline, select_digit
from worker.normalisation.views import SEEN, VIEWS
from worker.pictures import Grey, ImageError, Picture, TimeLimitError

COARSE = (56, 64)  # px: the least shorter side to decode to, and the longer side to shrink to
FINE = (448, 128)  # the same if the first look finds no digit, or a small one
SCALES = {"grey": COARSE, "closer": FINE, "cut out": FINE}  # by the names of their first steps
MAX_VIEW_SIDE = 1024  # px: an image whose longer side exceeds this is shrunk before its views
MAX_STRIP_LENGTH = 5  # an image longer than this many times its width is shrunk by its width
SMALL_DIGIT_SIDE = 14  # px: a digit whose longer side is less is looked at again, more closely
WHOLE = (0.0, 1.0, 0.0, 1.0)

Views = dict[str, Grey]  # by name: 28×28, as the network sees them
Read = Callable[[int], Picture]  # gives an image whose shorter side has at least this many px


class Step(NamedTuple):
    """What an image is after a step."""

    name: str
    image: Grey
    review_reason: Reason = ""  # why a person should look at the image, however sure the network is


def trace_views(read: Read) -> Iterator[Views]:
    """After each step, those other views of an image that are done and show a digit.

    An image that is like MNIST's has none. All are in one dictionary that grows. Raises
    `TimeLimitError`.
    """
    views: Views = {}
    see = cache(lambda side: read(ceil(side / SEEN)))
    grey = to_grey(shrink(see(COARSE[0]), COARSE[1]))
    if not is_normalised(grey):
        window = find_sheet(grey) or WHOLE
        look = cache(lambda side: cut(see(side), window))
        for view in VIEWS:
            try:
                for step in trace_steps(partial(lambda view, side: view(look(side)), view)):
                    seen = step.image
                    yield views
            except TimeLimitError:  # without it, the answer would depend on the machine's speed
                raise
            except Exception:  # whatever a view does to a step, the others remain
                continue
            views[view.__name__] = seen
    yield views


def normalise(picture: Picture) -> Grey:
    """The digit of a picture, 28×28. Raises `ImageError`."""
    *_, last = trace_steps(lambda side: picture)
    return last.image


def trace_steps(read: Read, doubted: Reason = "") -> Iterator[Step]:
    """The image as "grey", shrunk, and after each step, with a reason to doubt it, if any.

    The first look is coarse. The next one is at a sheet or a panel alone if there is one, or closer
    if there is no digit or a small one. Only the last look is at a small digit alone: of a digit in
    thin strokes, a coarse look may show no more than a blot. Raises `ImageError`.
    """
    window: Window | Corners = WHOLE
    review_reason, seen = doubted, 0
    for look, (shorter, longer) in SCALES.items():
        if shorter != seen:
            picture, seen = read(shorter), shorter
        height, width = picture.shape[:2]
        all_seen = min(height, width) < shorter and max(height, width) <= longer
        review_reason = doubted if window == WHOLE else review_reason  # a better look at all
        part = cut(picture, window)
        slender = max(part.shape[:2]) / min(part.shape[:2])
        grey = to_grey(shrink(part, max(longer, round(longer / MAX_STRIP_LENGTH * slender))))
        yield Step(look, grey, review_reason)
        if is_normalised(grey):
            return
        if window == WHOLE and (sheet := find_sheet(grey)):
            window = sheet
            continue
        try:
            for step in STEPS:
                before, grey = grey, step(grey)
                review_reason = review_reason or find_review_reason(step, before, grey)
                yield Step(step.__name__, grey, review_reason)
                if window == WHOLE and step is extract_ink and (panel := find_panel(grey)):
                    window = panel
                    break
                is_small = step is crop and not all_seen and max(grey.shape) < SMALL_DIGIT_SIDE
                if window == WHOLE and is_small:
                    window = WHOLE if look == "grey" else surroundings(before)
                    break
            else:
                return
        except ImageError as error:  # a thin stroke may be too pale once it is shrunk
            if all_seen or look != "grey" or isinstance(error, TimeLimitError):
                raise


def cut(picture: Picture, window: Window | Corners) -> Picture:
    """A part of an image; it is never empty."""
    if window == WHOLE:
        return picture
    height, width = picture.shape[:2]
    if isinstance(window[0], tuple):
        return rectify(picture, np.multiply(window, (width, height)).astype(np.float32))
    top, bottom, left, right = np.multiply(window, (height, height, width, width))
    return picture[int(top) : ceil(bottom), int(left) : ceil(right)].copy()


def rectify(picture: Picture, corners: NDArray[np.float32]) -> Picture:
    """The rectangle between four corners, (4, 2), in px, clockwise from the upper left one."""
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)  # the left one first
    height, width = (max(1, round(max(pair))) for pair in (sides[::2], sides[1::2]))
    rectangle = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    transform = cv2.getPerspectiveTransform(corners, rectangle)
    return cv2.warpPerspective(picture, transform, (width, height))


STEPS = (
    extract_ink,
    remove_lines,
    fill_outline,
    select_digit,
    crop,
    dilate_thin_strokes,
    scale,
    centre,
)
