"""Runs the steps on an image: coarsely first, then more closely or on a part, if need be.

Docstrings of steps and rules say what they are worth: how `cnn` of December 2026 reads rendered
pictures without them, 100 to 300 pictures of a kind.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.chunk import Reason
from digitq.worker.picture import Grey, ImageError, Picture, TimeLimitError
from digitq.worker.sight.normalisation.background import extract_ink
from digitq.worker.sight.normalisation.colours import to_grey
from digitq.worker.sight.normalisation.doubts import find_review_reason
from digitq.worker.sight.normalisation.lines import remove_lines
from digitq.worker.sight.normalisation.measuring import shrink
from digitq.worker.sight.normalisation.panels import (
    Corners,
    Region,
    find_panel,
    find_sheet,
    surroundings,
)
from digitq.worker.sight.normalisation.placing import (
    centre,
    crop,
    dilate_thin_strokes,
    is_normalised,
    scale,
)
from digitq.worker.sight.normalisation.shapes import fill_outline, select_digit
from digitq.worker.sight.normalisation.views import MIN_VIEW_SHARE, VIEWS

COARSE = (56, 64)  # px: the least shorter side after decoding, the longer side after shrinking
FINE = (448, 128)  # px: the same for later looks, if the first shows no digit or a small one
SCALES = {"grey": COARSE, "closer": FINE, "cut out": FINE}  # the key names a look's first step
MAX_STRIP_ASPECT = 5  # a strip with a higher ratio of sides is shrunk by its width, not its length
SMALL_DIGIT_SIDE = 14  # px: a digit whose longer side is less gets a closer look
WHOLE = (0.0, 1.0, 0.0, 1.0)  # the region of a whole image

Views = dict[str, Grey]  # name of a view → 28×28, as the network sees it
DecodeAt = Callable[[int], Picture]  # decodes the image; its argument is the least shorter side


class Step(NamedTuple):
    """An image after a step."""

    name: str
    image: Grey
    review_reason: Reason = ""  # why a person should look at the image, however sure the network is


def trace_views(decode: DecodeAt) -> Iterator[Views]:
    """Yield one growing dictionary after each step: the views that are done and show a digit.

    It stays empty for an image that is like MNIST's. Raises `TimeLimitError`.
    """
    views: Views = {}
    see = cache(lambda side: decode(ceil(side / MIN_VIEW_SHARE)))
    grey = to_grey(shrink(see(COARSE[0]), COARSE[1]))
    if not is_normalised(grey):
        region = find_sheet(grey) or WHOLE
        look = cache(lambda side: cut(see(side), region))
        for name, view in VIEWS.items():
            try:
                for step in trace_steps(partial(lambda view, side: view(look(side)), view)):
                    seen = step.image
                    yield views
            except TimeLimitError:  # without it, the answer would depend on the machine's speed
                raise
            except Exception:  # a view may break a step, but not the other views
                continue
            views[name] = seen
    yield views


def normalise(picture: Picture) -> Grey:
    """The digit of a picture, 28×28. Raises `ImageError`."""
    *_, last = trace_steps(lambda side: picture)
    return last.image


def trace_steps(decode: DecodeAt, doubted: Reason = "") -> Iterator[Step]:
    """Yield the image as shrunk grey values and after each step, with a reason to doubt it or "".

    The first look is coarse. The next one is at a sheet or panel alone, or else closer if there is
    no digit or a small one. If it is still small, the last look is at the digit alone; the coarse
    look may show only a blot of its thin strokes. Raises `ImageError`.
    """
    region: Region | Corners = WHOLE
    review_reason, seen = doubted, 0
    for look, (shorter, longer) in SCALES.items():
        if shorter != seen:
            picture, seen = decode(shorter), shorter
        height, width = picture.shape[:2]
        is_original = min(height, width) < shorter and max(height, width) <= longer  # never shrunk
        review_reason = doubted if region == WHOLE else review_reason  # a better look replaces it
        part = cut(picture, region)
        aspect = max(part.shape[:2]) / min(part.shape[:2])
        grey = to_grey(shrink(part, max(longer, round(longer / MAX_STRIP_ASPECT * aspect))))
        yield Step(look, grey, review_reason)
        if is_normalised(grey):
            return
        if region == WHOLE and (sheet := find_sheet(grey)):
            region = sheet
            continue
        try:
            for step in STEPS:
                before, grey = grey, step(grey)
                review_reason = review_reason or find_review_reason(step, before, grey)
                yield Step(step.__name__, grey, review_reason)
                if region == WHOLE and step is extract_ink and (panel := find_panel(grey)):
                    region = panel
                    break
                is_small = step is crop and not is_original and max(grey.shape) < SMALL_DIGIT_SIDE
                if region == WHOLE and is_small:
                    region = WHOLE if look == "grey" else surroundings(before)
                    break
            else:
                return
        except ImageError as error:  # shrinking may make a thin stroke too pale
            if is_original or look != "grey" or isinstance(error, TimeLimitError):
                raise


def cut(picture: Picture, region: Region | Corners) -> Picture:
    """A part of an image, of at least 1 px."""
    if region == WHOLE:
        return picture
    height, width = picture.shape[:2]
    if isinstance(region[0], tuple):
        return rectify(picture, np.multiply(region, (width, height)).astype(np.float32))
    top, bottom, left, right = np.multiply(region, (height, height, width, width))
    return picture[int(top) : ceil(bottom), int(left) : ceil(right)].copy()


def rectify(picture: Picture, corners: NDArray[np.float32]) -> Picture:
    """The rectangle between four corners, (4, 2): x and y in px, clockwise from the upper left."""
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)  # the left side first
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
