"""Chooses the line of digits that is the number."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.sight.numbers.finding import Candidates, find_median

CLEAR_CHANCE = 0.25  # a line goes through candidates that are at least so likely
MAX_ENDS = 32  # lines are drawn through each two of so many candidates, the likeliest ones
MAX_SLOPE = 0.36  # a line is tilted by at most 20° ...
MAX_TILT = 60  # degrees: ... unless the picture is turned, then by at most so much
TILTED_CHANCE = 0.1  # candidates with this chance show how far a line is tilted
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
    line = draw_line(found, max(CLEAR_CHANCE, 0.5 * found.chances[0]), MAX_SLOPE)
    middles = (found.boxes[line, 0] + found.boxes[line, 2]) / 2
    return choose_group(found, line[middles.argsort(kind="stable")])


def draw_line(found: Candidates, least: float, steepest: float) -> NDArray[np.intp]:
    """The candidates of the straight line with the most and largest digits.

    It goes through two candidates of at least this chance; else it is level, through the likeliest.
    """
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    heights = (found.boxes[:, 3] - found.boxes[:, 1]).clip(1)
    ends = np.flatnonzero(found.chances >= least)[:MAX_ENDS]
    ends = ends if len(ends) else np.zeros(1, np.intp)
    first, second = ends.repeat(len(ends)), np.tile(ends, len(ends))
    steps = middles[second] - middles[first]
    slopes = steps[:, 1] / np.where(np.abs(steps[:, 0]) < 1, np.inf, steps[:, 0])
    usable = np.abs(slopes) <= steepest
    first, slopes = first[usable], slopes[usable]
    across = middles[None, :, 0] - middles[first, None, 0]
    off = np.abs(middles[None, :, 1] - middles[first, None, 1] - slopes[:, None] * across)
    off = off / (heights[first] * np.hypot(1, slopes))[:, None]
    ratios = heights[None] / heights[first, None]
    inside = (off < MAX_OFF_LINE) & (ratios > HEIGHT_RATIOS[0]) & (ratios < HEIGHT_RATIOS[1])
    worth = (inside * (1 - 0.5 * off) * found.chances * heights).sum(1)
    return np.flatnonzero(inside[worth.argmax()])


def measure_tilt(found: Candidates, line: Candidates) -> float:
    """How far the line of digits falls to the right, in degrees; 0 if it has less than two digits,
    or is steeper than MAX_TILT.

    If the chosen line lacks some of the candidates, they may be on a steeper one.
    """
    boxes = line.boxes[line.chances >= TILTED_CHANCE]
    likely = found.take(np.flatnonzero(found.chances >= TILTED_CHANCE))
    if len(likely.boxes) > len(boxes):
        steeper = likely.boxes[draw_line(likely, TILTED_CHANCE, math.tan(math.radians(MAX_TILT)))]
        boxes = steeper if len(steeper) > len(boxes) else boxes
    if len(boxes) < 2:
        return 0.0
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    across, down, *_ = cv2.fitLine(middles, cv2.DIST_L2, 0, 0.01, 0.01).ravel().tolist()
    tilt = math.degrees(math.atan(down / across)) if across else 90.0
    return tilt if abs(tilt) < MAX_TILT else 0.0


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
