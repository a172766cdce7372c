"""Proposes the fields and tables of a form, by the boxes that are ruled on its blank."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from itertools import count, groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from protocol.errors import OutputError, UsageError
from protocol.form import read_form
from protocol.form_file import measure_blank
from protocol.text import in_one_line, plural
from protocol.values import MAX_DIGITS
from worker.sight.decoding.any_file import read_picture
from worker.sight.decoding.pillow import prepare_libraries
from worker.sight.forms.ruling import find_ink, find_line_ink, resize_to_work
from worker.sight.normalisation.colours import to_grey
from worker.sight.types import Grey, ImageError

MIN_BOX_SIDE = 12  # px at WORK_SIDE, as all here: a smaller box has no room for a digit
MAX_BOX_HEIGHT = 84  # px: a higher box is for text or a signature
MAX_BOX_RATIO = 12.0  # a box that is more times as wide as high is for text
MAX_WIDTH_RATIO = 1.3  # boxes of digits in a row are about equally wide
MIN_RECTANGULAR = 0.85  # a box fills this share of the rectangle around it
BRIDGED_GAP = 12  # px: a shorter gap in a line is closed
HALF_LINE = 3  # px: from a box's inside to the middle of its line
MAX_WALL = 16  # px: boxes that adjoin are no farther apart
SAME_EDGE = 6  # px: the edges of boxes in a row or column differ by less
MAX_PRINT = 0.005  # if more of a box is ink, something is printed in it
MIN_EMPTY_LIGHT = 0.75  # an empty box is at least as light, as a share of the paper
T = TypeVar("T")
Part = dict[str, Any]  # the keys of a field or, with `rows`, of a table; the box in px at WORK_SIDE


class RuledBox(NamedTuple):
    """An area that lines enclose, in px at WORK_SIDE."""

    left: int
    top: int
    right: int
    bottom: int
    is_answer: bool  # it is empty, and of the shape for a number


def write_proposal(blank: Path, out: Path) -> None:
    """Write a form's file for a blank, and say what was found.

    Raises `UsageError`, `OutputError`.
    """
    prepare_libraries()
    content, size = measure_blank(blank)
    try:
        small = resize_to_work(to_grey(read_picture(content, min(size))))
    except ImageError as error:
        raise UsageError(f"can't read {blank}: {error}") from None
    name = os.path.relpath(os.path.realpath(blank), os.path.realpath(out.parent))
    scale = np.tile(np.array(size) / small.shape[::-1], 2)
    text, counts = f'blank = {json.dumps(name, ensure_ascii=False)}\nalign = "page"\n', [0, 0]
    for part in propose(find_boxes(small)):
        part["box"] = (scale * part["box"]).round().astype(int).tolist()
        kind = int("rows" in part)
        counts[kind] += 1
        text += f"\n[{('fields.field', 'tables.table')[kind]}{counts[kind]}]\n"
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in part.items())
    partial = out.with_name(f"{out.name}.partial")
    try:
        partial.write_bytes(os.fsencode(text))
        read_form(partial)
        partial.replace(out)
    except OSError as error:
        raise OutputError(f"can't write {out}: {error.strerror or error}") from None
    except UsageError as error:
        reason = str(error).removeprefix(f"{partial}: ")
        raise UsageError(f"the ruled boxes of {blank} make no form: {reason}") from None
    finally:
        partial.unlink(missing_ok=True)
    found = f"{plural(counts[0], 'field')} and {plural(counts[1], 'table')} are in {out}"
    look = f"digitq form show {shlex.quote(str(out))}"
    print(
        in_one_line(f"{found}: give them names, delete what is no number, and see `{look}`"),
        file=sys.stderr,
    )


def find_boxes(small: Grey) -> list[RuledBox]:
    """The areas that lines enclose, in a blank at WORK_SIDE."""
    ink = find_ink(small)
    walls = np.zeros_like(ink)
    for way in (0, 1):
        gap = np.ones((BRIDGED_GAP, 1) if way else (1, BRIDGED_GAP), np.uint8)
        walls |= cv2.morphologyEx(find_line_ink(ink, way), cv2.MORPH_CLOSE, gap)
    stats = cv2.connectedComponentsWithStats(1 - walls, connectivity=4)[2]
    (high, wide), paper, boxes = small.shape, float(np.median(small)), list[RuledBox]()
    for left, top, width, height, area in stats[1:].tolist():
        right, bottom = left + width, top + height
        if (
            min(width, height) >= MIN_BOX_SIDE
            and area >= MIN_RECTANGULAR * width * height
            and min(left, top, wide - right, high - bottom) >= HALF_LINE
        ):
            inside = np.s_[
                top + HALF_LINE : bottom - HALF_LINE, left + HALF_LINE : right - HALF_LINE
            ]
            is_light = np.median(small[inside]) >= MIN_EMPTY_LIGHT * paper
            is_empty = bool(is_light and ink[inside].mean() <= MAX_PRINT)
            fits = height <= MAX_BOX_HEIGHT and width <= MAX_BOX_RATIO * height
            boxes.append(RuledBox(left, top, right, bottom, fits and is_empty))
    return boxes


def propose(boxes: list[RuledBox]) -> Iterator[Part]:
    """The fields and tables of boxes: equal rows below each other are a table."""
    rows = chain(sorted(boxes), lambda one, next: adjoin(one, next, 0))
    rows.sort(key=lambda row: (row[0].top, row[0].left))
    for block in chain(rows, is_below):
        used = [at for at, row in enumerate(block) if any(box.is_answer for box in row)]
        block = block[used[0] : used[-1] + 1] if used else []
        if len(block) == 1:
            for is_answer, run in groupby(block[0], lambda box: box.is_answer):
                if is_answer:
                    yield from propose_row([*run])
        elif block:
            are_answers = np.array([[box.is_answer for box in row] for row in block])
            numbers = count(1)
            columns = [f"c{next(numbers)}" if share >= 0.5 else "" for share in are_answers.mean(0)]
            if any(columns):
                boxes = [box for row in block for box in row]
                yield {"box": surround(boxes), "rows": len(block), "columns": columns}


def propose_row(boxes: list[RuledBox]) -> Iterator[Part]:
    """The fields of adjoining boxes: those of digits are one field, others are one each."""
    widths = [box.right - box.left for box in boxes]
    if len(boxes) == 1 or max(widths) > MAX_WIDTH_RATIO * min(widths):
        yield from ({"box": surround([box])} for box in boxes)
    elif len(boxes) <= MAX_DIGITS:  # more boxes are for a name
        yield {"box": surround(boxes), "length": f"1-{len(boxes)}"}


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
