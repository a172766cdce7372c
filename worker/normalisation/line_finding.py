"""Finds straight lines in the ink."""

from functools import cache
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.normalisation.measuring import count_ink, find_runs, measure_rows, ones
from worker.pictures import Mask

SLOPES = (-0.04, -0.02, 0.0, 0.02, 0.04)  # the tilts that are tried
MIN_LINE_INK, HALF = 0.95, 0.5  # of its length: a line is black so far, and its blurred sides
THICKEST = 0.14  # of the image's height
THICK = 0.08  # of it; one that something lies along may be no thicker
FREE = 0.3  # of its length nothing lies along it
GAP = 10  # a line may be broken for a tenth of its length
SIDES = 0.25  # of its width: so near its left or right edge a cell may have its sides


def find_grid(mask: Mask, wide: bool, high: bool) -> tuple[Mask, Mask]:
    """The horizontal lines of a mask, where its ink is so wide, and the vertical ones."""
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
    """The vertical lines of a cell that go no farther than its horizontal ones, two or more: under
    one it may be the stem of a 7; and near the edges, since elsewhere it may be that of a 1."""
    sides, free = np.zeros_like(mask), find_runs(rows.max(axis=1) == 0)
    if count_lines(rows) < 2 or not free:
        return sides
    start, stop = max(free, key=lambda run: run[1] - run[0])
    found = find_lines(cv2.transpose(mask[start:stop])).T
    rim = round(SIDES * mask.shape[1])
    for left, right in find_runs(found.max(axis=0) > 0):
        if right <= rim or left >= mask.shape[1] - rim:
            sides[start:stop, left:right] = found[:, left:right]
    return sides


def count_lines(rows: Mask) -> int:
    """How many horizontal lines there are in a mask of nothing else."""
    return len(find_runs(rows.max(axis=1) > 0))


def find_lines(mask: Mask) -> Mask:
    """The lines of a mask that run from left to right, perhaps tilted; a thin or bent line may have
    steps of a pixel."""
    height, width = mask.shape
    lines = np.zeros(mask.shape, np.uint8)
    gap = ones(1, max(1, width // GAP))
    reach = ones(2 + 2 * ceil(SLOPES[-1] * width / 2), gap.size)  # of any tilt
    widened = cv2.dilate(mask, reach)
    if not has_line(widened) or not has_line(cv2.erode(widened, gap)):
        return lines
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, gap)
    for slope in SLOPES:
        shear = shear_by(slope, width)
        level = cv2.warpAffine(closed, shear, (width, height), flags=cv2.INTER_NEAREST)
        stepped = cv2.max(level[:-1], level[1:])
        if not has_line(stepped):
            continue
        whole = measure_rows(stepped) >= MIN_LINE_INK
        black = measure_rows(level)
        level_lines = np.zeros(mask.shape, np.uint8)
        for start, stop in find_runs(black >= HALF):
            if not whole[max(start - 1, 0) : stop].any():
                continue
            row = start + int(black[start:stop].argmax())
            free = stop - start <= max(3, THICKEST * height)  # else something lies along it
            most = int(max(2, (THICKEST if free else THICK) * height))
            around = level[max(0, row - most) : row + most + 1]
            middle = min(row, most)
            above, below = measure_thickness(around[middle::-1]), measure_thickness(around[middle:])
            if above + below - 1 <= most:
                level_lines[row - above + 1 : row + below] = 1
        if level_lines.any():
            flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            lines |= cv2.warpAffine(level_lines, shear, (width, height), flags=flags)
    lines = cv2.dilate(lines, ones(3, 1))
    return cv2.min(lines, mask)


@cache
def shear_by(slope: float, width: int) -> NDArray[np.float64]:
    """What makes a line level that has a slope: an affine transform, (2, 3)."""
    return np.array([[1, 0, 0], [slope, 1, -slope * width / 2]])


def has_line(mask: Mask) -> bool:
    """Whether one of the rows may be a line's."""
    return cv2.minMaxLoc(count_ink(mask))[1] >= MIN_LINE_INK * mask.shape[1]


def measure_thickness(rows: Mask) -> int:
    """How many rows of a line there are, from one of them on: where nothing lies along it."""
    thickness, black, most = 1, rows[0], int(FREE * rows.shape[1])
    for row in rows[1:]:
        black = black & row
        if len(black) - cv2.countNonZero(black) > most:
            break
        thickness += 1
    return thickness


def confirm(rows: Mask, columns: Mask, mask: Mask) -> Mask:
    """Those horizontal lines that are found without the vertical ones as well: a stroke between
    two of these is none."""
    free = columns.max(axis=0) == 0
    if free.mean() < 0.5:
        return rows
    found = find_lines(np.ascontiguousarray(mask[:, free])).max(axis=1, keepdims=True)
    return rows & cv2.dilate(found, ones(3, 1))
