"""Finds the line of the number in a picture, and what else is written there."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.chunk import Reason
from digitq.worker.models.number_networks import COLUMNS_SIZE, NumberReader
from digitq.worker.picture import Grey
from digitq.worker.sight.numbers.finding import (
    Candidates,
    doubt_faint_ones,
    find_candidates,
    find_median,
)
from digitq.worker.sight.numbers.line_strip import place_line, read_strip, turn
from digitq.worker.sight.numbers.strikes import erase, find_strike
from digitq.worker.sight.numbers.text_line import choose_line, has_wide_gap, measure_tilt

FIRST_LOOK = 48  # px: the shorter side at which a picture is first searched
MIN_ZOOM, MAX_ZOOM = 1.2, 3.0  # the scale grows from look to look by a factor between these
MAX_LOOK_AREA = 300_000  # px: a picture is searched at this area at most
MAX_SCALE = 2.5  # a small picture is enlarged by this factor at most
MIN_MORE_SEEN = 0.5  # a closer look counts if it shows this many more clear digits
CLEAR = 0.5  # a candidate with at least this chance counts as a clear digit
MIN_HEIGHT = 12  # px: if the digits are smaller, a closer look may find more of them
GOOD_HEIGHT = 16  # px: small digits are enlarged to this height
UNSEEN_HEIGHT = 10  # px: the assumed height of digits that can't be seen at the picture's own scale
MIN_TILT = 12  # degrees: the picture is turned if the line is tilted by more than this
MAX_SLANT = 20  # degrees: a line that seems to be tilted by less may be one of slanted digits
MAX_TURNED_SIDE = 2000  # px: a longer picture is not turned
OTHER_HEIGHT = 0.45  # other writing counts if it has at least this share of the digits' height
SLASH_HEIGHT = 1.2  # a 1 that is this many times as high as the line's digits may be a slash

Find = Callable[[Grey, float], Candidates]  # finds candidates in a picture, at a scale


class FoundLine(NamedTuple):
    """The line of the number in a picture, which was turned if that line is tilted."""

    picture: Grey
    to_original: NDArray[np.float64]  # (2, 3): from its px to px of the picture that was not turned
    candidates: Candidates  # all that are in the picture
    line: Candidates  # the digits of the number, from left to right
    is_struck: bool = False  # whether something is struck out, which may be the number


def find_line(reader: NumberReader, picture: Grey) -> FoundLine:
    """Find the number's line; it has no candidates if there is nothing like a digit.

    If the line is tilted, the picture is turned and searched again. If a number is struck out, the
    picture is searched without it; if there is no other one, it is the line.
    """
    find = partial(find_candidates, reader.detector)
    found, line = search(find, picture)
    to_original = np.eye(2, 3)
    tilt = measure_tilt(found, line)
    if abs(tilt) > MIN_TILT and max(picture.shape) <= MAX_TURNED_SIDE:
        turned, matrix = turn(picture, tilt)
        again, level = search(find, turned)
        if is_better(reader, (turned, level), (picture, line), abs(tilt)):
            picture, found, line = turned, again, level
            to_original = cv2.invertAffineTransform(matrix)
    strike = find_strike(picture, line)
    erased = None if strike is None else erase(picture, line, strike)
    if erased is not None:
        rest, anew = search(find, erased)
        if anew.chances.max(initial=0) >= CLEAR:
            picture, found, line = erased, rest, anew
    line = doubt_faint_ones(picture, line)
    return FoundLine(picture, to_original, found, line, strike is not None)


def is_better(
    reader: NumberReader,
    after: tuple[Grey, Candidates],
    before: tuple[Grey, Candidates],
    tilt: float,
) -> bool:
    """Whether a picture shows its line better after it was turned by so many degrees.

    It must show more clear digits. A small tilt may be the slant of some digits: then the columns
    must also be surer of what they read.
    """
    new, old = (float(line.likely(CLEAR).chances.sum()) for _, line in (after, before))
    if new <= old or tilt > MAX_SLANT:
        return new > old
    new, old = (
        float(read_strip(reader.columns, picture, place_line(line), COLUMNS_SIZE)[0].max(0).sum())
        for picture, line in (after, before)
    )
    return new > old


def search(find: Find, picture: Grey) -> tuple[Candidates, Candidates]:
    """The candidates in the picture, and those of the best line.

    The scale grows until the line is clear. After the first look, a picture is enlarged only if its
    digits are small or can't be seen.
    """
    max_scale = min(MAX_SCALE, math.sqrt(MAX_LOOK_AREA / picture.size))
    best: tuple[Candidates, Candidates] | None = None
    most_seen = 0.0
    scale = min(max_scale, FIRST_LOOK / min(picture.shape))
    while True:
        found = find(picture, scale)
        line = choose_line(found)
        clear = line.likely(CLEAR)
        if best is None or clear.chances.sum() > most_seen + MIN_MORE_SEEN:
            best, most_seen = (found, line), float(clear.chances.sum())
        heights = clear.heights.clip(1)
        unseen = UNSEEN_HEIGHT if MIN_ZOOM * scale > 1 else GOOD_HEIGHT
        usual = find_median(heights) if len(heights) else unseen
        closer = min(max_scale, MAX_ZOOM * scale, max(1.0, GOOD_HEIGHT / usual))
        is_large = len(heights) > 0 and usual * scale >= MIN_HEIGHT
        if is_large or closer < MIN_ZOOM * scale:
            return best
        scale = closer


def find_others(found: Candidates, line: Candidates, height: float, has_slash: bool) -> Reason:
    """What is written besides the number, nearly as tall: other digits, or other signs.

    If the columns show a slash, they tell it from a 1.
    """
    is_tall = found.heights >= OTHER_HEIGHT * height
    if (is_tall & (found.others >= CLEAR)).any():
        return "other signs"
    low, high = line.boxes[:, :2].min(0), line.boxes[:, 2:].max(0)
    beside = ((found.middles < low) | (found.middles > high)).any(1)
    is_other = (is_tall & beside & (found.chances >= CLEAR)).any()
    clear = line.likely(CLEAR)
    if is_other or has_wide_gap(clear.boxes, height):
        return "several lines"
    may_be_slash = (clear.digits.argmax(1) == 1) & (clear.heights > SLASH_HEIGHT * height)
    # a slash is never the first sign
    return "other signs" if may_be_slash[1:].any() and not has_slash else ""
