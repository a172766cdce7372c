"""Ruled lines and the lines of forms: finding them in the ink, and taking them out of it."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from worker.normalisation.frames import (
    EDGE_ZONE,
    FAINT_LINE,
    FORM_RIM,
    MIN_LINED_SIDE,
    is_frame,
    is_framed,
)
from worker.normalisation.line_finding import GAP, MIN_LINE_INK, count_lines, find_grid
from worker.normalisation.measuring import (
    largest_shape,
    measure_stroke,
    ones,
    order,
    percentiles,
)
from worker.pictures import Grey, Mask

MIN_DIGIT = 0.2  # of the image's side: what is left must be as large
MIN_AMONG = 0.08  # of it, where there are many lines: no digit is so many strokes side by side
MANY = 3  # lines, or more
AS_THICK = 0.7  # as strokes are is a bar, or more
NEAR_DIGIT = 0.14  # of the shorter side: a line may cut off a part of the digit that is as near
FREE_AROUND = 0.03  # of it, and a pixel: no more is left free by a digit that fills the image


def remove_lines(ink: Grey) -> Grey:
    """The ink without the lines of a form: those that go right across the image, or else those of a
    frame around a digit."""
    mask = cv2.threshold(ink, FAINT_LINE, 1, cv2.THRESH_BINARY)[1]
    (height, width), (left, top, w, h) = mask.shape, cv2.boundingRect(mask)
    wide = w + width // GAP >= MIN_LINE_INK * width
    high = h + height // GAP >= MIN_LINE_INK * height
    if min(height, width) < MIN_LINED_SIDE:
        return ink
    if wide or high:
        return remove_straight_lines(ink, mask, wide, high)
    box = np.s_[top : top + h, left : left + w]
    inked, mask = ink[box], mask[box]
    if min(w, h) < MIN_LINED_SIDE or not is_frame(mask):
        return ink
    inside = remove_straight_lines(inked, mask, True, True)
    if inside is inked or not is_framed(inside):  # the lines are the digit's own, as on a display
        return ink
    ink = ink.copy()
    ink[box] = inside
    return ink


def remove_straight_lines(ink: Grey, mask: Mask, wide: bool, high: bool) -> Grey:
    """Without ruled lines and the lines of a grid: straight, thin, and right across the image, or
    up and down it, where its ink is so wide, or so high.

    Strokes that cross a line stay whole. The bars of a digit that fills the image are no lines.
    """
    across, down = find_grid(mask, wide, high)
    if not (across.any() or down.any()):
        return ink
    none = np.zeros_like(mask)
    is_grid = across.any() and down.any()
    for rows, columns in ((across, down), (across, none), (none, down)):
        lines = rows | columns
        rest = mask & ~lines
        digit = largest_shape(rest)
        _, _, width, height = cv2.boundingRect(digit)
        many = max(count_lines(rows), count_lines(columns.T)) >= MANY
        least = MIN_AMONG if many else MIN_DIGIT
        if max(width / ink.shape[1], height / ink.shape[0]) < least:
            continue  # what was taken for a line is the digit: a 1
        if (
            is_grid
            and not (rows.any() and columns.any())
            and are_on_rim(cv2.boundingRect(digit), digit.shape)
        ):
            continue  # and what is left is a line of an empty cell
        touched = cv2.dilate(digit, ones(3, 3), iterations=2) & lines
        if touched.any() and are_bars(rows, columns, digit):
            return ink
        rest |= bridge(rest, rows) | bridge(rest.T.copy(), columns.T).T
        rest = leave_out_scraps(rest | touched, lines, digit)
        return strengthen(np.where((rest == 0) & (mask > 0), 0, ink))
    return ink


def strengthen(ink: Grey) -> Grey:
    """Ink as strong as usual: it may be much paler than the lines that were."""
    strong = ink[ink > FAINT_LINE]
    (full,) = percentiles(order(strong), 90)
    return cv2.convertScaleAbs(ink, alpha=255 / full)


def are_on_rim(boxes: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Whether what is in a box, or in each of some, lies at one edge of the image: left, top, width
    and height → a flag, or as many."""
    (left, top, w, h), (height, width) = boxes, shape
    across, down = FORM_RIM * width, FORM_RIM * height
    beside = (left + w <= across) | (left >= width - across)
    return beside | (top + h <= down) | (top >= height - down)


def leave_out_scraps(rest: Mask, lines: Mask, digit: Mask) -> Mask:
    """Without what is all on the rim, away from the digit, and touches lines, or the edge: pieces
    of other lines, and of what is in the cells around."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(rest, ltype=cv2.CV_16U)
    kept = ~are_on_rim(stats.T[:4], rest.shape)
    form = cv2.copyMakeBorder(lines[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    touching = labels[cv2.dilate(form, ones(5, 5)) > 0]
    kept |= np.bincount(touching, minlength=len(kept)) == 0
    reach = 2 * round(NEAR_DIGIT * min(rest.shape)) + 1
    kept[labels[cv2.dilate(digit, ones(reach, reach)) > 0]] = True
    kept[0] = False
    return kept.view(np.uint8).take(labels)


def are_bars(rows: Mask, columns: Mask, rest: Mask) -> bool:
    """Whether a line, or two that cross, belong to a digit that fills the image.

    As the bar of a 7 does, or both of a 4: what else there is goes on to the edges, or the lines
    are bars by themselves.
    """
    across, down = count_lines(rows), count_lines(columns.T)
    if max(across, down) > 1:
        return False
    above, below, left, right = (
        bool(edge.any()) for edge in (rest[0], rest[-1], rest[:, 0], rest[:, -1])
    )
    if above + below + left + right > 1:
        return True
    stroke = measure_stroke(rest)
    width = cv2.countNonZero(rows) / max(cv2.countNonZero(rows.max(axis=0)), 1)
    # ruled lines are seldom vertical: a thin stem is measured as a thin stroke is, not stricter
    bars = (rows, width), (columns.T, measure_stroke(columns))
    if all(is_bar(lines, thick, stroke) for lines, thick in bars if lines.any()):
        return True
    if across and down:
        return False
    lines, others = (rows, rest) if across else (columns.T, rest.T)
    edge, free = round(EDGE_ZONE * len(lines)) + 1, 1
    if not (lines[:, 0].any() and lines[:, -1].any()):  # as a ruled line goes
        free += round(FREE_AROUND * len(lines))
    near, far = others[:free].any(), others[-free:].any()
    return bool((near or lines[:edge].any()) and (far or lines[-edge:].any()))


def is_bar(lines: Mask, width: float, stroke: float) -> bool:
    """Whether a horizontal line lies in the midst of the image and is about as thick as strokes."""
    edge = round(EDGE_ZONE * len(lines)) + 1
    return not (lines[:edge].any() or lines[-edge:].any()) and width > AS_THICK * stroke


def bridge(rest: Mask, lines: Mask) -> Mask:
    """Where a stroke crosses horizontal lines: between ink above and below."""
    others = np.flatnonzero(np.concatenate([[0], lines.max(axis=1), [0]]) == 0)
    thick = (int(np.diff(others).max()) + 1) | 1  # an even kernel moves what it closes
    padded = cv2.copyMakeBorder(rest, thick, thick, 0, 0, cv2.BORDER_CONSTANT)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, ones(thick, 1))
    return closed[thick:-thick] & lines
