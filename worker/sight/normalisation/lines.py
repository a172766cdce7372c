"""Removes ruled lines, frames and the lines of forms from the ink, but no stroke of the digit."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from digitq.worker.picture import Grey, Mask
from digitq.worker.sight.normalisation.line_finding import (
    can_span,
    count_lines,
    find_grid,
    find_lines,
)
from digitq.worker.sight.normalisation.measuring import (
    FULL_INK,
    largest_component,
    mask_over,
    measure_stroke_width,
    ones,
    percentiles,
    sort_pixels,
)

LINE_THRESHOLD = 32  # grey value: a line may be paler than the digit, but not paler than this
MIN_LINED_SIDE = 17  # px: in a smaller image, lines are as thick as strokes and are not removed
EDGE_ZONE = 0.15  # a line within this share of an edge may be a frame's, or a bar of the digit
MIN_SIDE_INK = 0.85  # a frame has ink in this share of a side's rows or columns
MIN_FRAMED_HEIGHT = 0.3  # a digit in a frame has at least this share of its height
MANY_LINES = 3  # this many parallel lines are no strokes of a digit, which may then be small
MIN_DIGIT = 0.2  # without lines, the rest is a digit if it has at least this share of a side
MIN_SMALL_DIGIT = 0.08  # if there were many lines, it is a digit with at least this share
RIM = 0.2  # a box on the rim is within this share of the image from an edge
MIN_BAR_WIDTH = 0.7  # a bar of a digit is at least this many times as wide as its other strokes
END_MARGIN = 0.03  # a line that ends in the image is a bar if the digit ends this near to its edges
MAX_PART_DISTANCE = 0.14  # a piece this near to the digit, as a share of the shorter side, is kept


def remove_lines(ink: Grey) -> Grey:
    """Remove the lines that span the image, or else a frame around the digit.

    Without this step, 93 instead of 99 % of the digits in cells of forms are right.
    """
    mask = mask_over(ink, LINE_THRESHOLD)
    (height, width), (left, top, w, h) = mask.shape, cv2.boundingRect(mask)
    wide, high = can_span(w, width), can_span(h, height)
    if min(height, width) < MIN_LINED_SIDE:
        return ink
    if wide or high:
        return remove_straight_lines(ink, mask, wide, high)
    box = np.s_[top : top + h, left : left + w]
    inked, mask = ink[box], mask[box]
    if min(w, h) < MIN_LINED_SIDE or not is_frame(mask):
        return ink
    inside = remove_straight_lines(inked, mask, True, True)
    if inside is inked or not is_framed(inside):  # a digit on a display consists of such lines
        return ink
    ink = ink.copy()
    ink[box] = inside
    return ink


def is_frame(mask: Mask) -> bool:
    """Whether a mask that is cropped to its ink has lines along at least three sides."""
    if not has_sides(mask):
        return False
    found = sum(map(np.any, ends_of(find_lines(mask))))
    return bool(found and found + sum(map(np.any, ends_of(find_lines(cv2.transpose(mask))))) > 2)


def has_sides(mask: Mask) -> bool:
    """Whether a mask has ink along at least three sides; this is faster than `is_frame`."""
    down, right = (round(EDGE_ZONE * side) + 1 for side in mask.shape)
    sides = (mask[:, :right], 1), (mask[:, -right:], 1), (mask[:down], 0), (mask[-down:], 0)
    inked = (cv2.reduce(side, axis, cv2.REDUCE_MAX) for side, axis in sides)
    are_open = (cv2.countNonZero(side) < MIN_SIDE_INK * side.size for side in inked)
    return not (any(are_open) and any(are_open))  # the second goes on after the first


def ends_of(mask: Mask) -> tuple[Mask, Mask]:
    """The rows of a mask within `EDGE_ZONE` of the top and of the bottom."""
    edge = round(EDGE_ZONE * len(mask)) + 1
    return mask[:edge], mask[-edge:]


def is_framed(ink: Grey) -> bool:
    """Whether the ink inside a frame covers the frame's centre and enough of its height."""
    digit = largest_component(mask_over(ink, LINE_THRESHOLD))
    (height, width), (x, y, w, h) = ink.shape, cv2.boundingRect(digit)
    return h >= MIN_FRAMED_HEIGHT * height and x < width / 2 < x + w and y < height / 2 < y + h


def remove_straight_lines(ink: Grey, mask: Mask, wide: bool, high: bool) -> Grey:
    """Remove the lines that span a `wide` or `high` mask; strokes that cross them stay whole.

    If a digit is not left without all lines, only the horizontal or the vertical ones are removed.
    """
    across, down = find_grid(mask, wide, high)
    if not (across.any() or down.any()):
        return ink
    none = np.zeros_like(mask)
    is_grid = across.any() and down.any()
    for rows, columns in ((across, down), (across, none), (none, down)):
        lines = rows | columns
        rest = mask & ~lines
        digit = largest_component(rest)
        box = cv2.boundingRect(digit)
        many = max(count_lines(rows), count_lines(columns.T)) >= MANY_LINES
        min_size = MIN_SMALL_DIGIT if many else MIN_DIGIT
        if max(box[2] / ink.shape[1], box[3] / ink.shape[0]) < min_size:
            continue  # one of the lines is the digit, a 1
        if is_grid and not (rows.any() and columns.any()) and are_on_rim(box, digit.shape):
            continue  # the cell is empty, and the rest is one of its lines
        touched = cv2.dilate(digit, ones(3, 3), iterations=2) & lines
        if touched.any() and are_bars(rows, columns, digit):
            return ink
        rest |= bridge(rest, rows) | bridge(rest.T.copy(), columns.T).T
        rest = remove_scraps(rest | touched, lines, digit)
        return strengthen(np.where((rest == 0) & (mask > 0), 0, ink))
    return ink


def strengthen(ink: Grey) -> Grey:
    """Scale the ink to full strength, because it may be much paler than the removed lines."""
    (full,) = percentiles(sort_pixels(ink[ink > LINE_THRESHOLD]), FULL_INK)
    return cv2.convertScaleAbs(ink, alpha=255 / full)


def are_on_rim(boxes: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Whether a box, or each of several, is on the rim."""
    (left, top, w, h), (height, width) = boxes, shape
    beside = (left + w <= RIM * width) | (left >= width - RIM * width)
    return beside | (top + h <= RIM * height) | (top >= height - RIM * height)


def remove_scraps(rest: Mask, lines: Mask, digit: Mask) -> Mask:
    """Remove components on the rim that touch a line or an edge and are far from the digit."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(rest, ltype=cv2.CV_16U)
    kept = ~are_on_rim(stats.T[:4], rest.shape)
    form = cv2.copyMakeBorder(lines[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    touching = labels[cv2.dilate(form, ones(5, 5)) > 0]
    kept |= np.bincount(touching, minlength=len(kept)) == 0
    reach = 2 * round(MAX_PART_DISTANCE * min(rest.shape)) + 1
    kept[labels[cv2.dilate(digit, ones(reach, reach)) > 0]] = True
    kept[0] = False  # the background
    return kept.view(np.uint8).take(labels)


def are_bars(rows: Mask, columns: Mask, rest: Mask) -> bool:
    """Whether a line, or two that cross, are bars of a 7 or a 4; `rest` is the digit without them.

    They are bars if the rest reaches two edges of the image, or if they are as thick as strokes and
    away from the edges. One line is a bar if it or the rest reaches the edges on both its sides.
    """
    across, down = count_lines(rows), count_lines(columns.T)
    if max(across, down) > 1:
        return False
    if sum(edge.any() for edge in (rest[0], rest[-1], rest[:, 0], rest[:, -1])) > 1:
        return True
    stroke = measure_stroke_width(rest)
    width = cv2.countNonZero(rows) / max(cv2.countNonZero(rows.max(axis=0)), 1)
    # a stroke of 1 px measures 2, and a vertical line too: it is a bar more often than ruled
    bars = (rows, width), (columns.T, measure_stroke_width(columns))
    if all(is_bar(lines, thick, stroke) for lines, thick in bars if lines.any()):
        return True
    if across and down:
        return False
    lines, others = (rows, rest) if across else (columns.T, rest.T)
    free = 1  # px: a digit that fills the image may end this far from its edges
    if not (lines[:, 0].any() and lines[:, -1].any()):  # unlike a ruled line, it has an end
        free += round(END_MARGIN * len(lines))
    top, bottom = ends_of(lines)
    return bool((others[:free].any() or top.any()) and (others[-free:].any() or bottom.any()))


def is_bar(lines: Mask, width: float, stroke: float) -> bool:
    """Whether a horizontal line is away from the edges and about as thick as the strokes."""
    return width > MIN_BAR_WIDTH * stroke and not any(end.any() for end in ends_of(lines))


def bridge(rest: Mask, lines: Mask) -> Mask:
    """The pixels of horizontal lines where a stroke crosses: there is ink above and below."""
    free_rows = np.flatnonzero(np.concatenate([[0], lines.max(axis=1), [0]]) == 0)
    thick = (int(np.diff(free_rows).max()) + 1) | 1  # an even kernel would shift the image
    padded = cv2.copyMakeBorder(rest, thick, thick, 0, 0, cv2.BORDER_CONSTANT)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, ones(thick, 1))
    return closed[thick:-thick] & lines
