"""Puts the digits of a number on a line or in boxes, with the marks that people add."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from worker.training.synthetic.handwriting import Shape, smooth
from worker.training.synthetic.writing import Hand, Rng, Sign, write_digit, write_mark

LENGTH_WEIGHTS = [5, 11, 13, 14, 13, 12, 9, 8, 5, 4, 2, 1.5, 1] + [0.4] * 7  # of 1 to 20 digits
SEPARATORS = ("comma", "point", "apostrophe", "space")
MARKS_BEFORE = (
    "dollar",
    "euro",
    "pound",
    "hash",
    "dash",
    "star",
    "equals",
    "open",
    "colon",
    "wave",
)
MARKS_AFTER = (
    "dash",
    "slash",
    "equals",
    "star",
    "point",
    "close",
    "percent",
    "hash",
    "wave",
    "tick",
)


@dataclass(frozen=True)
class Line:
    """A written number: its signs, and a stroke for each ligature."""

    signs: list[Sign]
    ligatures: list[np.ndarray]
    boxes: list[tuple[float, float]]  # left and right of each printed box; none without boxes


def choose_digits(rng: Rng) -> list[int]:
    """Draw a number of 1 to 20 digits: any, or an amount, a year, or one of equal digits."""
    weights = np.array(LENGTH_WEIGHTS)
    length = int(rng.choice(len(weights), p=weights / weights.sum())) + 1
    digits = rng.integers(0, 10, length)
    kind = rng.random()
    if kind < 0.25:  # an amount
        zeros = min(length - 1, int(rng.integers(1, 7)))
        digits[length - zeros :] = 0
    elif kind < 0.32:
        digits = np.array([int(sign) for sign in str(rng.integers(1700, 2030))])
    elif kind < 0.37:
        digits[rng.random(length) < 0.8] = digits[0]
    elif kind < 0.42:
        digits[: rng.integers(1, length + 1)] = 0
    return [int(digit) for digit in digits]


def write_line(digits: list[int], height: float, hand: Hand, rng: Rng) -> Line:
    """Write the digits on a baseline, from x = 0, with marks before, between and after them."""
    signs: list[Sign] = []
    if rng.random() < 0.12:
        for _ in range(rng.integers(1, 3)):
            _append(signs, write_mark(rng.choice(MARKS_BEFORE), height, hand, rng), height, 0.2)
    base, spread = _choose_spacing(rng)
    separator, every = str(rng.choice(SEPARATORS)), int(rng.choice([3, 3, 3, 2, 4]))
    separated = rng.random() < 0.25 and len(digits) > 2
    drift, bend = rng.normal(0, 0.02), rng.normal(0, 0.01)
    for number, digit in enumerate(digits):
        gap = base + rng.normal(0, spread)
        if number and separated and (len(digits) - number) % every == 0:
            if separator == "space":
                gap += rng.uniform(0.3, 0.6)
            else:
                mark = write_mark(separator, height, hand, rng)
                _append(signs, mark, height, rng.uniform(0.03, 0.15))
                gap = max(gap, 0.05)
        along = number - len(digits) / 2
        sign = write_digit(digit, height, hand, rng)
        drop = round((drift * along + bend * along**2 / max(1, len(digits) / 4)) * height)
        _append(signs, replace(sign, top=sign.top + drop), height, gap)
    ligatures = _join(signs, height, rng) if base < 0.15 or rng.random() < 0.1 else []
    if rng.random() < 0.15:
        for _ in range(rng.integers(1, 3)):
            _append(signs, write_mark(rng.choice(MARKS_AFTER), height, hand, rng), height, 0.2)
    return Line(signs, ligatures, [])


def _choose_spacing(rng: Rng) -> tuple[float, float]:
    """The mean of the free space between two digits, per height, and its deviation."""
    kind = rng.random()
    if kind < 0.2:  # they touch or overlap
        return rng.uniform(-0.12, 0.02), 0.05
    if kind < 0.75:
        return rng.uniform(0.05, 0.3), 0.05
    if kind < 0.95:
        return rng.uniform(0.3, 0.9), 0.1
    return rng.uniform(0.9, 2), 0.15


def _append(signs: list[Sign], sign: Sign, height: float, gap: float) -> None:
    """Put the sign to the right of the last one; their ink is about `gap` heights apart."""
    left = 0
    if signs:
        last = signs[-1]
        top, bottom = min(last.top, sign.top), max(last.bottom, sign.bottom)
        reach = np.full(bottom - top, -9999)
        free = np.full(bottom - top, 9999)
        reach[last.top - top : last.bottom - top] = _reach(last.mask)
        free[sign.top - top : sign.bottom - top] = sign.mask.shape[1] - _reach(sign.mask[:, ::-1])
        step = int((reach - free).max())  # the least step at which no row overlaps
        if step < -5000:  # one is above the other
            step = last.mask.shape[1]
        left = last.left + max(step + round(gap * height), round(0.1 * height))
    signs.append(replace(sign, left=left))


def _reach(mask: Shape) -> np.ndarray:
    """How far the ink of each row reaches to the right; far to the left if it has none."""
    inked = mask[:, ::-1] > 64
    reach = mask.shape[1] - inked.argmax(axis=1)
    reach[~inked.any(axis=1)] = -9999
    return reach


def _join(signs: list[Sign], height: float, rng: Rng) -> list[np.ndarray]:
    """Strokes from the end of a drawn digit to the beginning of the next, as of a lazy pen."""
    strokes = []
    for one, other in zip(signs, signs[1:], strict=False):
        if one.ends and other.ends and rng.random() < 0.4:
            start = one.ends[1] + (one.left, one.top)
            end = other.ends[0] + (other.left, other.top)
            if np.hypot(*(end - start)) < 0.8 * height:
                middle = (start + end) / 2 + rng.normal(0, 0.08 * height, 2)
                strokes.append(smooth(np.array([start, middle, end])))
    return strokes


def write_in_boxes(digits: list[int], height: float, hand: Hand, rng: Rng) -> Line:
    """Write each digit into a box of its own; some boxes before and after stay empty."""
    width = height * np.exp(rng.normal(0.25, 0.25))
    gap = height * rng.uniform(0.05, 0.8) if rng.random() < 0.5 else 0.0
    before, after = (int(rng.integers(1, 4)) if rng.random() < 0.2 else 0 for _ in range(2))
    count = before + len(digits) + after
    fill = rng.choice(["", "", "", "dash", "cross", "slash"])  # what empty boxes hold
    boxes = [(number * (width + gap), number * (width + gap) + width) for number in range(count)]
    loose, signs = rng.uniform(0.02, 0.12), []
    for number, (left, right) in enumerate(boxes):
        if before <= number < before + len(digits):
            sign = write_digit(digits[number - before], height, hand, rng)
        elif fill:
            sign = write_mark(fill, height, hand, rng)
        else:
            continue
        middle = (left + right) / 2 + rng.normal(0, loose) * width
        signs.append(replace(sign, left=round(middle - sign.mask.shape[1] / 2)))
    return Line(signs, [], boxes)


def hull(sign: Sign) -> np.ndarray:
    """The corners of the sign's ink, (N, 2), in px of the line."""
    points = cv2.convexHull(cv2.findNonZero((sign.mask > 64).astype(np.uint8)))[:, 0]
    grown = np.concatenate([points, points + 1])  # a pixel is 1 px wide
    return np.asarray(grown + (sign.left, sign.top), np.float64)
