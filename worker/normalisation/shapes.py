"""The shapes in the ink: which of them is the digit, and which may be one as well."""

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.normalisation.measuring import FAINT, disc, ones
from worker.pictures import Grey

IMAGE_RIM = 0.12  # of the shorter side of the image
ON_RIM = 0.3  # is what a shape counts there, against 1 inside
SOLID_FILL, SLIM = (
    0.45,
    0.25,
)  # of its box; of its length: more is no stroke, but the end of a shadow
AS_SHADOW = 0.1  # is what such a shape counts at the edge of the image
FRAME = 0.3  # of a side of the image, along it: a slim shape so long is left of a frame
AS_FRAME = 0.33  # is what that counts
HAIR, MIN_RULED_LENGTH = (
    0.08,
    0.6,
)  # of its length; of a side of the image: so slim and so long is a line
BESIDE = 0.08  # of the longer side: so long, or longer, is a digit beside one
MAX_HALF_BREAK = 0.03  # of the longer side: half of what may be between the pieces of a stroke
SURROUNDED = 0.35  # as long as what is around it, or longer, is a digit in a circle
MIN_AROUND = 8  # px: so long, or longer, is a circle around a digit
OPEN, DIRECTIONS = 0.6, 36  # of so many directions from it, or more, the circle closes
CLOSED = 0.95  # of them, what is solid
MAX_LINE_HEIGHT, BUTTON = (
    0.2,
    0.45,
)  # as high as wide, or less, is a line under a digit; and a button
PAIR = 0.3  # and two lines that run together, or one that is not straight
FILLED = 0.8  # of its box is a button's ink
MIN_LINE_WIDTH, MAX_LINE_WIDTH = 0.6, 3.0  # as the digit is wide, such a line is; as it is high
UNDER = 0.06  # of the digit's height is between the two: else it may be the base of a 2
MIN_WHOLE_HEIGHT = 0.5  # of what is above the line is the digit: else it may be in pieces
WIDER = 1.2  # than the digit is a line that leaves no doubt
NO_BASE = 1.8  # times as wide as the digit is a line that is no base of a 2, however near
PRINT = 0.12, 0.45  # of the digit's length, or between, printed characters are high
WORD = 3.0  # times as wide as high, or less: so many may run together
AS_HIGH, LEVEL = 0.6, 0.8  # as the one beside it is a character; of its height it lies beside it
THINNER = 0.7  # times as wide as the digit's are its strokes, or less: a piece's are as wide
STOP = 0.3  # of the digit's length: a full stop is shorter
LOW = 0.25  # of its height: so near its foot it lies
MAX_PUNCHED_LENGTH, ROUND, MIN_PUNCHED_FILL = (
    0.4,
    0.75,
    0.7,
)  # of its length, a punched hole; of its own length; of its box
MIN_MARKED_SIDE = 48  # px: in a smaller image these may be pieces of a broken stroke

Sizes = NDArray[np.float64]  # (shapes,)
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
    across, down = edges[1] | edges[3], edges[0] | edges[2]
    frame = slim & (across & (w > FRAME * width) | down & (h > FRAME * height))
    score[shadow] *= AS_SHADOW
    score[frame] *= AS_FRAME
    around = find_surrounds((left, top, w, h), area, labels)
    score[around] = 0
    group = group_pieces(inked, shape, count)
    ruled = find_ruled((left, top, w, h), strength, at_edge | slim, group, (height, width))
    score[ruled] = 0
    under = find_underlines((left, top, w, h), area, score, group)
    score[under] = 0
    drawn = around | under | ruled
    own = group == np.bincount(group, score).argmax()
    main = int(np.where(own, score, -1).argmax())
    own &= (strength > 0.5 * strength[main]) & ~shadow & ~frame & ~drawn
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
        others |= find_marks((left, top, w, h), area, (*first, *last)) & (group != group[main])
    wanted = np.concatenate([[False], keep & ~others]).view(np.uint8).take(labels)
    kept: Grey = cv2.copyTo(ink, cv2.dilate(wanted, ones(3, 3)))
    return kept


def find_surrounds(boxes: Boxes, area: Sizes, labels: NDArray[np.uint16]) -> NDArray[np.bool_]:
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
        closed = OPEN if area[outer] < SOLID_FILL * w[outer] * h[outer] else CLOSED
        rows, columns = np.nonzero(labels == outer + 1)
        for inner in np.flatnonzero(inside).tolist():
            down, across = rows - top[inner] - h[inner] / 2, columns - left[inner] - w[inner] / 2
            turns = np.floor(np.arctan2(down, across) * (DIRECTIONS / 2 / np.pi)) % DIRECTIONS
            around[outer] |= len(np.unique(turns)) >= closed * DIRECTIONS
    return around


def find_ruled(
    boxes: Boxes,
    strength: Sizes,
    is_no_digit: NDArray[np.bool_],
    group: NDArray[np.intp],
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Which shapes are what is seen of a ruled line, as a margin's, beside a digit that is no paler
    than they are: one that isn't slim, nor at the edge of the image."""
    left, top, w, h = boxes
    first, last = np.full((2, group.max() + 1), np.inf), np.zeros((2, group.max() + 1))
    for axis, (start, length) in enumerate(((left, w), (top, h))):
        np.minimum.at(first[axis], group, start)
        np.maximum.at(last[axis], group, start + length)
    width, height = last - first
    down = (width <= HAIR * height) & (height >= MIN_RULED_LENGTH * shape[0])
    ruled: NDArray[np.bool_] = (
        down | (height <= HAIR * width) & (width >= MIN_RULED_LENGTH * shape[1])
    )[group]
    if ruled.any():
        digit = ~is_no_digit & ~ruled & (np.maximum(w, h) >= BESIDE * max(shape))
        ruled &= strength <= strength.max(initial=0, where=digit)
    return ruled


def find_underlines(
    boxes: Boxes, area: Sizes, score: Sizes, group: NDArray[np.intp]
) -> NDArray[np.bool_]:
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
    last = top + h >= (top + h)[own].max()
    whole = h[digit] >= MIN_WHOLE_HEIGHT * (top - top[own].min())
    lines &= last & whole
    return lines


def find_print(
    boxes: Boxes, area: Sizes, main: int, kept: NDArray[np.bool_], labels: NDArray[np.uint16]
) -> NDArray[np.bool_]:
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


def find_marks(
    boxes: Boxes, area: Sizes, digit: tuple[float, float, float, float]
) -> NDArray[np.bool_]:
    """Which shapes are a full stop or a comma after the digit, from whose left and top to whose
    right and bottom `digit` is; or a punched hole beside it."""
    left, top, w, h = boxes
    digit_left, digit_top, digit_right, digit_bottom = digit
    size = max(digit_right - digit_left, digit_bottom - digit_top)
    long, short = np.maximum(w, h), np.minimum(w, h)
    low = top + h / 2 >= digit_bottom - LOW * (digit_bottom - digit_top)
    stops = (left >= digit_right) & low & (long <= STOP * size)
    beside = (left + w < digit_left) | (left > digit_right)
    holes = (
        (long <= MAX_PUNCHED_LENGTH * size)
        & (short >= ROUND * long)
        & (area >= MIN_PUNCHED_FILL * w * h)
        & beside
    )
    marks: NDArray[np.bool_] = stops | holes
    return marks


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
