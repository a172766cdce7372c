"""Leaves of a place on a page what is written in it: neither the blank's print, nor writing of the
places above and below."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.form_file import Box
from digitq.worker.picture import Grey
from digitq.worker.sight.numbers.ink import MIN_LINE_SPAN, MIN_PEN_PX, has_ink

# In heights of the box, if no unit is given
PAPER_WIDTH = 0.8  # the paper around a px is the median of a square with this side
MAX_PAPER_PX = 99  # px: that side is at most so long
MAX_SHIFT = 0.07  # the page's print is at most so far from where the blank has it
MIN_PRINT_DARKNESS = 4.0  # grey values: what is less dark on the blank is no print
MIN_INK = 10.0  # grey values: what is less dark on the page is no ink
MARGIN_OF_PRINT = 2.0  # print is at most so many times as dark as the lightest quarter of it
MAX_STRONGER = 4.0  # print is at most so many times as dark as on the blank
MARGIN_OF_LINE = 1.4  # where a line is drawn, the pen is so many times as dark
MAX_ON_LINE = 0.6  # what is on a line with more than this share of it is the line
BRIDGE = 0.2  # a stroke may have such a gap where it crosses a line
MIN_PEN_LENGTH, MIN_PEN_LENGTH_PX = 0.3, 10  # a stroke is at least so long, in heights or in px
LINE_RUN = 2.0  # level ink that is at least so long may be a line of the form
SIDE_RIM = 0.15  # what is nearer to the sides of the box is its line
MIN_PEN_DARKNESS = (
    0.4  # a number has one pen: what is less dark than this share of it is not written
)
MAX_DOT_GAP = 0.5  # a dot is at most so far from a stroke
MIN_DIGIT_TALL, MAX_DIGIT_TALL = 0.4, 1.4  # a stroke between these heights may be a digit
MIN_CONTESTED = 0.3  # if at least this share of a digit is in the box, it may belong there
OUTLINE = 0.1  # the edge of a stroke is at most so far from its ink
SPANS = 1.6  # a stroke that is higher may be two that touch: it is cut at the edge of the box

Strokes = NDArray[np.bool_]  # (height, width): where there are strokes


class Written(NamedTuple):
    """What is written in a place."""

    picture: Grey  # with paper in place of all else
    rows: tuple[int, int]  # from where to where the box and the writing in it reach, px down
    is_contested: bool  # whether strokes that were left out may belong to the place


def keep_writing(picture: Grey, printed: Grey, box: Box) -> Written:
    """What is written in the box of a picture. `printed` is the same part of the blank, and `box`
    is in px of both."""
    high = box[3] - box[1]
    side = to_odd(min(PAPER_WIDTH * high, MAX_PAPER_PX))
    paper = find_paper(picture, side)
    dark = cv2.subtract(paper, picture)
    run = np.ones((1, max(3, round(LINE_RUN * high))), np.uint8)
    lines = find_level_lines(dark, run)
    shown = cv2.subtract(find_paper(printed, side), printed)
    near_line = cv2.dilate(lines, np.ones((to_odd(4 * MAX_SHIFT * high), 1), np.uint8)) > 0
    others = np.where(near_line, cv2.morphologyEx(shown, cv2.MORPH_TOPHAT, run), shown)
    near = cv2.dilate(others, np.ones([to_odd(2 * MAX_SHIFT * high)] * 2)).astype(np.float32)
    print_dark = near * find_strength(dark, shown)
    # where a line of the form is, the pen is darker than the line
    thick = cv2.dilate(dark, np.ones((3, 1), np.uint8))
    line_dark = MARGIN_OF_LINE * cv2.morphologyEx(thick, cv2.MORPH_OPEN, run)
    limit = np.where(lines, line_dark, print_dark)
    ink = (dark > np.maximum(limit, MIN_INK)).astype(np.uint8)
    gap = np.ones((to_odd(BRIDGE * high), 1), np.uint8)
    ink |= cv2.morphologyEx(ink, cv2.MORPH_CLOSE, gap) & lines
    inside, outside, is_contested = find_strokes(ink, lines, box)
    top, bottom = int(box[1]), int(np.ceil(box[3]))
    if not inside.any():
        part = slice(top, bottom), slice(int(box[0]), int(np.ceil(box[2])))
        is_contested |= has_ink(picture[part], printed[part])
        return Written(np.full_like(picture, np.median(paper)), (top, bottom), is_contested)
    pen = MIN_PEN_DARKNESS * float(np.percentile(dark[inside], 75))
    # the ends of guides on a line are darker than it, and no dots
    dots = (ink > lines) & (dark > pen) & widen(inside, MAX_DOT_GAP * high) & ~outside
    kept = widen(inside | dots, OUTLINE * high) & (widen(inside, 2) | ~widen(outside, 2))
    # A level line beside a stroke is paper, too. Guides stay there: a digit may cross one
    kept &= (lines == 0) | widen(ink > 0, 1)
    rows = np.flatnonzero(inside.any(1))
    reach = min(top, int(rows[0])), max(bottom, int(rows[-1]) + 1)
    return Written(np.where(kept, picture, paper), reach, is_contested)


def find_paper(picture: Grey, side: int) -> Grey:
    """The paper around each px: the median of a square. What is outside mirrors the inside, or a
    line at the edge would count as wide."""
    rim = side // 2
    wide = cv2.copyMakeBorder(picture, rim, rim, rim, rim, cv2.BORDER_REFLECT)
    return np.asarray(cv2.medianBlur(wide, side)[rim:-rim, rim:-rim])


def find_strength(dark: Grey, printed: Grey) -> float:
    """How many times as dark as on the blank print may be on a page, by what most of it is."""
    is_print = printed > max(MIN_PRINT_DARKNESS, 0.3 * float(np.percentile(printed, 99)))
    if not is_print.any():
        return 0.0
    seen = cv2.dilate(dark, np.ones((3, 3)))[is_print].astype(np.float32)
    usual = float(np.percentile(seen / printed[is_print], 25))
    return float(np.clip(MARGIN_OF_PRINT * usual, 1, MAX_STRONGER))


def find_level_lines(dark: Grey, run: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Where the level lines of a form are, with their edges: 1, else 0."""
    runs = cv2.morphologyEx((dark > MIN_INK).astype(np.uint8), cv2.MORPH_OPEN, run)
    rim = run.shape[1]  # beside the picture is no ink
    wide_runs = cv2.copyMakeBorder(runs, 0, 0, rim, rim, cv2.BORDER_CONSTANT)
    closed = cv2.morphologyEx(wide_runs, cv2.MORPH_CLOSE, run)[:, rim:-rim]
    closed = cv2.dilate(np.ascontiguousarray(closed), np.ones((3, 3), np.uint8))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(closed)
    left, _, wide, _, _ = boxes.T
    width = dark.shape[1]
    is_line = (wide >= MIN_LINE_SPAN * width) | (left == 0) | (left + wide == width)
    is_line[0] = False
    return np.asarray(is_line.astype(np.uint8)[labels])


def find_strokes(
    ink: NDArray[np.uint8], lines: NDArray[np.uint8], box: Box
) -> tuple[Strokes, Strokes, bool]:
    """The strokes that belong to the box, those that do not, and whether one of these may."""
    high, rim = box[3] - box[1], SIDE_RIM * (box[3] - box[1])
    within = np.zeros(ink.shape, np.bool_)
    within[int(box[1]) : int(np.ceil(box[3]))] = True
    inside, outside = np.zeros((2, *ink.shape), np.bool_)
    is_contested = False
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(ink)
    for label, (left, top, wide, tall, area) in enumerate(boxes.tolist()):
        length = max(wide, tall)
        if (
            not label
            or length < min(MIN_PEN_LENGTH * high, MIN_PEN_LENGTH_PX)
            or area < MIN_PEN_PX * length
        ):
            continue
        is_high = MIN_DIGIT_TALL * high < tall <= MAX_DIGIT_TALL * high
        if left + wide < box[0] + rim or left > box[2] - rim:
            is_contested |= is_high and bool(within[top : top + tall].any())
            continue
        part = slice(top, top + tall), slice(left, left + wide)
        stroke = labels[part] == label
        if lines[part][stroke].mean() > MAX_ON_LINE:
            continue
        here = stroke & within[part]
        if tall <= SPANS * high:
            is_contested |= is_high and MIN_CONTESTED * area < here.sum() < area / 2
            here = stroke if 2 * here.sum() >= area else np.zeros_like(stroke)
        inside[part] |= here
        outside[part] |= stroke & ~here
    return inside, outside, bool(is_contested)


def widen(mask: Strokes, by: float) -> Strokes:
    """The px that are at most so many px from those of the mask."""
    side = to_odd(2 * by)
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), around) > 0)


def to_odd(side: float) -> int:
    """An odd number of px that is about so many, and at least 3."""
    return max(3, round(side) // 2 * 2 + 1)
