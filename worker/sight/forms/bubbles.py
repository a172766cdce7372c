"""Finds the bubbles and small boxes that are printed on a form's blank, to be marked."""

from collections.abc import Sequence
from itertools import chain, compress
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.form import Choice
from digitq.protocol.asked.form_file import Box
from digitq.protocol.text import plural
from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.forms.ruling import find_ink, resize_to_work

MIN_BUBBLE, MAX_BUBBLE = 9, 60  # px at WORK_SIDE: how high and wide a bubble is
MAX_FLATNESS = 3.0  # the longer side of a bubble is at most this many times the shorter one
ROUND, SQUARE = 0.89, 0.95  # a round one fills less of its box, and a square one more
MIN_FILLED = 0.7  # the inside of a bubble fills this share of its box: a circle fills 0.79
MIN_CONVEX = 0.9  # a bubble has no dents: with them, it would be larger by a tenth
MIN_HOLLOW = 0.35  # this share of a bubble is white, also with a letter in it
MAX_LETTER = 0.7  # a letter in a bubble is lower than this share of it
SIZE_DIFFERENCE = 0.2  # bubbles of a question differ by less in width and height
USUAL_SIDE = 0.55  # where no bubbles are printed, they are this share of their distance


class Bubble(NamedTuple):
    """A closed line, in px of the picture."""

    left: float
    top: float
    right: float
    bottom: float
    filled: float = np.pi / 4  # the share of its box: a circle has 0.79, a box 1
    hollow: float = 1.0  # the share of it that is white

    @property
    def is_round(self) -> bool:
        return self.filled < ROUND

    @property
    def is_square(self) -> bool:
        width, height = self.size
        return self.filled > SQUARE and abs(width / height - 1) < SIZE_DIFFERENCE

    @property
    def size(self) -> tuple[float, float]:
        return self.right - self.left, self.bottom - self.top

    @property
    def middle(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


def find_bubbles(blank: Grey) -> list[Bubble]:
    """The bubbles of a blank, in px of its picture."""
    small = resize_to_work(blank)
    across, down = blank.shape[1] / small.shape[1], blank.shape[0] / small.shape[0]
    outlines, tree = cv2.findContours(find_ink(small), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parents = tree[0, :, 3].tolist() if outlines else []
    holes = np.zeros(len(outlines) + 1)  # the last one is that of outlines without a parent
    for outline, parent in zip(outlines, parents, strict=True):
        holes[parent] += cv2.contourArea(outline)
    found = list[Bubble]()
    for outline, parent, hole in zip(outlines, parents, holes.tolist(), strict=False):
        left, top, width, height = cv2.boundingRect(outline)
        if parent >= 0 or not MIN_BUBBLE <= min(width, height) <= max(width, height) <= MAX_BUBBLE:
            continue
        hull = cv2.contourArea(cv2.convexHull(outline))
        share = hull / ((width - 1) * (height - 1))
        if (
            share >= MIN_FILLED
            and max(width, height) <= MAX_FLATNESS * min(width, height)
            and cv2.contourArea(outline) >= MIN_CONVEX * hull
            and hole >= MIN_HOLLOW * hull
        ):
            sides = left * across, top * down, (left + width) * across, (top + height) * down
            found.append(Bubble(*sides, share, hole / hull))
    return drop_nested(found)


def drop_nested(found: Sequence[Bubble]) -> list[Bubble]:
    """Without letters in bubbles, and without what surrounds a bubble, such as a cell."""
    left, top, right, bottom = np.array([one[:4] for one in found]).reshape(-1, 4).T[..., None]
    x, y = np.array([one.middle for one in found]).reshape(-1, 2).T
    surrounds = (left < x) & (x < right) & (top < y) & (y < bottom)
    dropped = set[Bubble]()
    for at, within in np.argwhere(surrounds & ~np.eye(len(found), dtype=bool)).tolist():
        outer, inner = found[at], found[within]
        is_print = inner.size[1] < MAX_LETTER * outer.size[1]
        dropped.add(inner if is_print else outer)
    return [one for one in found if one not in dropped]


def find_equal(bubbles: Sequence[Bubble]) -> list[Bubble]:
    """The most of them that are about as wide and high as one of them."""
    sizes = np.array([one.size for one in bubbles], np.float32).reshape(-1, 2)
    equal = (np.abs(sizes[:, None] / sizes - 1) < SIZE_DIFFERENCE).all(2)
    return [*compress(bubbles, equal[equal.sum(1).argmax()])] if len(bubbles) else []


def place_bubbles(choice: Choice, found: Sequence[Bubble]) -> list[list[Box]]:
    """A box for each option of each question, in the px of `found`, those of the blank.

    Where bubbles are printed in the choice's box, these count. Otherwise it is divided evenly.
    Raises `ImageError` if there are more or fewer than the form says.
    """
    options = len(choice.known.options)
    if choice.boxes:
        return [[*choice.boxes]]
    shape = len(choice.names), options
    columns, rows = shape[::-1] if choice.is_across else shape
    left, top, right, bottom = choice.box
    inside = [one for one in found if left < one.middle[0] < right and top < one.middle[1] < bottom]
    inside = find_equal(inside)
    sizes = np.array([one.size for one in inside]).reshape(-1, 2)
    usual = np.median(sizes, axis=0) if inside else np.zeros(2)
    middles = np.array([one.middle for one in inside]).reshape(-1, 2)
    xs, ys = (group(middles[:, way], usual[way] / 2) for way in (0, 1))
    if (len(xs), len(ys)) != (columns, rows):
        if len(inside) == len(xs) * len(ys) > 1:
            printed = f"{len(xs)} bubbles side by side and {len(ys)} below each other"
            raise ImageError(
                f"the form is wrong: {choice.names[0]}: {printed}, not {columns} and {rows}"
            )
        usual = np.array(
            [
                spread(right - left, columns, bottom - top if rows == 1 else 0.0),
                spread(bottom - top, rows, right - left if columns == 1 else 0.0),
            ]
        )
        xs = np.linspace(left + usual[0] / 2, right - usual[0] / 2, columns)
        ys = np.linspace(top + usual[1] / 2, bottom - usual[1] / 2, rows)
    width, height = usual.tolist()
    grid = [
        [(x - width / 2, y - height / 2, x + width / 2, y + height / 2) for x in xs.tolist()]
        for y in ys.tolist()
    ]
    return grid if choice.is_across else [list(one) for one in zip(*grid, strict=True)]


def check_places(choice: Choice, found: Sequence[Bubble]) -> tuple[list[Box], str]:
    """The boxes of all its options, and how they differ from what the blank shows; "" if they do
    not."""
    try:
        boxes = [*chain.from_iterable(place_bubbles(choice, found))]
    except ImageError as error:
        return [], str(error)
    if unprinted := count_unprinted(boxes, found):
        places = plural(len(boxes), "place")
        return boxes, f"the blank shows no bubble at {unprinted} of its {places}"
    return boxes, ""


def count_unprinted(boxes: Sequence[Box], found: Sequence[Bubble]) -> int:
    """How many of these boxes have no bubble of the blank in their middle."""
    middles = np.array([one.middle for one in found]).reshape(-1, 2)
    sides = np.array(boxes).reshape(-1, 4)
    centres, reach = (sides[:, :2] + sides[:, 2:]) / 2, (sides[:, 2:] - sides[:, :2]) / 2
    is_near = np.abs(centres[:, None] - middles[None]) < reach[:, None]
    return int((~is_near.all(2).any(1)).sum())


def spread(length: float, count: int, side: float) -> float:
    """The side of bubbles that are spread in a box of this length, or the side that they have."""
    if count == 1:
        return length
    return min(side, length / count) or length / (count - 1 + USUAL_SIDE) * USUAL_SIDE


def group(places: NDArray[np.float64], apart: float) -> NDArray[np.float64]:
    """The means of places that are nearer than this to the next one."""
    ordered = np.sort(places)
    parts = np.split(ordered, np.flatnonzero(np.diff(ordered) > apart) + 1)
    return np.array([part.mean() for part in parts if len(part)])
