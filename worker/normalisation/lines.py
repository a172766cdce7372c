"""Removes ruled lines, frames and the lines of forms from the ink."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from worker.normalisation.line_finding import GAP, MIN_LINE_INK, count_lines, find_grid, find_lines
from worker.normalisation.measuring import (
    largest_shape,
    mask_over,
    measure_stroke,
    ones,
    order,
    percentiles,
)
from worker.pictures import Grey, Mask

FAINT_LINE = 32  # of 255: a line may be fainter than the digit, but has more ink than this
MIN_LINED_SIDE = 17  # px: in a smaller image, lines are as thick as strokes, and are not looked for
EDGE_ZONE = 0.15  # a bar this near an edge, as a share of the side, may be the digit's top or foot
MANY = 3  # with as many lines, a small digit may be left: it is not made of so many strokes
NEAR_DIGIT = 0.14  # of the shorter side: a line may cut off parts of the digit this near to it


def remove_lines(ink: Grey) -> Grey:
    """Remove the lines that span the image, or else those of a frame around a digit."""
    mask = mask_over(ink, FAINT_LINE)
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


def is_frame(mask: Mask) -> bool:
    """Whether there are lines along at least three sides of the box of the ink."""
    if not has_sides(mask):
        return False
    found = sum(end.any() for end in ends_of(find_lines(mask)))
    if not found:
        return False
    return bool(found + sum(end.any() for end in ends_of(find_lines(cv2.transpose(mask)))) > 2)


def has_sides(mask: Mask) -> bool:
    """Whether there is ink along at least three sides of a mask."""
    down, right = (round(EDGE_ZONE * side) + 1 for side in mask.shape)
    sides = (mask[:, :right], 1), (mask[:, -right:], 1), (mask[:down], 0), (mask[-down:], 0)
    missing = 0
    for side, axis in sides:
        along = cv2.reduce(side, axis, cv2.REDUCE_MAX)
        missing += cv2.countNonZero(along) < 0.85 * along.size  # a side may have gaps
        if missing > 1:
            return False  # as in nearly all images
    return True


def ends_of(mask: Mask) -> tuple[Mask, Mask]:
    """The rows at the top and at the bottom of a mask."""
    edge = round(EDGE_ZONE * len(mask)) + 1
    return mask[:edge], mask[-edge:]


def is_framed(ink: Grey) -> bool:
    """Whether the ink inside of a frame is a digit in its middle, at least 0.3 times as high."""
    digit = largest_shape(mask_over(ink, FAINT_LINE))
    (height, width), (x, y, w, h) = ink.shape, cv2.boundingRect(digit)
    return h >= 0.3 * height and x < width / 2 < x + w and y < height / 2 < y + h


def remove_straight_lines(ink: Grey, mask: Mask, wide: bool, high: bool) -> Grey:
    """Remove thin lines that span a `wide` or `high` mask; strokes that cross them stay whole."""
    across, down = find_grid(mask, wide, high)
    if not (across.any() or down.any()):
        return ink
    none = np.zeros_like(mask)
    is_grid = across.any() and down.any()
    for rows, columns in ((across, down), (across, none), (none, down)):
        lines = rows | columns
        rest = mask & ~lines
        digit = largest_shape(rest)
        box = cv2.boundingRect(digit)
        many = max(count_lines(rows), count_lines(columns.T)) >= MANY
        least = 0.08 if many else 0.2  # of the image's side, for what is left
        if max(box[2] / ink.shape[1], box[3] / ink.shape[0]) < least:
            continue  # one of the lines is the digit: a 1
        if is_grid and not (rows.any() and columns.any()) and are_on_rim(box, digit.shape):
            continue  # what is left is a line of an empty cell
        touched = cv2.dilate(digit, ones(3, 3), iterations=2) & lines
        if touched.any() and are_bars(rows, columns, digit):
            return ink
        rest |= bridge(rest, rows) | bridge(rest.T.copy(), columns.T).T
        rest = leave_out_scraps(rest | touched, lines, digit)
        return strengthen(np.where((rest == 0) & (mask > 0), 0, ink))
    return ink


def strengthen(ink: Grey) -> Grey:
    """Bring the ink to its usual strength, as it may be much paler than the lines were."""
    (full,) = percentiles(order(ink[ink > FAINT_LINE]), 90)
    return cv2.convertScaleAbs(ink, alpha=255 / full)


def are_on_rim(boxes: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Whether a box, or each of several, lies within a fifth of the image at one edge."""
    (left, top, w, h), (height, width) = boxes, shape
    across, down = 0.2 * width, 0.2 * height
    beside = (left + w <= across) | (left >= width - across)
    return beside | (top + h <= down) | (top >= height - down)


def leave_out_scraps(rest: Mask, lines: Mask, digit: Mask) -> Mask:
    """Remove pieces of other lines and cells.

    They are on the rim, touch lines or the edge, and are not near the digit.
    """
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
    """Whether a line, or two that cross, are bars of a 7 or a 4 that fills the image."""
    across, down = count_lines(rows), count_lines(columns.T)
    if max(across, down) > 1:
        return False
    if sum(edge.any() for edge in (rest[0], rest[-1], rest[:, 0], rest[:, -1])) > 1:
        return True
    stroke = measure_stroke(rest)
    width = cv2.countNonZero(rows) / max(cv2.countNonZero(rows.max(axis=0)), 1)
    # ruled lines are seldom vertical, so a vertical bar may be measured as thin as strokes are
    bars = (rows, width), (columns.T, measure_stroke(columns))
    if all(is_bar(lines, thick, stroke) for lines, thick in bars if lines.any()):
        return True
    if across and down:
        return False
    lines, others = (rows, rest) if across else (columns.T, rest.T)
    free = 1  # px that a digit which fills the image may leave free at its ends
    if not (lines[:, 0].any() and lines[:, -1].any()):  # a ruled line goes from edge to edge
        free += round(0.03 * len(lines))
    top, bottom = ends_of(lines)
    return bool((others[:free].any() or top.any()) and (others[-free:].any() or bottom.any()))


def is_bar(lines: Mask, width: float, stroke: float) -> bool:
    """Whether a horizontal line is away from the edges and about as thick as the strokes."""
    return width > 0.7 * stroke and not any(end.any() for end in ends_of(lines))


def bridge(rest: Mask, lines: Mask) -> Mask:
    """Where a stroke crosses horizontal lines: between ink above and below them."""
    others = np.flatnonzero(np.concatenate([[0], lines.max(axis=1), [0]]) == 0)
    thick = (int(np.diff(others).max()) + 1) | 1  # an even kernel would move the image
    padded = cv2.copyMakeBorder(rest, thick, thick, 0, 0, cv2.BORDER_CONSTANT)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, ones(thick, 1))
    return closed[thick:-thick] & lines
