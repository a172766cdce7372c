"""Chooses the line of digits that is the number."""

import math
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.sight.numbers.finding import Candidates, find_median

CLEAR_CHANCE = 0.25  # a line goes through candidates with at least this chance
MIN_SHARE_OF_BEST = 0.5  # they also have at least this share of the likeliest one's chance
MAX_ENDS = 32  # lines are drawn through each two of this many candidates, the likeliest ones
MAX_SLOPE = 0.36  # a line falls or rises by at most this for each px across, which is 20°
MAX_TILT = 60  # degrees: a picture is turned for a line that is tilted by less than this
TILTED_CHANCE = 0.1  # candidates with this chance show how far a line is tilted
MAX_OFF_LINE = 0.4  # the middle of a digit is at most this share of its height off the line
OFF_LINE_COST = 0.5  # a digit loses this share of its worth for each height that it is off the line
HEIGHT_RATIOS = (0.45, 2.2)  # the heights of two digits in one line have a ratio between these
MAX_GAP = 2.6  # heights of a digit: another number begins after a gap that is wider
MAX_GAP_RATIO = 2.0  # such a gap is also wider than this many usual gaps plus one height
WIDE_GAP = 1.0  # heights of a digit: a wider gap may be between two numbers
WIDE_STEP = 0.6  # it is also wider than `MAX_GAP_RATIO` usual gaps plus this many heights


def choose_line(found: Candidates) -> Candidates:
    """The candidates of the line with the most and largest digits, from left to right."""
    if not len(found.chances):
        return found
    line = draw_line(found, max(CLEAR_CHANCE, MIN_SHARE_OF_BEST * found.chances[0]), MAX_SLOPE)
    return choose_group(line.take(line.middles[:, 0].argsort(kind="stable")))


def draw_line(found: Candidates, min_chance: float, max_slope: float) -> Candidates:
    """The candidates of the straight line with the most and largest digits.

    It goes through two candidates of at least this chance; else it is level, through the likeliest.
    """
    middles, heights = found.middles, found.heights.clip(1)
    ends = np.flatnonzero(found.chances >= min_chance)[:MAX_ENDS]
    ends = ends if len(ends) else np.zeros(1, np.intp)
    first, second = ends.repeat(len(ends)), np.tile(ends, len(ends))
    steps = middles[second] - middles[first]
    slopes = steps[:, 1] / np.where(np.abs(steps[:, 0]) < 1, np.inf, steps[:, 0])
    usable = np.abs(slopes) <= max_slope
    first, slopes = first[usable], slopes[usable]
    across = middles[None, :, 0] - middles[first, None, 0]
    off = np.abs(middles[None, :, 1] - middles[first, None, 1] - slopes[:, None] * across)
    off = off / (heights[first] * np.hypot(1, slopes))[:, None]
    ratios = heights[None] / heights[first, None]
    inside = (off < MAX_OFF_LINE) & (ratios > HEIGHT_RATIOS[0]) & (ratios < HEIGHT_RATIOS[1])
    worth = (inside * (1 - OFF_LINE_COST * off) * found.chances * heights).sum(1)
    return found.take(np.flatnonzero(inside[worth.argmax()]))


def measure_tilt(found: Candidates, line: Candidates) -> float:
    """How far the line of digits falls to the right, in degrees; 0 if it has less than two digits,
    or is steeper than MAX_TILT.

    If the chosen line lacks some of the candidates, they may be on a steeper one.
    """
    middles, likely = line.likely(TILTED_CHANCE).middles, found.likely(TILTED_CHANCE)
    if len(likely.chances) > len(middles):
        steeper = draw_line(likely, TILTED_CHANCE, math.tan(math.radians(MAX_TILT))).middles
        middles = steeper if len(steeper) > len(middles) else middles
    if len(middles) < 2:
        return 0.0
    across, down, *_ = cv2.fitLine(middles, cv2.DIST_L2, 0, 0.01, 0.01).ravel().tolist()
    tilt = math.degrees(math.atan(down / across)) if across else 90.0
    return tilt if abs(tilt) < MAX_TILT else 0.0


def choose_group(line: Candidates) -> Candidates:
    """The part of a line without wide gaps that has the most digits."""
    likely = line.likely(CLEAR_CHANCE)
    if len(likely.chances) < 2:
        return line
    height, gaps = find_median(likely.heights), measure_gaps(likely.boxes)
    usual = find_median(gaps) if len(gaps) > 2 else 0.0
    limit = max(MAX_GAP * height, MAX_GAP_RATIO * usual + height)
    starts = np.concatenate([[0], np.flatnonzero(gaps > limit) + 1, [len(gaps) + 1]])
    if len(starts) == 2:
        return line
    worth = [likely.chances[start:end].sum() for start, end in pairwise(starts)]
    best = int(np.argmax(worth))
    left = likely.boxes[starts[best], 0] - limit / 2
    right = likely.boxes[starts[best + 1] - 1, 2] + limit / 2
    return line.take(np.flatnonzero((line.middles[:, 0] > left) & (line.middles[:, 0] < right)))


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
