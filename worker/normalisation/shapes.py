"""The shapes in the ink: an outline is filled, and the digit is selected."""

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.normalisation.measuring import FAINT, disc, find_largest, mask_over, ones
from worker.pictures import Grey

MIN_ROUND_FILL = 0.85  # a 0 fills at least this share of its convex hull
IMAGE_RIM = 0.12  # the rim of the image is this share of its shorter side
SOLID_FILL = 0.45  # a shape at the edge that fills more of its box is a shadow, unless it is slim
MAX_LINE_HEIGHT = 0.2  # a line under a digit is at most this many times as high as wide
BUTTON = 0.45  # a button under a digit is at most this many times as high as wide
PAIR = 0.3  # two lines that run together, or one that is bent, are at most so high
WIDER = 1.2  # a line that is wider than this many digits is certainly no digit
NO_BASE = 1.8  # a line that is wider than this many digits is not the base of a 2, however near
THINNER = 0.7  # print has strokes at most this many times as wide as those of the digit

Sizes = NDArray[np.float64]  # (shapes,)
Flags = NDArray[np.bool_]  # (shapes,)
Labels = NDArray[np.uint16]  # (height, width), or (inked pixels,): from 1 on, a shape
Boxes = NDArray[np.float64]  # (4, shapes): left, top, width, height


def fill_outline(ink: Grey) -> Grey:
    """Fill a digit that is drawn as an outline: its hole's edge is about as long as its own."""
    found = find_largest(mask_over(ink, 100), cv2.CHAIN_APPROX_SIMPLE)
    if not found:
        return ink
    outlines, around, main, holes = found
    outer, hole = outlines[main], max(holes, key=cv2.contourArea)
    if cv2.arcLength(hole, True) < 0.75 * cv2.arcLength(outer, True):
        return ink
    _, sides, _ = cv2.minAreaRect(outer)
    hull = cv2.contourArea(cv2.convexHull(outer))
    if cv2.contourArea(outer) >= MIN_ROUND_FILL * hull and min(sides) > 0.27 * max(sides):
        return ink  # it is a ring, as a thin 0 is
    filled = cv2.drawContours(np.zeros_like(ink), [outer], -1, 255, cv2.FILLED)
    for number, of in enumerate(around):
        if of < 0 or of == main:
            continue
        if cv2.pointPolygonTest(hole, outlines[of][0, 0].tolist(), False) > 0:
            cv2.drawContours(filled, outlines, number, 0, cv2.FILLED)  # a hole in the digit itself
    return np.asarray(cv2.max(ink, filled))


def select_digit(ink: Grey) -> Grey:
    """Keep the digit alone, without specks and without neighbours that reach in from the edge.

    The digit is the shape with the most ink; ink counts more near the middle, and little on the
    rim, where the rests of frames and shadows are. Other shapes are parts of the digit if they are
    neither tiny nor pale beside it and, unless the digit fills the image, near to it.
    """
    mask = mask_over(ink, FAINT)
    # the ground is one of the two components; measuring them takes longer than counting
    if cv2.connectedComponents(mask, ltype=cv2.CV_16U)[0] <= 2:
        return ink
    inked = mask.view(np.bool_)
    height, width = mask.shape
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask, ltype=cv2.CV_16U)
    measures = stats[1:].T.astype(np.float64)
    boxes, area = measures[:4], measures[4]
    left, top, w, h = boxes
    right, bottom = left + w, top + h
    edges = (left == 0, top == 0, right == width, bottom == height)
    shape = labels[inked]
    strength = np.bincount(shape, ink[inked], count)[1:] / area
    off = np.hypot(centres[1:, 0] / width - 0.5, centres[1:, 1] / height - 0.5)
    rim = round(IMAGE_RIM * min(height, width))
    inside = np.bincount(labels[rim : height - rim, rim : width - rim].ravel(), minlength=count)[1:]
    score = np.sqrt(area) * np.maximum(w, h) * (1 - off) * strength * np.maximum(inside / area, 0.3)
    at_edge = np.logical_or.reduce(edges)
    slim = np.minimum(w, h) <= 0.25 * np.maximum(w, h)
    shadow = at_edge & (area > SOLID_FILL * w * h) & ~slim
    score[shadow] *= 0.1
    around = find_surrounds(boxes, labels)
    score[around] = 0
    group = group_pieces(inked, shape, count)
    under = find_underlines(boxes, area, score, group)
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
    others = find_print(boxes, area, main, keep, labels)
    if not fills and max(height, width) >= 48:  # else the holes may be pieces of a broken stroke
        others |= find_punched(boxes, area, (first[0], last[0]), size) & (group != group[main])
    keep &= ~others
    wanted = np.concatenate([[False], keep]).view(np.uint8).take(labels)
    kept: Grey = cv2.copyTo(ink, cv2.dilate(wanted, ones(3, 3)))
    return kept


def find_surrounds(boxes: Boxes, labels: Labels) -> Flags:
    """Which shapes are circles or boxes around another shape; they may be open at one side."""
    left, top, w, h = boxes
    right, bottom, length = left + w, top + h, np.maximum(w, h)
    around = np.zeros(len(w), np.bool_)
    for outer in np.flatnonzero(length >= 8).tolist():
        inside = (left > left[outer]) & (top > top[outer])
        inside &= (right < right[outer]) & (bottom < bottom[outer])
        inside &= length >= 0.35 * length[outer]
        if not inside.any():
            continue
        rows, columns = np.nonzero(labels == outer + 1)
        for inner in np.flatnonzero(inside).tolist():
            down, across = rows - top[inner] - h[inner] / 2, columns - left[inner] - w[inner] / 2
            turns = np.floor(np.arctan2(down, across) * (18 / np.pi)) % 36  # directions
            around[outer] |= len(np.unique(turns)) >= 0.6 * 36
    return around


def find_underlines(boxes: Boxes, area: Sizes, score: Sizes, group: NDArray[np.intp]) -> Flags:
    """Which shapes are a line or a button under the digit; there may be two."""
    left, top, w, h = boxes
    flat = (h <= MAX_LINE_HEIGHT * w) | (h <= BUTTON * w) & (area > 0.8 * w * h)
    about_flat = flat | (h <= PAIR * w)
    if not about_flat.any():
        return flat
    digit = int(np.where(about_flat, -1, score).argmax())
    wide = w > WIDER * w[digit]
    beside = np.minimum(left + w, left[digit] + w[digit]) <= np.maximum(left, left[digit])
    long = (w > 0.6 * w[digit]) & (w < 3.0 * h[digit])
    no_base = w > NO_BASE * w[digit]
    under = top >= top[digit] + np.where(no_base, 1, 1.06) * h[digit]  # nearer, a 2 has its base
    lines: Flags = (flat | about_flat & wide) & long & ~beside & under
    if np.count_nonzero(lines) > 2:  # the digit is in stripes
        return np.zeros_like(flat)
    own = (group == group[digit]) & ~lines
    return lines & (top + h >= (top + h)[own].max())


def find_print(boxes: Boxes, area: Sizes, main: int, kept: Flags, labels: Labels) -> Flags:
    """Which kept shapes are print in a row: their strokes are thinner than those of the digit."""
    left, top, w, h = boxes
    printed = np.zeros(len(w), np.bool_)
    length = max(w[main], h[main])
    small = kept & (h >= 0.12 * length) & (h <= 0.45 * length)
    small &= w <= 3.0 * h  # a few characters may run together
    if np.count_nonzero(small) < 2:
        return printed
    left, top, w, h = boxes[:, small]
    lower, higher = np.minimum.outer(h, h), np.maximum.outer(h, h)
    gap = np.maximum.outer(left, left) - np.minimum.outer(left + w, left + w)
    level = np.minimum.outer(top + h, top + h) - np.maximum.outer(top, top)
    in_row = (gap <= higher) & (lower >= 0.6 * higher) & (level >= 0.8 * lower)
    np.fill_diagonal(in_row, False)
    printed[small] = in_row.any(axis=1)
    if printed.any():
        reach = cv2.distanceTransform(cv2.min(labels, 1).astype(np.uint8), cv2.DIST_L2, 3)
        stroke = np.bincount(labels.ravel(), reach.ravel())[1:] / area  # a quarter of its width
        printed &= stroke <= THINNER * stroke[main]
    return printed


def find_punched(boxes: Boxes, area: Sizes, columns: tuple[float, float], size: float) -> Flags:
    """Which shapes are punched holes beside a digit that takes these columns and is `size` long."""
    left, _, w, h = boxes
    long, short = np.maximum(w, h), np.minimum(w, h)
    beside = (left + w < columns[0]) | (left > columns[1])
    is_disc = (short >= 0.75 * long) & (area >= 0.7 * w * h)
    return np.asarray((long <= 0.4 * size) & is_disc & beside)


def group_pieces(inked: NDArray[np.bool_], shape: Labels, count: int) -> NDArray[np.intp]:
    """A number for each shape, the same for near ones; `shape` has that of each inked pixel."""
    reach = max(1, round(0.03 * max(inked.shape)))  # half of the largest break in a stroke
    near = cv2.dilate(inked.view(np.uint8), disc(reach))
    group = np.zeros(count, np.intp)
    group[shape] = cv2.connectedComponents(near, ltype=cv2.CV_16U)[1][inked]
    return group[1:]
