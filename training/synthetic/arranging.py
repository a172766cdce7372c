"""Puts the digits of a number on a line or in cells, with the marks that people add."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from training.chance import Rng, pick, pick_by_weight
from training.synthetic.handwriting import Points, Shape, smooth
from training.synthetic.scenes import (
    crop,
    resize,
)
from training.synthetic.sheets import Bounds, Cells, print_text
from training.synthetic.writing import Hand, Sign, write_digit, write_fraction, write_mark

MAX_WIDTH = 480  # px, that a number is at most about wide
HEIGHTS = (14, 60)  # px, the least and the most of a digit
# How often a number has 1, 2, … 20 digits
LENGTH_WEIGHTS = dict(enumerate([5, 11, 13, 14, 13, 12, 9, 8, 5, 4, 2, 1.5, 1, *[0.4] * 7], 1))
SEPARATORS = ("comma", "comma", "point", "point", "apostrophe", "dash", "space", "space")
DATE_SEPARATORS = ("slash", "slash", "point", "point", "dash", "colon")
MARKS_BEFORE = (
    *("dollar", "dollar", "bars", "tipped", "slanted", "euro", "pound", "hash", "dash", "star"),
    *("equals", "open", "colon", "wave", "point", "cross", "long", "root", "root"),
)
MARKS_AFTER = (
    *("dash", "dash", *["slash"] * 4, *["steep"] * 3, "joined", "equals", "star", "point", "close"),
    *("percent", "hash", "wave", "tick", "comma", "long", "long"),
)
FRACTION_SHARE = 0.18  # this share of the numbers on a line ends in a fraction
FRACTION_TEXTS = (*["½"] * 5, "¼", "¾")
UNITS = (*["$"] * 7, "Rs.", "No", "#", "USD", "R$", "S/.")  # printed before numbers
EMPTY_CELLS = ("", "", "", "dash", "cross", "wave")  # what people write into them
FAR = 9999  # px, further than any sign


@dataclass(frozen=True)
class Line:
    """What is written, in px from the left end of a baseline."""

    signs: list[Sign]
    strokes: list[Points]  # (N, 2) each: ligatures, and what crosses out
    cells: Cells

    @property
    def digits(self) -> list[Sign]:
        """The signs that are no mark."""
        return [sign for sign in self.signs if sign.digit is not None]

    def moved(self, right: float, down: float) -> "Line":
        """Give a copy of it at another place."""
        x, y = round(right), round(down)
        return Line(
            [replace(sign, left=sign.left + x, top=sign.top + y) for sign in self.signs],
            [stroke + (x, y) for stroke in self.strokes],
            [(left + x, right + x) for left, right in self.cells],
        )


def choose_digits(rng: Rng) -> list[int]:
    """Draw a number of 1 to 20 digits: any, or an amount, a year, or one of equal digits."""
    length = pick_by_weight(LENGTH_WEIGHTS, rng)
    digits = rng.integers(0, 10, length)
    kind = rng.random()
    if kind < 0.2:  # an amount
        digits[length - min(length - 1, int(rng.integers(1, 7))) :] = 0
    elif kind < 0.27:
        digits = np.array([int(sign) for sign in str(rng.integers(1700, 2030))])
    elif kind < 0.33:
        digits[rng.random(length) < 0.8] = digits[0]
    elif kind < 0.37:
        digits[: rng.integers(1, length + 1)] = 0
    return [int(digit) for digit in digits]


def write_line(digits: list[int], height: float, hand: Hand, rng: Rng, fraction: str = "") -> Line:
    """Write the digits on a baseline, with marks before, between and after them, or a fraction."""
    signs: list[Sign] = []
    if rng.random() < 0.1:
        signs.append(print_unit(height, hand, rng))
    elif rng.random() < 0.12:
        _add_marks(signs, MARKS_BEFORE, height, hand, rng)
    elif rng.random() < 0.16:
        sign = write_mark(pick(("dash", "dash", "plus"), rng), height, hand, rng)
        append(signs, sign, height, 0)
    base, spread = choose_spacing(hand.pen, rng)
    separators = choose_separators(len(digits), rng)
    cents = rng.uniform(0.5, 0.8) if len(digits) > 3 and rng.random() < 0.05 else 0.0  # raised
    drift, bend = rng.normal(0, 0.02), rng.normal(0, 0.01)
    for number, digit in enumerate(digits):
        gap = base + rng.normal(0, spread)
        if (separator := separators.get(number)) == "space":
            gap += rng.uniform(0.3, 0.6)
        elif separator:
            tight = -0.05 if rng.random() < 0.25 else 0.03  # some marks touch a digit
            append(signs, write_mark(separator, height, hand, rng), height, rng.uniform(tight, 0.2))
            gap = max(gap, rng.uniform(tight, 0.1))
        along = number - len(digits) / 2
        raised = cents and number >= len(digits) - 2
        sign = write_digit(digit, height * (cents if raised else 1), hand, rng)
        if raised:
            sign = replace(sign, top=sign.top - round((1 - cents) * height))
        drop = (drift * along + bend * along**2 / max(1, len(digits) / 4)) * height
        append(signs, replace(sign, top=sign.top + round(drop)), height, gap)
    strokes = join(signs, height, rng) if base < 0.15 or rng.random() < 0.1 else []
    if fraction:
        append(signs, write_fraction(fraction, height, hand, rng), height, rng.uniform(-0.05, 0.35))
    else:
        _end_line(signs, height, hand, rng)
    return Line(signs, strokes, [])


def _end_line(signs: list[Sign], height: float, hand: Hand, rng: Rng) -> None:
    """Write marks or a percent sign after the digits; mostly nothing."""
    kind = rng.random()
    if kind < 0.16:
        _add_marks(signs, MARKS_AFTER, height, hand, rng)
    elif kind < 0.24:
        append(signs, write_mark("percent", height, hand, rng), height, rng.uniform(0, 0.3))


def choose_separators(digits: int, rng: Rng) -> dict[int, str]:
    """The marks between digits, by the index of the digit after them; often none.

    They are those of thousands, of a decimal, of a date or a time, or of a fraction.
    """
    kind = rng.random()
    if kind < 0.2:
        every, separator = pick((3, 3, 3, 2, 4), rng), pick(SEPARATORS, rng)
        return {at: separator for at in range(1, digits) if (digits - at) % every == 0}
    if kind < 0.4 and digits > 1:
        at = digits - int(rng.integers(1, min(digits, 4)))
        return {at: pick(("point", "point", "comma"), rng)}
    if kind < 0.5 and digits > 2:
        first, separator = int(rng.integers(1, 3)), pick(DATE_SEPARATORS, rng)
        return dict.fromkeys([at for at in (first, first + 2) if at < digits], separator)
    if kind < 0.54 and digits > 1:
        return {int(rng.integers(1, digits)): "slash"}
    return {}


def _add_marks(
    signs: list[Sign], names: Sequence[str], height: float, hand: Hand, rng: Rng
) -> None:
    name = pick(names, rng)
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.4:
            name = pick(names, rng)
        mark = write_mark(name, height, hand, rng)
        append(signs, mark, height, rng.uniform(0.05, 0.4))
        if name in ("slash", "steep"):  # alone it could be a 1
            name = "dash" if rng.random() < 0.7 else "equals"
            append(signs, write_mark(name, height, hand, rng), height, rng.uniform(0, 0.3))


def print_unit(height: float, hand: Hand, rng: Rng) -> Sign:
    """Print a sign of a currency or the like, in the middle of the line; its left is 0."""
    mask = crop(print_text(pick(UNITS, rng), 60, rng))
    mask = thicken(resize(mask, height * rng.uniform(0.8, 1.5)), hand.pen * height, rng)
    mask = (mask * np.float32(rng.uniform(0.5, 1))).astype(np.uint8)
    return Sign(mask, 0, round((rng.normal(0, 0.05) - 0.5) * height) - mask.shape[0] // 2)


def thicken(mask: Shape, pen: float, rng: Rng) -> Shape:
    """Make the strokes of print thicker, by up to about the width of a pen in px."""
    side = 1 + int(rng.uniform(0, 1) * pen)
    return cv2.dilate(cv2.copyMakeBorder(mask, side, side, side, side, 0), np.ones((side, side)))


def choose_spacing(pen: float, rng: Rng) -> tuple[float, float]:
    """The mean of the free space between two digits, in heights as `pen` is, and its deviation."""
    kind = rng.random()
    if kind < 0.34:  # they touch or overlap
        return rng.uniform(-1.2, 0.2) * pen, 0.4 * pen
    if kind < 0.75:
        return rng.uniform(0.04, 0.3), 0.05
    if kind < 0.95:
        return rng.uniform(0.3, 0.9), 0.1
    return rng.uniform(0.9, 2), 0.15


def append(signs: list[Sign], sign: Sign, height: float, gap: float) -> None:
    """Put the sign to the right of the others; their ink is about `gap` heights apart."""
    before = signs[-2:]  # a comma may be below the digit before it
    left = max((_left_beside(last, sign, gap * height) for last in before), default=0)
    signs.append(replace(sign, left=left))


def _left_beside(last: Sign, sign: Sign, gap: float) -> int:
    """Where a sign begins whose ink is `gap` px to the right of the last one's ink."""
    top, bottom = min(last.top, sign.top), max(last.bounds[3], sign.bounds[3])
    reach, start = np.full(bottom - top, -FAR), np.full(bottom - top, FAR)
    reach[last.top - top :][: len(last.mask)] = reach_right(last.mask)
    starts = sign.mask.shape[1] - reach_right(sign.mask[:, ::-1])
    start[sign.top - top :][: len(sign.mask)] = starts
    step = int((reach - start).max())  # at this step the ink of some row touches
    narrow = min(last.mask.shape[1], sign.mask.shape[1])
    least = last.mask.shape[1] - round(0.4 * narrow)
    return last.left + max(step + round(max(gap, -0.15 * narrow)), least)


def reach_right(mask: Shape) -> NDArray[np.int64]:
    """How far each row's ink reaches to the right, in px; far to the left if it has none."""
    inked = mask[:, ::-1] > 64
    return np.where(inked.any(axis=1), mask.shape[1] - inked.argmax(axis=1), -FAR)


def join(signs: list[Sign], height: float, rng: Rng) -> list[Points]:
    """Strokes from the end of a drawn digit to the beginning of the next, as of a lazy pen."""
    strokes = []
    for one, other in zip(signs, signs[1:], strict=False):
        share = 0.5 if one.ends and other.ends else 0.15
        if one.digit is not None and other.digit is not None and rng.random() < share:
            start = find_ends(one)[1] + (one.left, one.top)
            end = find_ends(other)[0] + (other.left, other.top)
            if np.hypot(*(end - start)) < 0.8 * height:
                middle = (start + end) / 2 + rng.normal(0, 0.08 * height, 2)
                strokes.append(smooth(np.array([start, middle, end])))
    return strokes


def find_ends(sign: Sign) -> tuple[Points, Points]:
    """Where a pen may come to a digit and leave it: at the left and the right of its upper half,
    if the strokes are unknown."""
    if sign.ends:
        return sign.ends
    upper = sign.mask[: 1 + len(sign.mask) // 2]
    _, across = np.nonzero(upper > 64)
    if not len(across):
        return np.zeros(2), np.zeros(2)
    ends = []
    for x in (across.min(), across.max()):
        ends.append(np.array([x, np.flatnonzero(upper[:, x] > 64)[0]], float))
    return ends[0], ends[1]


def write_in_cells(digits: list[int], height: float, hand: Hand, rng: Rng) -> Line:
    """Write each digit into a cell of its own; some cells before and after stay empty."""
    width = height * np.clip(np.exp(rng.normal(0.2, 0.3)), 0.75, 2.5)
    gap = height * rng.uniform(0.05, 0.8) if rng.random() < 0.5 else 0.0
    before = int(rng.integers(1, 4)) if rng.random() < 0.55 else 0
    after = int(rng.integers(1, 4)) if rng.random() < 0.2 else 0
    fill = pick(EMPTY_CELLS, rng)
    lefts = np.arange(before + len(digits) + after) * (width + gap)
    if rng.random() < 0.15:  # cells in groups
        groups = np.arange(len(lefts)) // pick((3, 3, 2, 4), rng)
        lefts += groups * rng.uniform(0.2, 1) * width
    cells = [(float(left), float(left + width)) for left in lefts]
    shift, loose = rng.normal(0, 0.05), rng.uniform(0.02, 0.1)
    beside = rng.uniform(0.1, 0.25) if rng.random() < 0.3 else 0.0  # a 1 on a bar of the guide
    signs = []
    for number, (left, right) in enumerate(cells):
        if before <= number < before + len(digits):
            sign = write_digit(digits[number - before], height, hand, rng)
        elif fill:
            sign = write_mark(fill, height, hand, rng)
        else:
            continue
        middle = (left + right) / 2 + (shift + rng.normal(0, loose)) * width
        middle += beside * height * (sign.digit == 1)
        signs.append(replace(sign, left=round(middle - sign.mask.shape[1] / 2)))
    return Line(signs, [], cells)


def write_number(celled: bool, hand: Hand, rng: Rng) -> tuple[Line, float]:
    """Write a number, at a height at which it is not too wide."""
    digits, fraction = choose_digits(rng), ""
    if not celled and rng.random() < FRACTION_SHARE:  # such numbers are short
        digits, fraction = digits[: int(rng.integers(1, 4))], pick(FRACTION_TEXTS, rng)
    tallest = min(HEIGHTS[1], MAX_WIDTH / (1.6 if celled else 0.9) / len(digits))
    shortest = min(HEIGHTS[0], tallest / 1.5)
    height = float(np.exp(rng.uniform(np.log(shortest), np.log(tallest))))
    write = write_in_cells if celled else partial(write_line, fraction=fraction)
    while True:
        line = write(digits, height, hand, rng)
        left, _, right, _ = bounds_of(line.signs)
        if right - left < 1.3 * MAX_WIDTH:
            return line, height
        height *= 0.8


def bounds_of(signs: Sequence[Sign]) -> Bounds:
    """The rectangle around all signs."""
    sides = np.array([sign.bounds for sign in signs], float)
    return np.concatenate([sides[:, :2].min(axis=0), sides[:, 2:].max(axis=0)])


def hull_of(sign: Sign) -> Points:
    """The corners around the sign's ink, (N, 2)."""
    inked = sign.mask > min(64, int(sign.mask.max()) // 2)
    points = cv2.convexHull(cv2.findNonZero(inked.astype(np.uint8)))[:, 0]
    grown = np.concatenate([points, points + 1])  # a pixel is 1 px wide
    return np.asarray(grown + (sign.left, sign.top), np.float64)
