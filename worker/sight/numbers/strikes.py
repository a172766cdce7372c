"""Finds a number that is struck out: a long straight stroke goes through its digits.

A stroke of a digit ends in the digit. One that strikes digits out begins before them, ends after
them, and their ink goes on above and below it. It is sought where the detector takes a candidate
for a crossed-out digit, be it by a small chance: so were 65 of 66 numbers through which a stroke
was drawn, and few others.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import Grey
from digitq.worker.sight.numbers.finding import Candidates, find_median

VIEW_HEIGHT = 24  # px: digits are this high in the picture in which strikes are searched
VIEW_MARGINS = 1.5, 0.6  # heights of a digit: what is seen beside the line, and above and below it
PEN_PERCENTILES = 4, 96  # percentiles: the darkest and the lightest px of the digits show the pen
MIN_PEN = 0.4  # ink has at least this share of the digits' contrast
PEN_PAPER_SIDE = 43  # px: the paper around a px is the median of a square with this side
MAX_ANGLE, ANGLE_STEP = 35, 5  # degrees: steeper strokes are parts of digits, or slashes
MIN_STRIKE = 1.3  # heights of a digit: a strike is at least so long
MIN_END = 0.05  # heights: it begins and ends at least so far from the ink that it crosses
CROSSED_RIM = 0.15  # heights of a digit: it is crossed if ink is so far above and below the stroke
MIN_CROSSED = 2  # so much ink, from left to right, is crossed at least
MIN_ON_PAPER = 0.4  # at least this share of a strike has paper above and below
MAX_INK_BESIDE = 0.65  # beside a strike, at most this share is ink; more are the strokes of a digit
MIN_RUN = np.ones((1, int(MIN_STRIKE * VIEW_HEIGHT)), np.uint8)  # a strike is as long, once level
UNEVEN = np.ones((2, 1), np.uint8)  # a level strike may be so uneven: no hand draws quite straight
FULL_DARK = np.uint8(255)  # the grey value of ink on paper that is 0
STRUCK_PART = (0.15, 0.85)  # a strike goes through a digit between these shares of its height
MIN_APART = 0.2  # heights of a digit: what is struck out is at least so far from other digits
STRUCK_RIM = 0.2  # heights of a digit: so much around what is struck out is erased
LINE_CHANCE = 0.3  # strikes are searched on candidates with at least this chance
MIN_CROSSED_OUT = 0.01  # one candidate of the line is a crossed-out digit with at least this chance
Ink = NDArray[np.uint8]  # (height, width): 1 where there is ink
Points = NDArray[np.float64]  # (N, 2): x and y


class View(NamedTuple):
    """The ink around a line of digits that are VIEW_HEIGHT high."""

    ink: Ink
    boxes: NDArray[np.float32]  # (N, 4): of the digits
    scale: float  # px of the view for each px of the picture
    left: int  # px of the picture
    top: int


def find_strike(picture: Grey, line: Candidates) -> NDArray[np.float64] | None:
    """The box of a stroke that strikes out digits of the line: left, top, right, bottom in px."""
    digits = line.likely(LINE_CHANCE)
    if not len(digits.chances) or line.others.max() < MIN_CROSSED_OUT:
        return None
    view = see_ink(picture, digits.boxes)
    strikes = [
        ends + corner
        for corner, piece in cut_wide_pieces(view.ink)
        for angle in range(-MAX_ANGLE, MAX_ANGLE + 1, ANGLE_STEP)
        for ends in find_strokes(piece, angle)
        if is_through(ends + corner, view)
    ]
    if not strikes:
        return None
    ends = np.concatenate(strikes) / view.scale + (view.left, view.top)
    return np.concatenate([ends.min(0), ends.max(0)])


def erase(picture: Grey, line: Candidates, strike: NDArray[np.float64]) -> Grey | None:
    """The picture with paper in the place of the digits of the line that a strike goes through;
    None if other digits of the line are close to these: it may be one number."""
    left, top, right, bottom = strike
    digits = line.likely(LINE_CHANCE)
    middles, height = digits.middles[:, 0], find_median(digits.heights)
    beyond = STRUCK_RIM * height
    is_struck = (middles > left - beyond) & (middles < right + beyond)
    struck, others = digits.boxes[is_struck], digits.boxes[~is_struck]
    if len(struck):
        gaps = np.maximum(others[:, 0] - struck[:, 2].max(), struck[:, 0].min() - others[:, 2])
        if len(others) and gaps.min() < MIN_APART * height:
            return None
        low, high = struck[:, :2].min(0), struck[:, 2:].max(0)
        left, top = min(left, low[0]), min(top, low[1])
        right, bottom = max(right, high[0]), max(bottom, high[1])
    x, y = max(0, round(left - beyond)), max(0, round(top - beyond))
    area = np.s_[y : round(bottom + beyond), x : round(right + beyond)]
    erased = picture.copy()
    erased[area] = np.median(picture[area])
    return erased


def see_ink(picture: Grey, boxes: NDArray[np.float32]) -> View:
    """The ink around a line with the boxes of its digits."""
    height = max(4.0, find_median(boxes[:, 3] - boxes[:, 1]))
    beside, above = (share * height for share in VIEW_MARGINS)
    low, high = boxes[:, :2].min(0) - (beside, above), boxes[:, 2:].max(0) + (beside, above)
    left, top = (max(0, int(side)) for side in low)
    right, bottom = (int(min(*ends)) + 1 for ends in zip(high, picture.shape[::-1], strict=True))
    part, scale = picture[top:bottom, left:right], VIEW_HEIGHT / height
    size = (max(1, round(side * scale)) for side in part.shape[::-1])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(part, tuple(size), interpolation=way)
    contrast = small.astype(np.int16) - cv2.medianBlur(small, PEN_PAPER_SIDE)
    places = (boxes - np.array([left, top, left, top], np.float32)) * np.float32(scale)
    (x, y), (end, base) = places[:, :2].min(0).clip(0), places[:, 2:].max(0)
    digits = contrast[int(y) : int(base) + 1, int(x) : int(end) + 1]
    ordered = np.sort(digits, axis=None)  # np.percentile takes five times as long
    dark, light = (int(ordered[len(ordered) * percent // 100]) for percent in PEN_PERCENTILES)
    ink = contrast < MIN_PEN * dark if -dark >= light else contrast > MIN_PEN * light
    return View(np.asarray(ink, np.uint8), places, scale, left, top)


def cut_wide_pieces(ink: Ink) -> Iterator[tuple[tuple[int, int], Grey]]:
    """The pieces of ink that are as wide as a strike, alone, as grey values, each with its corner:
    x and y. Digits that stand apart are none."""
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(ink)
    least = MIN_STRIKE * VIEW_HEIGHT * math.cos(math.radians(MAX_ANGLE))
    for label, (left, top, width, height, _) in enumerate(boxes.tolist()):
        if label and width >= least:
            piece = labels[top : top + height, left : left + width] == label
            yield (left, top), FULL_DARK * piece


def find_strokes(piece: Grey, angle: float) -> list[Points]:
    """The ends, (2, 2), of the strokes at this angle that are as long as a strike, and cross ink
    as one does."""
    height, width = piece.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    cos, sin = abs(float(matrix[0, 0])), abs(float(matrix[0, 1]))
    size = int(height * sin + width * cos) + 2, int(height * cos + width * sin) + 2
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    _, turned = cv2.threshold(
        cv2.warpAffine(piece, matrix, size), FULL_DARK / 2, 1, cv2.THRESH_BINARY
    )
    turned = cv2.dilate(turned, UNEVEN)
    middles = cv2.erode(turned, MIN_RUN, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    if not cv2.countNonZero(middles):
        return []
    runs = cv2.dilate(middles, MIN_RUN)
    back = cv2.invertAffineTransform(matrix)
    found = []
    count, labels = cv2.connectedComponents(runs)
    for label in range(1, count):
        rows, columns = np.nonzero(labels == label)
        lengths = np.bincount(rows)
        longest = np.flatnonzero(lengths >= lengths.max() - 1)
        row = int(longest[len(longest) // 2])
        inside = columns[rows == row]
        start, end = int(inside.min()), int(inside.max())
        if crosses(turned, row, start, end):
            found.append(np.array([[start, row, 1], [end, row, 1]]) @ back.T)
    return found


def crosses(ink: Ink, row: int, start: int, end: int) -> bool:
    """Whether a level stroke begins and ends on paper, and crosses ink between."""
    columns = ink[:, start : end + 1]
    above, below = measure_ink(columns[: row + 1][::-1]), measure_ink(columns[row:])
    usual = [int(np.sort(each)[len(each) // 4]) for each in (above, below)]  # half the pen's width
    free = (above <= usual[0] + 2) & (below <= usual[1] + 2)
    rim = max(3.0, CROSSED_RIM * VIEW_HEIGHT)
    beside = (round(row - usual[0] - rim + 1), round(row + usual[1] + rim - 1))
    if free.mean() < MIN_ON_PAPER or beside[0] < 0 or beside[1] >= len(ink):
        return False
    for other in beside:
        seen = columns[other].astype(np.int8)
        places = np.flatnonzero(seen)
        pieces = int((np.diff(seen) > 0).sum()) + int(seen[0])
        if pieces < MIN_CROSSED or seen.mean() >= MAX_INK_BESIDE:
            return False
        if min(places[0], len(seen) - 1 - places[-1]) < MIN_END * VIEW_HEIGHT:
            return False
    return True


def measure_ink(columns: Ink) -> NDArray[np.intp]:
    """How many px of ink each column begins with."""
    return np.asarray(np.where(columns.all(0), len(columns), (columns == 0).argmax(0)))


def is_through(ends: Points, view: View) -> bool:
    """Whether a stroke goes through a digit, and ends in the view, as no line of a form does."""
    if ends[:, 0].min() < 2 or ends[:, 0].max() > view.ink.shape[1] - 3:
        return False
    xs, ys = (ends[0] + np.linspace(0, 1, 15)[:, None] * (ends[1] - ends[0])).T
    for left, top, right, bottom in view.boxes.tolist():
        inside = ys[(xs > left) & (xs < right)]
        if len(inside) and STRUCK_PART[0] < (inside.mean() - top) / (bottom - top) < STRUCK_PART[1]:
            return True
    return False
