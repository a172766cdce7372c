"""Finds straight lines in an ink mask; to find vertical ones, the mask is transposed."""

from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import Mask
from digitq.worker.sight.normalisation.measuring import ones

LINE_SLOPES = (-0.04, -0.02, 0.0, 0.02, 0.04)  # rows per column: lines are searched at these tilts
MIN_LINE_INK = 0.95  # a line has ink along at least this share of the image's width
MAX_THICKNESS = 0.14  # a line is no thicker than this share of the image's height
MAX_JOINED_THICKNESS = 0.08  # a line with a stroke along it is no thicker than this share
MAX_LINE_GAPS = 0.3  # a line ends where more than this share of its columns lacks ink
GAP_DIVISOR = 10  # a line may have gaps of a tenth of the image's width
MIN_ROW_INK = 0.5  # a row of a line, or of its blurred sides, has ink in this share of its columns
MAX_LINE_ROWS = 3  # px: a line with up to this many rows has no stroke along it
SIDE_ZONE = 0.25  # the sides of a cell are within this share of the image's width from its edges
MIN_FREE = 0.5  # lines are only confirmed if at least this share of the image is left for it


def find_grid(mask: Mask, wide: bool, high: bool) -> tuple[Mask, Mask]:
    """The horizontal lines of a `wide` mask, and the vertical lines of a `high` mask."""
    across = find_lines(mask) if wide else np.zeros_like(mask)
    down = find_lines(cv2.transpose(mask)).T if high else np.zeros_like(mask)
    is_wide, is_high = across.any(), down.any()
    if is_wide and is_high:
        return confirm_lines(across, down, mask), confirm_lines(down.T, across.T, mask.T).T
    if is_wide:
        return across, find_sides(mask, across)
    if is_high:
        return find_sides(cv2.transpose(mask), down.T).T, down
    return across, down


def find_sides(mask: Mask, rows: Mask) -> Mask:
    """The vertical sides of a cell, which end at its two or more horizontal lines.

    A line under only one horizontal line may be the stem of a 7; one in the middle may be a 1.

    Without this rule, 57 instead of 20 % of the digits in a row of boxes are marked for review.
    """
    sides, free = np.zeros_like(mask), find_runs(rows.max(axis=1) == 0)
    if count_lines(rows) < 2 or not free:
        return sides
    start, stop = max(free, key=lambda run: run[1] - run[0])
    found = find_lines(cv2.transpose(mask[start:stop])).T
    rim = round(SIDE_ZONE * mask.shape[1])  # px
    for left, right in find_runs(found.max(axis=0) > 0):
        if right <= rim or left >= mask.shape[1] - rim:
            sides[start:stop, left:right] = found[:, left:right]
    return sides


def find_runs(flags: NDArray[np.bool_]) -> list[list[int]]:
    """The start of each run of true, and the index after its end."""
    padded = np.zeros(len(flags) + 2, np.bool_)
    padded[1:-1] = flags
    return np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2).tolist()


def count_lines(rows: Mask) -> int:
    """The number of lines in a mask of horizontal lines."""
    return len(find_runs(rows.max(axis=1) > 0))


def can_span(length: int, side: int) -> bool:
    """Whether ink of this length may be a line across the image, which may have gaps."""
    return length + side // GAP_DIVISOR >= MIN_LINE_INK * side


def find_lines(mask: Mask) -> Mask:
    """The lines from left to right; they may be tilted, or bent by a pixel."""
    height, width = mask.shape
    lines = np.zeros(mask.shape, np.uint8)
    gap = ones(1, max(1, width // GAP_DIVISOR))
    any_tilt = ones(2 + 2 * ceil(LINE_SLOPES[-1] * width / 2), gap.size)
    widened = cv2.dilate(mask, any_tilt)  # shows quickly that there is no line, as in most images
    if not has_line(widened) or not has_line(cv2.erode(widened, gap)):
        return lines
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, gap)
    for slope in LINE_SLOPES:  # the mask is sheared so that lines of this tilt become level
        shear = np.array([[1, 0, 0], [slope, 1, -slope * width / 2]])
        level = cv2.warpAffine(closed, shear, (width, height), flags=cv2.INTER_NEAREST)
        stepped = cv2.max(level[:-1], level[1:])
        if not has_line(stepped):
            continue
        share, bent_share = (count_ink(part)[:, 0] / width for part in (level, stepped))
        level_lines = np.zeros(mask.shape, np.uint8)
        for start, stop in find_runs(share >= MIN_ROW_INK):
            if bent_share[max(start - 1, 0) : stop].max() < MIN_LINE_INK:
                continue
            row = start + int(share[start:stop].argmax())
            is_joined = stop - start > max(MAX_LINE_ROWS, MAX_THICKNESS * height)
            limit = int(max(2, (MAX_JOINED_THICKNESS if is_joined else MAX_THICKNESS) * height))
            around = level[max(0, row - limit) : row + limit + 1]
            middle = min(row, limit)
            above, below = measure_thickness(around[middle::-1]), measure_thickness(around[middle:])
            if above + below - 1 <= limit:
                level_lines[row - above + 1 : row + below] = 1
        if level_lines.any():
            flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            lines |= cv2.warpAffine(level_lines, shear, (width, height), flags=flags)
    return cv2.min(cv2.dilate(lines, ones(3, 1)), mask)


def count_ink(mask: Mask) -> NDArray[np.int32]:
    """The number of ink pixels of each row: (height, width) → (height, 1)."""
    return cv2.reduce(mask, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)


def has_line(mask: Mask) -> bool:
    """Whether any row has enough ink for a line."""
    return cv2.minMaxLoc(count_ink(mask))[1] >= MIN_LINE_INK * mask.shape[1]


def measure_thickness(rows: Mask) -> int:
    """The number of rows, from the first on, until `MAX_LINE_GAPS` of the columns have a gap."""
    width = rows.shape[1]
    inked = np.minimum.accumulate(rows, axis=0).sum(axis=1)  # a column's ink ends at its first gap
    return max(1, int(np.count_nonzero(inked >= width - int(MAX_LINE_GAPS * width))))


def confirm_lines(rows: Mask, columns: Mask, mask: Mask) -> Mask:
    """Keep the horizontal lines that are still found without the columns of vertical lines."""
    free = columns.max(axis=0) == 0
    if free.mean() < MIN_FREE:
        return rows
    found = find_lines(np.ascontiguousarray(mask[:, free])).max(axis=1, keepdims=True)
    return rows & cv2.dilate(found, ones(3, 1))
