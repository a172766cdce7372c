"""Proposes the fields, questions and tables of a form, by the boxes and bubbles of its blank."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.form_file import Box, measure_blank
from digitq.protocol.asked.values import MAX_DIGITS
from digitq.protocol.errors import UsageError
from digitq.protocol.text import in_one_line, plural
from digitq.worker.picture import Grey, ImageError, Mask
from digitq.worker.sight.decoding.any_file import read_picture
from digitq.worker.sight.decoding.pillow import prepare_libraries
from digitq.worker.sight.forms.questions import propose_marks
from digitq.worker.sight.forms.ruling import find_ink, resize_to_work
from digitq.worker.sight.normalisation.colours import to_grey

MIN_BOX_SIDE = 15  # px at WORK_SIDE, as all here: a smaller box has no room for a digit
MAX_BOX_HEIGHT = 84  # px: a higher box is for text or a signature
MAX_BOX_SHAPE = 12.0  # a box that is more times as wide as high is for text
MIN_DIGIT_SHAPE, MAX_DIGIT_SHAPE = 0.55, 1.4  # a digit's box is about as wide as high
MAX_WIDTH_RATIO = 1.3  # boxes of digits in a row are about equally wide
MAX_PRINT_HEIGHT = 0.7  # a guide in a digit's box is lower than this share of it
MIN_RECTANGULAR = 0.85  # a box fills this share of the rectangle around it
MIN_LINE = 25  # px: a line is at least this long
MIN_DRAWN = 0.7  # this share of each stretch of MIN_LINE px of a line is drawn
FAINT_LINE, MAX_FAINT = 41, 9  # px: how long a faint line is at least, and how thick at most
MIN_FAINT_CONTRAST = 1.5  # grey values: so much darker than the paper beside it a faint line is
MAX_CLOSED_GAP = 5  # px: a longer gap in a line stays open
CORNER_SIDE = 17  # px: a square of this side around a line's end has the ink of a round corner
HALF_LINE = 3  # px: from a box's inside to the middle of its line
MAX_WALL = 16  # px: boxes that adjoin are no farther apart
SAME_EDGE = 6  # px: the edges of boxes in a row or column differ by less
MAX_PRINT = 0.005  # if more of a box is ink, something is printed in it
MIN_EMPTY_LIGHT = 0.75  # an empty box is at least as light, as a share of the paper
T = TypeVar("T")
# The keys of a field or, with `rows`, of a table; the box in px at WORK_SIDE
Proposed = dict[str, Any]


class RuledBox(NamedTuple):
    """An area that lines enclose, in px at WORK_SIDE."""

    left: int
    top: int
    right: int
    bottom: int
    is_empty: bool

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def shape(self) -> float:
        """How many times it is as wide as high."""
        return (self.right - self.left) / self.height

    def is_within(self, part: Proposed) -> bool:
        """Whether it is in the box of this part."""
        left, top, right, bottom = part["box"]
        x, y = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        return bool(left <= x <= right and top <= y <= bottom)

    @property
    def is_answer(self) -> bool:
        """Whether it is empty, and of the shape for a number."""
        fits = self.height <= MAX_BOX_HEIGHT and MIN_DIGIT_SHAPE <= self.shape <= MAX_BOX_SHAPE
        return self.is_empty and fits

    @property
    def is_for_digit(self) -> bool:
        """Whether it has the shape for one digit, also with a guide or a digit in it."""
        return self.height <= MAX_BOX_HEIGHT and MIN_DIGIT_SHAPE <= self.shape <= MAX_DIGIT_SHAPE


def list_proposed(blank: Path) -> list[tuple[str, str, Proposed]]:
    """What is found on a blank: a `field`, `choice` or `table`, its name and its keys, with the box
    in px of the blank's file. Raises `UsageError`."""
    small, scale = read_small(blank)
    marks = [*propose_marks(small)]
    boxes = [one for one in find_boxes(small) if not any(one.is_within(part) for part in marks)]
    parts, counts = list[tuple[str, str, Proposed]](), Counter[str]()
    for part in [*propose(boxes), *marks] or propose(find_boxes(small, are_faint=True)):
        part["box"] = (scale * part["box"]).round().astype(int).tolist()
        kind = "choice" if "options" in part else "table" if "rows" in part else "field"
        counts[kind] += 1
        is_block = kind == "choice" and {"rows", "columns"} & part.keys()  # numbers follow its name
        parts.append((kind, f"{kind}{counts[kind]}{'_' if is_block else ''}", part))
    return parts


def count_rows(name: str, blank: Path, box: Box | None, columns: int) -> int:
    """How many rows the table has by the lines of the blank; 0 if these do not show it."""
    boxes, scale = read_boxes(blank)
    if box:
        (left, top, right, bottom), slack = np.array(box) / scale, MAX_WALL
        boxes = [
            one
            for one in boxes
            if left - slack < one.left and one.right < right + slack
            if top - slack < one.top and one.bottom < bottom + slack
        ]
    tables = (find_answers(block) for block in list_blocks(boxes) if len(block[0]) == columns)
    rows = max(map(len, tables), default=0)
    if rows:
        text = f"the table {name} has {plural(rows, 'row')} in {blank.name}"
        print(in_one_line(text), file=sys.stderr)
    return rows


def read_boxes(blank: Path) -> tuple[list[RuledBox], NDArray[np.float64]]:
    """The boxes of a blank, and the scale that `read_small` gives. Raises `UsageError`."""
    small, scale = read_small(blank)
    return find_boxes(small), scale


def read_small(blank: Path) -> tuple[Grey, NDArray[np.float64]]:
    """A blank at WORK_SIDE, and what the sides of a box are multiplied by to give px of its file.
    Raises `UsageError`."""
    prepare_libraries()
    content, size = measure_blank(blank)
    try:
        small = resize_to_work(to_grey(read_picture(content, min(size))))
    except ImageError as error:
        raise UsageError(f"can't read {blank}: {error}") from None
    return small, np.tile(np.array(size) / small.shape[::-1], 2)


def find_boxes(small: Grey, are_faint: bool = False) -> list[RuledBox]:
    """The areas that lines enclose, in a blank at WORK_SIDE, perhaps also faint ones."""
    ink = find_ink(small)
    if are_faint:
        ink |= find_faint_lines(small)
    outlines, tree = cv2.findContours(1 - find_walls(ink), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    (high, wide), paper = small.shape, float(np.median(small))
    parents = tree[0, :, 3].tolist() if outlines else []
    is_hole, boxes = list[bool](), dict[int, RuledBox]()
    for number, (outline, parent) in enumerate(zip(outlines, parents, strict=True)):
        is_hole.append(parent >= 0 and not is_hole[parent])
        left, top, width, height = cv2.boundingRect(outline)
        right, bottom = left + width, top + height
        if (
            not is_hole[number]
            and min(width, height) >= MIN_BOX_SIDE
            and cv2.contourArea(cv2.convexHull(outline)) >= MIN_RECTANGULAR * width * height
            and min(left, top, wide - right, high - bottom) >= HALF_LINE
        ):
            inside = np.s_[
                top + HALF_LINE : bottom - HALF_LINE, left + HALF_LINE : right - HALF_LINE
            ]
            is_light = np.median(small[inside]) >= MIN_EMPTY_LIGHT * paper
            is_empty = bool(is_light and ink[inside].mean() <= MAX_PRINT)
            around = boxes.get(parents[parent]) if parent >= 0 else None
            if not (around and around.is_for_digit and height < MAX_PRINT_HEIGHT * around.height):
                boxes[number] = RuledBox(left, top, right, bottom, is_empty)
    return [*boxes.values()]


def find_faint_lines(small: Grey) -> Mask:
    """What is darker than the paper beside it in the mean along a line."""
    lines = np.zeros_like(small)
    for along, across in (((1, FAINT_LINE), (MAX_FAINT, 1)), ((FAINT_LINE, 1), (1, MAX_FAINT))):
        mean = cv2.blur(small.astype(np.float32), along[::-1])
        beside = cv2.morphologyEx(mean, cv2.MORPH_CLOSE, np.ones(across, np.uint8))
        lines |= (beside - mean > MIN_FAINT_CONTRAST).astype(np.uint8)
    return lines


def find_walls(ink: Mask) -> Mask:
    """The lines in ink, also if they have short gaps, and the ink at their ends."""
    walls = np.zeros_like(ink)
    for along, across in (((1, MIN_LINE), (3, 1)), ((MIN_LINE, 1), (1, 3))):
        thick = cv2.dilate(ink, np.ones(across, np.uint8))
        share = cv2.blur(thick.astype(np.float32), along[::-1])
        near = cv2.dilate((share >= MIN_DRAWN).astype(np.uint8), np.ones(along, np.uint8))
        gap = np.ones([min(side, MAX_CLOSED_GAP) for side in along], np.uint8)
        walls |= near & cv2.morphologyEx(thick, cv2.MORPH_CLOSE, gap)
    ends = cv2.dilate(walls, np.ones((CORNER_SIDE, CORNER_SIDE), np.uint8))
    return np.asarray(walls | (ends & ink))


def propose(boxes: list[RuledBox]) -> Iterator[Proposed]:
    """The fields and tables of boxes.

    Equal rows below each other are a table if their cells are wider than high, and any rows with a
    head.
    """
    for block in list_blocks(boxes):
        table = find_answers(block)
        cells = [box for row in table for box in row if box.is_answer]
        has_head = table[:1] != block[:1]
        is_one_number = len(table) < 2 or all(box.is_for_digit for box in cells)
        if not (table and has_head) and is_one_number:
            for row in block:
                yield from propose_row(row)
            continue
        are_answers = np.array([[box.is_answer for box in row] for row in table])
        numbers = count(1)
        columns = [f"c{next(numbers)}" if share >= 0.5 else "" for share in are_answers.mean(0)]
        if any(columns):
            whole = surround([box for row in table for box in row])
            yield {"box": whole, "rows": len(table), "columns": columns}


def list_blocks(boxes: list[RuledBox]) -> list[list[list[RuledBox]]]:
    """The rows of adjoining boxes, where equal ones below each other are together."""
    rows = chain(sorted(boxes), lambda one, next: adjoin(one, next, 0))
    rows.sort(key=lambda row: (row[0].top, row[0].left))
    return chain(rows, is_below)


def find_answers(block: list[list[RuledBox]]) -> list[list[RuledBox]]:
    """The rows between a printed head and a printed foot."""
    used = [at for at, row in enumerate(block) if any(box.is_answer for box in row)]
    return block[used[0] : used[-1] + 1] if used else []


def propose_row(row: list[RuledBox]) -> Iterator[Proposed]:
    """The fields of adjoining boxes: those of digits are one field, others are one each."""
    for run in chain(row, is_next_digit):
        if not run[0].is_empty and all(box.is_empty for box in run[1:]):
            run = run[1:]  # a printed number is before the boxes
        if len(run) == 1 and run[0].is_answer:
            yield {"box": surround(run)}
        elif 1 < len(run) <= MAX_DIGITS:  # more boxes are for a name
            yield {"box": surround(run), "length": f"1-{len(run)}"}


def is_next_digit(one: RuledBox, other: RuledBox) -> bool:
    """Whether adjoining boxes are for the digits of one number, empty or not."""
    widths = one.right - one.left, other.right - other.left
    is_next = one.right <= other.left and max(widths) <= MAX_WIDTH_RATIO * min(widths)
    return is_next and one.is_for_digit and other.is_for_digit


def chain(parts: list[T], follows: Callable[[T, T], bool]) -> list[list[T]]:
    """All parts, in lists where each one follows that before it."""
    chains: list[list[T]] = []
    for part in parts:
        before = next((one for one in chains if follows(one[-1], part)), None)
        if before:
            before.append(part)
        else:
            chains.append([part])
    return chains


def adjoin(one: RuledBox, other: RuledBox, way: int) -> bool:
    """Whether the other box is right of the one (0) or below it (1), with the same edges."""
    gap = other[way] - one[way + 2]
    edges = (abs(one[edge] - other[edge]) for edge in (1 - way, 3 - way))
    return 0 <= gap <= MAX_WALL and max(edges) < SAME_EDGE


def is_below(row: list[RuledBox], other: list[RuledBox]) -> bool:
    return len(row) == len(other) and all(adjoin(*pair, 1) for pair in zip(row, other, strict=True))


def surround(boxes: list[RuledBox]) -> list[int]:
    """The box of all these, to the middle of its lines."""
    sides = np.array(boxes)[:, :4]
    return [
        *(sides[:, :2].min(0) - HALF_LINE).tolist(),
        *(sides[:, 2:].max(0) + HALF_LINE).tolist(),
    ]
