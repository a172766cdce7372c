"""From the grey values of an image to the 28×28 that the network was trained on.

The last steps are those of the MNIST authors: the digit, light on dark, is scaled into a 20×20
box and placed so that its centre of mass is the centre of the 28×28 image
(yann.lecun.com/exdb/mnist). Those before part it from paper, shadow, lines and neighbours.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.normalisation.background import extract_ink
from worker.normalisation.colours import to_grey
from worker.normalisation.doubts import is_digit_above, is_digit_dropped, is_digit_within
from worker.normalisation.lines import remove_lines
from worker.normalisation.measuring import shrink
from worker.normalisation.outlines import fill_outline
from worker.normalisation.panels import Corners, Window, find_panel, find_sheet
from worker.normalisation.placing import (
    box_of,
    centre,
    crop,
    dilate_thin_strokes,
    is_normalised,
    is_solid,
    scale,
)
from worker.normalisation.shapes import select_digit
from worker.normalisation.views import SEEN, VIEWS, View
from worker.pictures import Grey, ImageError, Picture, TimeLimitError

COARSE = (56, 64)  # px: the least shorter side to decode to, and the longer side to shrink to
FINE = (448, 128)  # the same where a glance finds nothing, or a small digit
SCALES = {"grey": COARSE, "closer": FINE, "cut out": FINE}  # by the names of their first steps
FIRST = "grey"
MAX_VIEW_SIDE = 1024  # px: the longer side of an image, or less, of which there are other views
MAX_STRIP_LENGTH = 5  # times as long as wide is a strip: its width stays as it is in one so long
SMALL_DIGIT_SIDE = 14  # px: the longer side of a digit that is looked at closer
CUT_OUT_MARGIN = 0.5  # of its longer side, left around a digit that is small even then
WHOLE = (0.0, 1.0, 0.0, 1.0)

ANOTHER = "another shape there may be a digit too"
SOLID = "it is too solid for strokes"

Views = dict[str, Grey]  # by name: 28×28, as the network sees them
Read = Callable[[int], Picture]  # an image, its shorter side so many px or longer


class Step(NamedTuple):
    """What an image is after a step."""

    name: str
    image: Grey
    review_reason: str = ""  # why a person should look at the image, however sure the network is


def trace_views(read: Read) -> Iterator[Views]:
    """After each step, those of the other views of an image that are done and show a digit: one
    dictionary that grows.

    There are none of an image that is as MNIST's are; those of a sheet on a desk are of the sheet.
    `read` gives the image as to `trace_steps`. Raises `TimeLimitError`.
    """
    views: Views = {}
    see = cache(lambda side: read(ceil(side / SEEN)))
    grey = to_grey(shrink(see(COARSE[0]), COARSE[1]))
    if not is_normalised(grey):
        window = find_sheet(grey) or WHOLE
        look = cache(lambda side: cut(see(side), window))
        for view in VIEWS:
            try:
                for step in trace_steps(partial(_look_at, view, look)):
                    seen = step.image
                    yield views
            except TimeLimitError:  # else the answer would depend on the machine's speed
                raise
            except Exception:  # whatever a view does to a step, the others are there
                continue
            views[view.__name__] = seen
    yield views


def _look_at(view: View, look: Read, side: int) -> Picture:
    return view(look(side))


def normalise(picture: Picture) -> Grey:
    """Every step in turn, where they are needed: 28×28. Raises `ImageError`."""
    *_, last = trace_steps(lambda side: picture)
    return last.image


def trace_steps(read: Read, doubted: str = "") -> Iterator[Step]:
    """The image as "grey", shrunk, and what it is after each step, with why it was `doubted` before
    or what gives reason to doubt it now.

    `read` gives it with a shorter side of so many px, or longer, but for a very long one. Where a
    glance finds a small digit or none, there is a closer look, from the first step on; where the
    digit still is small, there is one at it alone: only then, since at a glance a blot may be all
    there is of a digit in thin strokes. What is on a panel is looked at without what is
    around that. Raises `ImageError`.
    """
    window: Window | Corners = WHOLE
    review_reason, seen = doubted, 0
    for look, (shorter, longer) in SCALES.items():
        at_a_glance = look == FIRST
        if shorter != seen:
            picture, seen = read(shorter), shorter
        height, width = picture.shape[:2]
        all_seen = min(height, width) < shorter and max(height, width) <= longer
        review_reason = (
            doubted if window == WHOLE else review_reason
        )  # all is seen again, and better
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
                review_reason = review_reason or (
                    find_review_reason(step, before, grey) if step in DOUBTED else ""
                )
                yield Step(step.__name__, grey, review_reason)
                if window == WHOLE and step is extract_ink and (panel := find_panel(grey)):
                    window = panel
                    break
                if (
                    window == WHOLE
                    and step is crop
                    and not all_seen
                    and max(grey.shape) < SMALL_DIGIT_SIDE
                ):
                    window = WHOLE if at_a_glance else surroundings(before)
                    break
            else:
                return
        except ImageError as error:  # a thin stroke may be too pale once it is shrunk
            if all_seen or not at_a_glance or isinstance(error, TimeLimitError):
                raise


def find_review_reason(step: Callable[[Grey], Grey], before: Grey, after: Grey) -> str:
    """What gives reason to doubt an image once a step is taken; nothing where nothing does."""
    if step is select_digit:
        if after is before:  # as usual; it takes no time then
            return ""
        if is_digit_dropped(before, after) or is_digit_within(after) or is_digit_above(after):
            return ANOTHER
        return ""
    return SOLID if is_solid(after) else ""


def surroundings(ink: Grey) -> Window:
    """The part of the image that has the digit, and `CUT_OUT_MARGIN` around it."""
    left, top, width, height = box_of(ink)
    reach = (0.5 + CUT_OUT_MARGIN) * max(width, height)
    row, column = top + height / 2, left + width / 2
    return (
        max(0.0, (row - reach) / ink.shape[0]),
        min(1.0, (row + reach) / ink.shape[0]),
        max(0.0, (column - reach) / ink.shape[1]),
        min(1.0, (column + reach) / ink.shape[1]),
    )


def cut(picture: Picture, window: Window | Corners) -> Picture:
    """A part of an image; never empty."""
    if window == WHOLE:
        return picture
    height, width = picture.shape[:2]
    if isinstance(window[0], tuple):
        return rectify(picture, np.multiply(window, (width, height)).astype(np.float32))
    top, bottom, left, right = np.multiply(window, (height, height, width, width))
    return picture[int(top) : ceil(bottom), int(left) : ceil(right)].copy()


def rectify(picture: Picture, corners: NDArray[np.float32]) -> Picture:
    """What is between four corners, (4, 2), in px from the upper left on around, as a rectangle."""
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)  # the left one first
    height, width = (max(1, round(max(pair))) for pair in (sides[::2], sides[1::2]))
    rectangle = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    transform = cv2.getPerspectiveTransform(corners, rectangle)
    return cv2.warpPerspective(picture, transform, (width, height))


DOUBTED = (select_digit, centre)  # what they do may give reason to doubt
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
