"""Chooses the line of digits that is the number."""

import numpy as np
from numpy.typing import NDArray

from worker.numbers.finding import Candidates, find_median

CLEAR_CHANCE = 0.25  # a line goes through candidates that are at least so likely
MAX_ENDS = 32  # lines are drawn through each two of so many candidates, the likeliest ones
MAX_SLOPE = 0.36  # a line is tilted by at most 20°
MAX_OFF_LINE = 0.4  # the middle of a digit is at most this share of its height from the line
HEIGHT_RATIOS = (0.45, 2.2)  # the heights of two digits in one line have a ratio between these
MAX_GAP = 2.6  # heights of a digit: beyond a wider gap, another number begins ...
MAX_GAP_RATIO = 2.0  # ... unless the digits have wide gaps throughout, as in boxes
# A gap wider than a digit is high, and wider than twice the usual gap and 0.6 heights, may be
# between two numbers
WIDE_GAP, WIDE_STEP = 1.0, 0.6


def choose_line(found: Candidates) -> NDArray[np.intp]:
    """The candidates of the line with the most and largest digits, from left to right."""
    if not len(found.chances):
        return np.zeros(0, np.intp)
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    heights = (found.boxes[:, 3] - found.boxes[:, 1]).clip(1)
    clear = np.flatnonzero(found.chances >= max(CLEAR_CHANCE, 0.5 * found.chances[0]))
    clear = clear[:MAX_ENDS] if len(clear) else np.zeros(1, np.intp)
    first, second = clear.repeat(len(clear)), np.tile(clear, len(clear))
    steps = middles[second] - middles[first]
    slopes = steps[:, 1] / np.where(np.abs(steps[:, 0]) < 1, np.inf, steps[:, 0])
    usable = np.abs(slopes) <= MAX_SLOPE
    first, slopes = first[usable], slopes[usable]
    across = middles[None, :, 0] - middles[first, None, 0]
    off = np.abs(middles[None, :, 1] - middles[first, None, 1] - slopes[:, None] * across)
    off = off / heights[first, None]
    ratios = heights[None] / heights[first, None]
    inside = (off < MAX_OFF_LINE) & (ratios > HEIGHT_RATIOS[0]) & (ratios < HEIGHT_RATIOS[1])
    worth = (inside * (1 - 0.5 * off) * found.chances * heights).sum(1)
    line = np.flatnonzero(inside[worth.argmax()])
    line = line[middles[line, 0].argsort(kind="stable")]
    return choose_group(found, line)


def choose_group(found: Candidates, line: NDArray[np.intp]) -> NDArray[np.intp]:
    """The part of a line without wide gaps that has the most digits."""
    likely = line[found.chances[line] >= CLEAR_CHANCE]
    if len(likely) < 2:
        return line
    boxes = found.boxes[likely]
    height = find_median(boxes[:, 3] - boxes[:, 1])
    gaps = measure_gaps(boxes)
    usual = find_median(gaps) if len(gaps) > 2 else 0.0
    limit = max(MAX_GAP * height, MAX_GAP_RATIO * usual + height)
    starts = np.concatenate([[0], np.flatnonzero(gaps > limit) + 1, [len(likely)]])
    if len(starts) == 2:
        return line
    worth = [found.chances[likely[a:b]].sum() for a, b in zip(starts, starts[1:], strict=False)]
    best = int(np.argmax(worth))
    left = boxes[starts[best], 0] - limit / 2
    right = boxes[starts[best + 1] - 1, 2] + limit / 2
    middles = (found.boxes[line, 0] + found.boxes[line, 2]) / 2
    return np.asarray(line[(middles > left) & (middles < right)])


def has_wide_gap(boxes: NDArray[np.float32], height: float) -> bool:
    """Whether digits, (N, 4) from left to right, may be two numbers: one gap is much wider."""
    gaps = np.sort(measure_gaps(boxes)) / height
    if len(gaps) < 2:
        return False
    usual = gaps[(len(gaps) - 1) // 2]
    return bool(gaps[-1] > max(WIDE_GAP, MAX_GAP_RATIO * usual + WIDE_STEP))


def measure_gaps(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The gaps between boxes, (N, 4) from left to right: (N − 1,), in px."""
    return np.asarray(boxes[1:, 0] - np.maximum.accumulate(boxes[:, 2])[:-1])
