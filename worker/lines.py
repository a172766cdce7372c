"""Ruled lines and the lines of forms: finding them in the ink, and taking them out of it."""

from collections.abc import Sequence
from functools import cache
from math import ceil
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.ground import ones, order, percentiles
from worker.pictures import Grey, Mask
from worker.shapes import is_box

FAINT_LINE = 32  # of 255: it may be fainter than the digit
STRAIGHT = 0b11  # marks a line without steps; 0b01, one with; what a shift leaves has none
SLOPES = (-0.04, -0.02, 0.0, 0.02, 0.04)  # the tilts that are tried
WHOLE, HALF = 0.95, 0.5  # of its length: a line is black so far, and its blurred sides
THICKEST = 0.14  # of the image's height
THICK = 0.08  # of it; one that something lies along may be no thicker
FREE = 0.3  # of its length nothing lies along it
GAP = 10  # a line may be broken for a tenth of its length
LEAST_SIDE = 17  # px: in a smaller image, a stroke is no thicker than a line
COVERED = 0.85  # of the length of a frame's side there is ink, or more
ALONG = 0.7  # of it, where the corners are round
FRAMED = 0.3  # of a frame's height a digit in it is high, or more
ENDS = 16  # the first and the last sixteenth of a line
AT_ENDS = 0.4  # of them is black
LEAST_DIGIT = 0.2  # of the image's side: what is left must be as large
LEAST_AMONG = 0.08  # of it, where there are many lines: no digit is so many strokes side by side
MANY = 3  # lines, or more
AS_THICK = 0.7  # as strokes are is a bar, or more
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
RIM = 0.2  # of the image's height, or width: what lies there and touches lines is the form's
SIDES = 0.25  # of its width: so near its left or right edge a cell may have its sides
NEAR = 0.14  # of the shorter side: so near the digit it may be a part of it that a line cuts off
EDGE = 0.15  # of the image's height: so near, a bar is at the top of a digit, or at its foot
FREE_AROUND = 0.03  # of it, and a pixel: no more is left free by a digit that fills the image


def remove_lines(ink: Grey) -> Grey:
    """Without the lines of a form: those that go right across the image, or across what is inked as
    a frame does; or else without a frame of another shape."""
    mask = cv2.threshold(ink, FAINT_LINE, 1, cv2.THRESH_BINARY)[1]
    (height, width), (left, top, w, h) = mask.shape, cv2.boundingRect(mask)
    wide, high = w + width // GAP >= WHOLE * width, h + height // GAP >= WHOLE * height
    if min(height, width) < LEAST_SIDE:
        return ink
    if wide or high:
        without = remove_straight_lines(ink, mask, wide, high)
        if without is ink and has_sides(mask, RIM, ALONG):
            return leave_inside(ink, mask, 1)
        return without
    box = np.s_[top : top + h, left : left + w]
    inked, mask = ink[box], mask[box]
    if min(w, h) < LEAST_SIDE or not has_sides(mask, RIM, ALONG):
        return ink  # as nearly always
    inside = remove_straight_lines(inked, mask, True, True) if is_frame(mask) else inked
    if inside is inked or not is_framed(inside):  # the lines are the digit's own, as on a display
        inside = leave_inside(inked, mask, 0)
    if inside is inked:
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
        least = LEAST_AMONG if many else LEAST_DIGIT
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


def find_grid(mask: Mask, wide: bool, high: bool) -> tuple[Mask, Mask]:
    """The horizontal lines of a mask, where its ink is so wide, and the vertical ones."""
    none = np.zeros(mask.shape, np.uint8)
    across, level = trace_lines(mask) if wide else (none, none)
    down, upright = (part.T for part in trace_lines(cv2.transpose(mask))) if high else (none, none)
    is_wide, is_high = across.any(), down.any()
    if is_wide and not is_high and (sides := find_sides(mask, across)).any():
        return across, sides
    if is_high and not is_wide and (sides := find_sides(cv2.transpose(mask), down.T)).any():
        return sides.T, down
    if is_wide and is_high:
        return confirm(across, down, mask), confirm(down.T, across.T, mask.T).T
    if is_wide and count_lines(across) == 1:  # a step in a lone one, and it may be a stroke
        across = level
    if is_high and count_lines(down.T) == 1:
        down = upright
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


def is_frame(mask: Mask) -> bool:
    """Whether there are lines along three of the four sides of what is inked, or along all."""
    if not has_sides(mask, EDGE, COVERED):
        return False
    down, right = (round(EDGE * side) + 1 for side in mask.shape)
    across = find_lines(mask)
    found = int(across[:down].any()) + int(across[-down:].any())
    if not found:
        return False
    along = find_lines(cv2.transpose(mask))
    return found + int(along[:right].any()) + int(along[-right:].any()) > 2


def leave_inside(ink: Grey, mask: Mask, most_cut_off: int) -> Grey:
    """What is inside of a frame that goes along the edges of an image, of which so many may cut it
    off, if there is a digit; else the ink itself.

    The frame may have rounded corners, end at a neighbour's, or be touched by the digit, but it is
    no ring; all that is between its sides is in the convex hull of the ground there.
    """
    height, width = mask.shape
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        1 - mask, connectivity=4, ltype=cv2.CV_16U
    )
    ground = 1 + int(stats[1:, 4].argmax()) if len(stats) > 1 else 0
    left, top, w, h, _ = stats[ground]
    cut_off = int(left == 0) + int(top == 0) + int(left + w == width) + int(top + h == height)
    if not ground or cut_off > most_cut_off or w < HALF * width or h < HALF * height:
        return ink
    within = labels == ground
    if not is_box(within):
        return ink  # a 0's, with a stroke in it; of a circle, see drop_specks
    hull = cv2.convexHull(cv2.findNonZero(within.view(np.uint8)))
    inside = cv2.drawContours(np.zeros_like(mask), [hull], -1, 1, cv2.FILLED)
    framed: Grey = ink * cv2.erode(inside, ones(3, 3))  # no slivers of its sides
    return framed if is_framed(framed[top : top + h, left : left + w]) else ink


def has_sides(mask: Mask, rim: float, covered: float) -> bool:
    """Whether there is so much ink along three of the four sides of a mask, or along all."""
    down, right = (round(rim * side) + 1 for side in mask.shape)
    sides = (mask[:, :right], 1), (mask[:, -right:], 1), (mask[:down], 0), (mask[-down:], 0)
    missing = 0
    for side, axis in sides:
        along = cv2.reduce(side, axis, cv2.REDUCE_MAX)
        missing += cv2.countNonZero(along) < covered * along.size
        if missing > 1:
            return False  # as nearly always
    return True


def is_framed(ink: Grey) -> bool:
    """Whether what is left of a frame without its lines is a digit in its middle."""
    digit = largest_shape(cv2.threshold(ink, FAINT_LINE, 1, cv2.THRESH_BINARY)[1])
    (height, width), (x, y, w, h) = ink.shape, cv2.boundingRect(digit)
    return h >= FRAMED * height and x < width / 2 < x + w and y < height / 2 < y + h


def count_lines(rows: Mask) -> int:
    """How many horizontal lines there are in a mask of nothing else."""
    return len(find_runs(rows.max(axis=1) > 0))


def find_lines(mask: Mask) -> Mask:
    """The lines of a mask that run from left to right, somewhat tilted perhaps; a thin one, or a
    bent one, may have steps of a pixel."""
    return trace_lines(mask)[0]


def trace_lines(mask: Mask) -> tuple[Mask, Mask]:
    """All of these lines, and those without steps."""
    height, width = mask.shape
    lines = np.zeros(mask.shape, np.uint8)
    gap = ones(1, max(1, width // GAP))
    reach = ones(2 + 2 * ceil(SLOPES[-1] * width / 2), gap.size)  # of any tilt
    widened = cv2.dilate(mask, reach)
    if not has_line(widened) or not has_line(cv2.erode(widened, gap)):
        return lines, lines
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, gap)
    for slope in SLOPES:
        shear = shear_by(slope, width)
        level = cv2.warpAffine(closed, shear, (width, height), flags=cv2.INTER_NEAREST)
        stepped = cv2.max(level[:-1], level[1:])
        if not has_line(stepped) or not (whole := are_lines(stepped)).any():
            continue
        straight, black = are_lines(level), measure_rows(level)
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
                kind = STRAIGHT if straight[start:stop].any() else 1
                level_lines[row - above + 1 : row + below] |= kind
        if level_lines.any():
            flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            lines |= cv2.warpAffine(level_lines, shear, (width, height), flags=flags)
    lines = cv2.dilate(lines, ones(3, 1))
    return cv2.min(lines, mask), cv2.min(lines >> 1, mask)


@cache
def shear_by(slope: float, width: int) -> NDArray[np.float64]:
    """What makes a line level that has a slope: an affine transform, (2, 3)."""
    return np.array([[1, 0, 0], [slope, 1, -slope * width / 2]])


def has_line(mask: Mask) -> bool:
    """Whether one of the rows may be a line's."""
    return cv2.minMaxLoc(count_ink(mask))[1] >= WHOLE * mask.shape[1]


def are_lines(mask: Mask) -> NDArray[np.bool_]:
    """Which rows are those of a line, to both of its ends: (height, width) → (height,)."""
    width = mask.shape[1]
    end = max(1, width // ENDS)
    first, last = count_ink(mask[:, :end]), count_ink(mask[:, -end:])
    rows = (count_ink(mask) >= WHOLE * width) & (first > AT_ENDS * end) & (last > AT_ENDS * end)
    return rows[:, 0]


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


def measure_rows(mask: Mask) -> NDArray[np.float64]:
    """How much of each row is 1: (height, width) → (height,), 0..1."""
    return count_ink(mask)[:, 0] / mask.shape[1]


def count_ink(mask: Mask) -> NDArray[np.int32]:
    """How many pixels of each row are 1: (height, width) → (height, 1)."""
    return cv2.reduce(mask, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)


def largest_shape(mask: Mask) -> Mask:
    """The connected shape of the most pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, ltype=cv2.CV_16U)
    return mask if count == 1 else (labels == 1 + np.argmax(stats[1:, 4])).astype(np.uint8)


def are_on_rim(boxes: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Whether what is in a box, or in each of some, lies at one edge of the image: left, top, width
    and height → a flag, or as many."""
    (left, top, w, h), (height, width) = boxes, shape
    across, down = RIM * width, RIM * height
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
    reach = 2 * round(NEAR * min(rest.shape)) + 1
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
    edge, free = round(EDGE * len(lines)) + 1, 1
    if not (lines[:, 0].any() and lines[:, -1].any()):  # as a ruled line goes
        free += round(FREE_AROUND * len(lines))
    near, far = others[:free].any(), others[-free:].any()
    return bool((near or lines[:edge].any()) and (far or lines[-edge:].any()))


def is_bar(lines: Mask, width: float, stroke: float) -> bool:
    """Whether a horizontal line lies in the midst of the image and is about as thick as strokes."""
    edge = round(EDGE * len(lines)) + 1
    return not (lines[:edge].any() or lines[-edge:].any()) and width > AS_THICK * stroke


def measure_stroke(mask: Mask) -> float:
    """The mean width of the strokes in px: twice their area for the length of their edge."""
    area = cv2.countNonZero(mask)
    inner = cv2.erode(mask, CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return 2 * area / max(area - cv2.countNonZero(inner), 1)


def find_runs(flags: NDArray[np.bool_]) -> list[list[int]]:
    """From where to where each run of true goes in a row of flags."""
    padded = np.zeros(len(flags) + 2, np.bool_)
    padded[1:-1] = flags
    runs: list[list[int]] = np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2).tolist()
    return runs


def bridge(rest: Mask, lines: Mask) -> Mask:
    """Where a stroke crosses horizontal lines: between ink above and below."""
    others = np.flatnonzero(np.concatenate([[0], lines.max(axis=1), [0]]) == 0)
    thick = (int(np.diff(others).max()) + 1) | 1  # an even kernel moves what it closes
    padded = cv2.copyMakeBorder(rest, thick, thick, 0, 0, cv2.BORDER_CONSTANT)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, ones(thick, 1))
    return closed[thick:-thick] & lines
