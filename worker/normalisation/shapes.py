"""The shapes in the ink: which of them is the digit, and which may be one as well."""

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.normalisation.measuring import FAINT, disc, ones
from worker.pictures import Grey

IMAGE_RIM = 0.12  # of the shorter side of the image
ON_RIM = 0.3  # is what a shape counts there, against 1 inside
SOLID_FILL = 0.45  # of its box: a shape that fills more is no stroke, but the end of a shadow,
SLIM = 0.25  # unless it is no wider than this share of its length
AS_SHADOW = 0.1  # is what such a shape counts at the edge of the image
MAX_HALF_BREAK = 0.03  # of the longer side: half of what may be between the pieces of a stroke
SURROUNDED = 0.35  # as long as what is around it, or longer, is a digit in a circle
MIN_AROUND = 8  # px: so long, or longer, is a circle around a digit
OPEN, DIRECTIONS = 0.6, 36  # of so many directions from it, or more, the circle closes
MAX_LINE_HEIGHT, BUTTON = (
    0.2,
    0.45,
)  # times its width: a line under a digit, or a button, is flatter
PAIR = 0.3  # and two lines that run together, or one that is not straight
FILLED = 0.8  # of its box is a button's ink
MIN_LINE_WIDTH, MAX_LINE_WIDTH = 0.6, 3.0  # as the digit is wide, such a line is; as it is high
UNDER = 0.06  # of the digit's height is between the two: else it may be the base of a 2
WIDER = 1.2  # than the digit is a line that leaves no doubt
NO_BASE = 1.8  # times as wide as the digit is a line that is no base of a 2, however near
PRINT = 0.12, 0.45  # of the digit's length, or between, printed characters are high
WORD = 3.0  # times as wide as high, or less: so many may run together
AS_HIGH, LEVEL = 0.6, 0.8  # as the one beside it is a character; of its height it lies beside it
THINNER = 0.7  # times as wide as the digit's are its strokes, or less: a piece's are as wide
MAX_PUNCHED_LENGTH = 0.4  # of the digit's length, of a punched hole
ROUND, MIN_PUNCHED_FILL = 0.75, 0.7  # of its own length and its box: a hole is as wide and as full
MIN_MARKED_SIDE = 48  # px: in a smaller image these may be pieces of a broken stroke

Sizes = NDArray[np.float64]  # (shapes,)
Flags = NDArray[np.bool_]  # (shapes,)
Boxes = tuple[Sizes, Sizes, Sizes, Sizes]  # left, top, width, height


def select_digit(ink: Grey) -> Grey:
    """The digit alone: without specks, and without neighbours that reach in from the edge.

    The digit is the shape with the most ink, the more so the nearer to the middle; on the rim lie
    what is left of frames and shadows, which count little, and less if they are solid or slim. A
    circle around a digit is none, nor is a line under it, nor print beside it. Pieces of broken
    strokes are one shape. A part of it is what is not tiny beside it, nor pale; and unless the
    digit fills the image, what is not far from it, nor at the edge of the image without being close
    to it.
    """
    mask = cv2.threshold(ink, FAINT, 1, cv2.THRESH_BINARY)[1]
    # the ground is one of the two; measuring them takes longer than counting
    if cv2.connectedComponents(mask, ltype=cv2.CV_16U)[0] <= 2:
        return ink
    inked = mask.view(np.bool_)
    height, width = mask.shape
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask, ltype=cv2.CV_16U)
    left, top, w, h, area = stats[1:].T.astype(np.float64)
    right, bottom = left + w, top + h
    edges = (left == 0, top == 0, right == width, bottom == height)
    shape = labels[inked]
    strength = np.bincount(shape, ink[inked], count)[1:] / area
    off = np.hypot(centres[1:, 0] / width - 0.5, centres[1:, 1] / height - 0.5)
    rim = round(IMAGE_RIM * min(height, width))
    inside = np.bincount(labels[rim : height - rim, rim : width - rim].ravel(), minlength=count)[1:]
    score = (
        np.sqrt(area) * np.maximum(w, h) * (1 - off) * strength * np.maximum(inside / area, ON_RIM)
    )
    at_edge = np.logical_or.reduce(edges)
    slim = np.minimum(w, h) <= SLIM * np.maximum(w, h)
    shadow = at_edge & (area > SOLID_FILL * w * h) & ~slim
    score[shadow] *= AS_SHADOW
    around = find_surrounds((left, top, w, h), labels)
    score[around] = 0
    group = group_pieces(inked, shape, count)
    under = find_underlines((left, top, w, h), area, score, group)
    score[under] = 0
    drawn = around | under
    own = group == np.bincount(group, score).argmax()
    main = int(np.where(own, score, -1).argmax())
    own &= (strength > 0.5 * strength[main]) & ~shadow & ~drawn
    own[main] = True
    first, last = (left[own].min(), top[own].min()), (right[own].max(), bottom[own].max())
    size = max(last[0] - first[0], last[1] - first[1])
    gap = np.hypot(
        np.maximum(0, np.maximum(first[0] - right, left - last[0])),
        np.maximum(0, np.maximum(first[1] - bottom, top - last[1])),
    )
    inside[main] = area[main]
    keep = (area >= 0.02 * area[main]) & (strength > 0.5 * strength[main]) & ~drawn
    spread = (keep & (inside > 0) & edges).any(axis=1)
    fills = spread.sum() > 2  # the digit fills the image
    if not fills:
        keep &= ~at_edge | (gap < 0.06 * size) & (off < 0.4)
        keep &= (group[:, None] == group[gap < 0.5 * size]).any(axis=1)
    keep |= own
    others = find_print((left, top, w, h), area, main, keep, labels)
    if not fills and max(height, width) >= MIN_MARKED_SIDE:
        others |= find_punched((left, top, w, h), area, (*first, *last)) & (group != group[main])
    keep &= ~others
    wanted = np.concatenate([[False], keep]).view(np.uint8).take(labels)
    kept: Grey = cv2.copyTo(ink, cv2.dilate(wanted, ones(3, 3)))
    return kept


def find_surrounds(boxes: Boxes, labels: NDArray[np.uint16]) -> Flags:
    """Which shapes are drawn around another that is not small beside them: a digit in a circle, or
    in a box, is what is inside. A circle of strokes may be open, or cut off at the edge of the
    image, a box have three sides."""
    left, top, w, h = boxes
    right, bottom, length = left + w, top + h, np.maximum(w, h)
    around = np.zeros(len(w), np.bool_)
    for outer in np.flatnonzero(length >= MIN_AROUND).tolist():
        inside = (left > left[outer]) & (top > top[outer])
        inside &= (right < right[outer]) & (bottom < bottom[outer])
        inside &= length >= SURROUNDED * length[outer]
        if not inside.any():
            continue
        rows, columns = np.nonzero(labels == outer + 1)
        for inner in np.flatnonzero(inside).tolist():
            down, across = rows - top[inner] - h[inner] / 2, columns - left[inner] - w[inner] / 2
            turns = np.floor(np.arctan2(down, across) * (DIRECTIONS / 2 / np.pi)) % DIRECTIONS
            around[outer] |= len(np.unique(turns)) >= OPEN * DIRECTIONS
    return around


def find_underlines(boxes: Boxes, area: Sizes, score: Sizes, group: NDArray[np.intp]) -> Flags:
    """Which shapes are a line drawn under the digit, or a button there."""
    left, top, w, h = boxes
    flat = (h <= MAX_LINE_HEIGHT * w) | (h <= BUTTON * w) & (area > FILLED * w * h)
    about_flat = flat | (h <= PAIR * w)
    if not about_flat.any():
        return flat
    digit = int(np.where(about_flat, -1, score).argmax())
    wide = w > WIDER * w[digit]
    beside = np.minimum(left + w, left[digit] + w[digit]) <= np.maximum(left, left[digit])
    long = (w > MIN_LINE_WIDTH * w[digit]) & (w < MAX_LINE_WIDTH * h[digit])
    no_base = w > NO_BASE * w[digit]
    under = top >= top[digit] + np.where(no_base, 1, 1 + UNDER) * h[digit]
    lines: NDArray[np.bool_] = (flat | about_flat & wide) & long & ~beside & under
    if np.count_nonzero(lines) > 2:  # a digit in stripes
        return np.zeros_like(flat)
    own = (group == group[digit]) & ~lines
    return lines & (top + h >= (top + h)[own].max())


def find_print(
    boxes: Boxes, area: Sizes, main: int, kept: Flags, labels: NDArray[np.uint16]
) -> Flags:
    """Which of the shapes that are kept are characters in a row beside the digit, as a form's cell
    has them: in thinner strokes, which pieces of the digit are not."""
    left, top, w, h = boxes
    printed = np.zeros(len(w), np.bool_)
    length = max(w[main], h[main])
    lowest, highest = PRINT
    small = kept & (h >= lowest * length) & (h <= highest * length) & (w <= WORD * h)
    if np.count_nonzero(small) < 2:
        return printed
    left, top, w, h = (part[small] for part in boxes)
    lower, higher = np.minimum.outer(h, h), np.maximum.outer(h, h)
    gap = np.maximum.outer(left, left) - np.minimum.outer(left + w, left + w)
    level = np.minimum.outer(top + h, top + h) - np.maximum.outer(top, top)
    in_row = (gap <= higher) & (lower >= AS_HIGH * higher) & (level >= LEVEL * lower)
    np.fill_diagonal(in_row, False)
    printed[small] = in_row.any(axis=1)
    if printed.any():
        reach = cv2.distanceTransform(cv2.min(labels, 1).astype(np.uint8), cv2.DIST_L2, 3)
        stroke = np.bincount(labels.ravel(), reach.ravel())[1:] / area  # a quarter of its width
        printed &= stroke <= THINNER * stroke[main]
    return printed


def find_punched(boxes: Boxes, area: Sizes, digit: tuple[float, float, float, float]) -> Flags:
    """Which shapes are punched holes beside the digit, whose left, top, right and bottom are
    `digit`."""
    left, _, w, h = boxes
    digit_left, digit_top, digit_right, digit_bottom = digit
    size = max(digit_right - digit_left, digit_bottom - digit_top)
    long, short = np.maximum(w, h), np.minimum(w, h)
    beside = (left + w < digit_left) | (left > digit_right)
    is_disc = (short >= ROUND * long) & (area >= MIN_PUNCHED_FILL * w * h)
    return np.asarray((long <= MAX_PUNCHED_LENGTH * size) & is_disc & beside)


def group_pieces(
    inked: NDArray[np.bool_], shape: NDArray[np.uint16], count: int
) -> NDArray[np.intp]:
    """A number for each shape, the same for those that are near each other; `shape` is the number
    of the one that each inked pixel is in, from 1 to below `count`."""
    reach = max(1, round(MAX_HALF_BREAK * max(inked.shape)))
    near = cv2.dilate(inked.view(np.uint8), disc(reach))
    group = np.zeros(count, np.intp)
    group[shape] = cv2.connectedComponents(near, ltype=cv2.CV_16U)[1][inked]
    return group[1:]
