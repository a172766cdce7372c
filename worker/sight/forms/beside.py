"""Finds ink around the boxes that may be marked: strokes beside them, and circles around them.

All boxes of a page are looked at together, because a stroke belongs to the box that it enters, or
else to the nearest one, which may be that of another question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.form_file import Box
from digitq.worker.picture import Grey
from digitq.worker.sight.forms.alignment import shrink
from digitq.worker.sight.forms.perspective import Points
from digitq.worker.sight.forms.smooth_shift import warp_smoothly

BOX_SIDE = 40  # px: the usual box is at most so large where page and blank are compared
STROKE_INK = 0.12  # what is darker than the blank by this share of paper's light is ink
PRINT_RIM = 3  # px: print may be so much wider on the page
LIGHT_FACTOR = 4  # px: light is found in a picture that is so many times smaller
LIGHT_SIDE = 21  # px of the smaller picture: what is narrower is no shadow
JOIN = 11  # px: strokes with a narrower gap, such as a printed line, are one
JOIN_OVER_PRINT = 25  # px: a printed label hides so much of a stroke that goes through it
EDGE = 4  # px: ink so near to the lines of a box is not in it
REACH = 1.5  # ink that is farther from a box, in sides of the usual box, does not count
MIN_STROKE_LENGTH = 8  # px: a shorter stroke is a speck
MIN_OUTSIDE = 8  # px: a stroke with less of its ink outside of boxes is not beside one
MIN_NEAR = 0.2  # with a smaller share of it near to boxes, a stroke is writing, unless in a box
MIN_SHARED = 4  # px: with so much of its ink in each of two boxes, a stroke may mean either
# A circle has ink in so many directions from its box, and the arc of one in fewer
DIRECTIONS, MIN_DIRECTIONS, MIN_ARC = 24, 20, 8
# in sides of the usual box: what is larger, such as the edge of a page, is no circle around a box
MIN_CIRCLE, MAX_CIRCLE = 1.0, 8.0
MIN_RING_GAP = 2.0  # px: a circle is mostly so far from the lines of its box: else it may be these
INSIDE = 1e6  # one px of ink in a box counts more than any number beside it


class Beside(NamedTuple):
    """The ink around one box."""

    ink: float = 0.0  # px of the compared picture
    is_circled: bool = False  # whether a stroke goes around the box
    is_shared: bool = False  # whether one of its strokes goes into another box, too


NOTHING = Beside()


@dataclass(frozen=True)
class Surroundings:
    """What a blank shows around its boxes, in a picture in which the usual one has BOX_SIDE px."""

    scale: float  # px of the picture in a px of the blank
    side: float  # px of the usual box
    printed: NDArray[np.float32]  # how dark it is, as a share
    boxes: NDArray[np.float64]  # (N, 4)
    nearest: NDArray[np.int32]  # the index of the nearest box
    distances: NDArray[np.float32]  # px from there


def see_surroundings(blank: Grey, boxes: Sequence[Box]) -> Surroundings:
    """Prepare the comparison with pages."""
    sides = np.array(boxes)
    side = float(np.median((sides[:, 2:] - sides[:, :2]).min(1)))
    scale = min(1.0, BOX_SIDE / side)
    printed = find_darkness(shrink(blank, scale)[0])
    size = 2 * PRINT_RIM + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    around = np.ones(printed.shape, np.uint8)
    owners = np.zeros(printed.shape, np.int32)
    for at, box in enumerate(sides * scale):
        left, top, right, bottom = (box + (EDGE, EDGE, -EDGE, -EDGE)).round().astype(int)
        area = slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
        around[area], owners[area] = 0, at
    distances, labels = cv2.distanceTransformWithLabels(
        around, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(labels.max() + 1, np.int32)
    of_label[labels[around == 0]] = owners[around == 0]
    return Surroundings(
        scale, side * scale, cv2.dilate(printed, disc), sides * scale, of_label[labels], distances
    )


def find_darkness(grey: Grey) -> NDArray[np.float32]:
    """How much darker each px is than paper in the light there, as a share."""
    high, wide = grey.shape
    small = cv2.resize(
        grey, (wide // LIGHT_FACTOR, high // LIGHT_FACTOR), interpolation=cv2.INTER_AREA
    )
    light = cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((LIGHT_SIDE, LIGHT_SIDE), np.uint8))
    light = cv2.resize(cv2.blur(light, (LIGHT_SIDE, LIGHT_SIDE)), (wide, high))
    return np.asarray(1 - grey / np.maximum(light.astype(np.float32), 1)).clip(0, 1)


def find_beside(
    page: Grey, around: Surroundings, to_page: Callable[[Points], Points]
) -> list[Beside]:
    """The ink around each of the boxes. `to_page` leads from px of the blank to px of the page."""
    high, wide = around.printed.shape
    middle = np.array([(wide, high), (wide + 2, high)]) / (2 * around.scale)
    step = float(np.linalg.norm(np.diff(to_page(middle), axis=0)))  # px of the page in one
    small, shrunk = shrink(page, min(1.0, 1 / max(step, 1e-6)))
    seen = warp_smoothly(
        small, lambda points: to_page(points / around.scale) / shrunk, (wide, high)
    )
    ink = find_darkness(seen) - around.printed > STROKE_INK
    return weigh(around, ink)


def weigh(around: Surroundings, ink: NDArray[np.bool_]) -> list[Beside]:
    """What the strokes of a page say of each box."""
    joint, disc = (
        cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        for size in (JOIN_OVER_PRINT, JOIN)
    )
    is_label = (around.printed > STROKE_INK) & (around.distances > EDGE + 2)
    through = cv2.dilate(ink.astype(np.uint8), joint) * is_label
    joined = cv2.morphologyEx(ink | through, cv2.MORPH_CLOSE, disc)
    strokes, labels, stats, _ = cv2.connectedComponentsWithStats(joined)
    down, right = np.nonzero(ink)
    stroke, box = labels[down, right], around.nearest[down, right]
    distance = around.distances[down, right]
    is_near = distance <= REACH * around.side
    count = len(around.boxes)
    # of each pair of a stroke and a box: the ink in the box, near to it, and outside of it
    pairs, at = np.unique(stroke.astype(np.int64) * count + box, return_inverse=True)
    of_stroke, of_box = pairs // count, pairs % count
    inside, near = np.bincount(at, distance == 0), np.bincount(at, is_near)
    outside = np.bincount(at, is_near & (distance > EDGE + 2))
    weights = near + INSIDE * inside
    order = np.lexsort((weights, of_stroke))
    owners = np.zeros(strokes, int)
    owners[of_stroke[order]] = of_box[order]  # the last of each stroke is the one with most
    outside, near, weights = (
        np.bincount(of_stroke, each, strokes) for each in (outside, near, weights)
    )
    is_stroke = (stats[:, 2:4].max(1) >= MIN_STROKE_LENGTH) & (outside >= MIN_OUTSIDE)
    is_stroke &= weights >= MIN_NEAR * np.bincount(stroke, minlength=strokes)
    amounts = np.bincount(owners, near * is_stroke, count)
    # Strokes that touch are one: what goes around a box is its own, too
    is_around = is_stroke[stroke] & is_near & (distance > EDGE + 2)
    middles = (around.boxes[:, :2] + around.boxes[:, 2:]) / 2
    across, below = (np.stack([right, down], 1) - middles[box])[is_around].T
    turns = (np.arctan2(below, across) / (2 * np.pi) * DIRECTIONS).round() % DIRECTIONS
    seen = np.unique(box[is_around] * DIRECTIONS + turns.astype(int)) // DIRECTIONS
    has_arc = np.bincount(seen, minlength=count) >= MIN_ARC
    amounts = np.maximum(amounts, has_arc * np.bincount(box, is_around, count))
    in_box = inside >= MIN_SHARED
    crossing = np.bincount(of_stroke, in_box, strokes) > 1
    shared = {*of_box[in_box & crossing[of_stroke]].tolist()}
    circled, rounded = find_circled(around, labels, stats, ink)
    shared |= rounded
    return [Beside(float(amounts[one]), one in circled, one in shared) for one in range(count)]


def find_circled(
    around: Surroundings,
    labels: NDArray[np.int32],
    stats: NDArray[np.int32],
    ink: NDArray[np.bool_],
) -> tuple[set[int], set[int]]:
    """The boxes that have a stroke around them, and those that have one around several of them."""
    found, together = set[int](), set[int]()
    boxes = around.boxes
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    sizes = stats[:, 2:4] / around.side
    for number in np.flatnonzero(((sizes > MIN_CIRCLE) & (sizes < MAX_CIRCLE)).all(1)):
        start = stats[number, :2]
        end = start + stats[number, 2:4]
        area = slice(start[1], end[1]), slice(start[0], end[0])
        points = np.argwhere((labels[area] == number) & ink[area])[:, ::-1] + start
        within = np.flatnonzero(((middles > start) & (middles < end)).all(1))
        ringed = set[int]()
        for at in within:
            # how far the points are outside of the box, px; negative inside
            clear = np.maximum(boxes[at, :2] - points, points - boxes[at, 2:]).max(1)
            right, down = (points[clear > 0] - middles[at]).T
            turns = np.arctan2(down, right) / (2 * np.pi) * DIRECTIONS
            directions = np.unique(turns.round() % DIRECTIONS)
            if len(directions) >= MIN_DIRECTIONS and np.median(clear) > MIN_RING_GAP:
                ringed.add(int(at))
        found |= ringed
        together |= ringed if len(ringed) > 1 else set()
    return found, together
