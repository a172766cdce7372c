"""Finds straight lines in the ink."""

from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.normalisation.measuring import ones
from worker.pictures import Mask

SLOPES = (-0.04, -0.02, 0.0, 0.02, 0.04)  # these tilts are tried
MIN_LINE_INK = 0.95  # a line has ink along this share of its length
THICKEST = 0.14  # a line is no thicker than this share of the image's height
THICK = 0.08  # a line with a stroke along it is no thicker than this share of the height
FREE = 0.3  # a line ends at the row from which more than this share of its columns lacks ink
GAP = 10  # a line may be broken for a tenth of its length


def find_grid(mask: Mask, wide: bool, high: bool) -> tuple[Mask, Mask]:
    """The horizontal lines of a `wide` mask, and the vertical lines of a `high` one."""
    none = np.zeros(mask.shape, np.uint8)
    across = find_lines(mask) if wide else none
    down = find_lines(cv2.transpose(mask)).T if high else none
    is_wide, is_high = across.any(), down.any()
    if is_wide and is_high:
        return confirm(across, down, mask), confirm(down.T, across.T, mask.T).T
    if is_wide:
        return across, find_sides(mask, across)
    if is_high:
        return find_sides(cv2.transpose(mask), down.T).T, down
    return across, down


def find_sides(mask: Mask, rows: Mask) -> Mask:
    """The vertical sides of a cell, which end at its two or more horizontal lines.

    Under only one line, the side may be the stem of a 7; away from the edges, it may be a 1.
    """
    sides, free = np.zeros_like(mask), find_runs(rows.max(axis=1) == 0)
    if count_lines(rows) < 2 or not free:
        return sides
    start, stop = max(free, key=lambda run: run[1] - run[0])
    found = find_lines(cv2.transpose(mask[start:stop])).T
    rim = round(0.25 * mask.shape[1])
    for left, right in find_runs(found.max(axis=0) > 0):
        if right <= rim or left >= mask.shape[1] - rim:
            sides[start:stop, left:right] = found[:, left:right]
    return sides


def find_runs(flags: NDArray[np.bool_]) -> list[list[int]]:
    """The first index of each run of true, and the index after its last."""
    padded = np.zeros(len(flags) + 2, np.bool_)
    padded[1:-1] = flags
    runs: list[list[int]] = np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2).tolist()
    return runs


def count_lines(rows: Mask) -> int:
    """How many horizontal lines there are in a mask of nothing else."""
    return len(find_runs(rows.max(axis=1) > 0))


def find_lines(mask: Mask) -> Mask:
    """The lines of a mask that run from left to right; they may be tilted, or bent by a pixel."""
    height, width = mask.shape
    lines = np.zeros(mask.shape, np.uint8)
    gap = ones(1, max(1, width // GAP))
    reach = ones(2 + 2 * ceil(SLOPES[-1] * width / 2), gap.size)  # of any tilt
    widened = cv2.dilate(mask, reach)
    if not has_line(widened) or not has_line(cv2.erode(widened, gap)):
        return lines
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, gap)
    for slope in SLOPES:
        shear = np.array([[1, 0, 0], [slope, 1, -slope * width / 2]])  # makes such a line level
        level = cv2.warpAffine(closed, shear, (width, height), flags=cv2.INTER_NEAREST)
        stepped = cv2.max(level[:-1], level[1:])
        if not has_line(stepped):
            continue
        black, whole = (count_ink(part)[:, 0] / width for part in (level, stepped))
        level_lines = np.zeros(mask.shape, np.uint8)
        for start, stop in find_runs(black >= 0.5):  # a line and its blurred sides
            if whole[max(start - 1, 0) : stop].max() < MIN_LINE_INK:
                continue
            row = start + int(black[start:stop].argmax())
            is_free = stop - start <= max(3, THICKEST * height)  # else a stroke is along the line
            most = int(max(2, (THICKEST if is_free else THICK) * height))
            around = level[max(0, row - most) : row + most + 1]
            middle = min(row, most)
            above, below = measure_thickness(around[middle::-1]), measure_thickness(around[middle:])
            if above + below - 1 <= most:
                level_lines[row - above + 1 : row + below] = 1
        if level_lines.any():
            flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            lines |= cv2.warpAffine(level_lines, shear, (width, height), flags=flags)
    return cv2.min(cv2.dilate(lines, ones(3, 1)), mask)


def count_ink(mask: Mask) -> NDArray[np.int32]:
    """How many pixels of each row are 1: (height, width) → (height, 1)."""
    return cv2.reduce(mask, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)


def has_line(mask: Mask) -> bool:
    """Whether one of the rows may be a line."""
    return cv2.minMaxLoc(count_ink(mask))[1] >= MIN_LINE_INK * mask.shape[1]


def measure_thickness(rows: Mask) -> int:
    """How many rows, from the first on, have ink in all columns but a share of `FREE`."""
    thickness, black, most = 1, rows[0], int(FREE * rows.shape[1])
    for row in rows[1:]:
        black = black & row
        if len(black) - cv2.countNonZero(black) > most:
            break
        thickness += 1
    return thickness


def confirm(rows: Mask, columns: Mask, mask: Mask) -> Mask:
    """Keep those horizontal lines that are no stroke between two vertical ones."""
    free = columns.max(axis=0) == 0
    if free.mean() < 0.5:
        return rows
    found = find_lines(np.ascontiguousarray(mask[:, free])).max(axis=1, keepdims=True)
    return rows & cv2.dilate(found, ones(3, 1))
