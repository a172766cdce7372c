"""Proposes the questions and tick boxes of a form, by the bubbles that are printed on its blank."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from string import ascii_uppercase, digits
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import Grey
from digitq.worker.sight.forms.bubbles import Bubble, find_bubbles, find_equal

MIN_GAP = 0.3  # widths between bubbles: letters are nearer to each other, and boxes for digits too
MIN_BOX_GAP = 0.6  # widths between boxes to tick: those for the digits of a number are nearer
MAX_TICK_BOX = 30  # px at WORK_SIDE: a larger box is for a digit
MAX_GRID_BOX = 45  # px: also in a grid of equal boxes that are far apart
MIN_SIDE_OF_BOX = 12  # px: a smaller one may be a letter
MIN_ROUND = 4  # fewer round outlines may be letters, unless they are as hollow as an empty bubble
MIN_EMPTY = 0.5  # an empty bubble or box has at least this share of white
MIN_PAIR = 14  # px: smaller ones may be letters, if they are few
MAX_STEP = 9  # widths: bubbles that are farther apart are of two questions
SAME_STEP = 1.12  # a step that is so many times the least one is between two questions
SAME_PLACE = 0.3  # heights: bubbles of a row, and columns below each other, differ by less
PRINT_CONTRAST = 4  # grey values: prints that differ by less in the mean may be the same
SAME_PRINT = 0.7  # prints of the same digit differ by at most this share of what others do
PRINT_SIDE = 12  # px: what is printed in bubbles is compared in this size
Rows = list[list[Bubble]]


def propose_marks(small: Grey) -> Iterator[dict[str, Any]]:
    """The keys of each question, block of questions and tick box; boxes in px at WORK_SIDE."""
    for block in find_blocks(find_bubbles(small)):
        box = surround(block)
        if len(block) == len(block[0]) == 1:
            yield {"box": box, "kind": "mark"}
            continue
        is_down = is_single_column(block) or (len(block) > 1 and has_equal_rows(small, block))
        count = len(block) if is_down else len(block[0])
        part = {"options": name_options(count), "box": box}
        if len(block) > 1 and not is_single_column(block):
            part |= {"columns": len(block[0])} if is_down else {"rows": len(block)}
        yield part


def find_blocks(found: Sequence[Bubble]) -> list[Rows]:
    """Equal bubbles in rows and columns with equal distances, from above to below. Boxes that are
    not beside others are alone."""
    blocks, left = list[Rows](), [*found]
    while left:
        equal = find_equal(left)
        chosen = {*equal}
        left = [one for one in left if one not in chosen]
        rows = [run for row in split_rows(equal) for run in split_row(row)]
        rows.sort(key=lambda row: (row[0].top, row[0].left))
        blocks += [each for block in stack(rows) for each in check_block(block)]
    return sorted(blocks, key=lambda block: (block[0][0].top, block[0][0].left))


def split_rows(bubbles: Sequence[Bubble]) -> Rows:
    """Those side by side, from left to right."""
    rows: Rows = []
    for one in sorted(bubbles, key=lambda one: one.middle[1]):
        if rows and one.middle[1] - rows[-1][-1].middle[1] < SAME_PLACE * one.size[1]:
            rows[-1].append(one)
        else:
            rows.append([one])
    return [sorted(row) for row in rows]


def split_row(row: list[Bubble]) -> Rows:
    """The runs of a row in which all bubbles are as far apart."""
    steps = [other.left - one.left for one, other in pairwise(row)]
    least = min(steps, default=0.0)
    runs = [row[:1]]
    for step, one in zip(steps, row[1:], strict=True):
        if step < SAME_STEP * least and step < MAX_STEP * one.size[0]:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def stack(rows: Rows) -> list[Rows]:
    """Rows below each other at the same places and distances."""
    blocks: list[Rows] = []
    for row in rows:
        above = next((block for block in reversed(blocks) if continues(block, row)), None)
        if above:
            above.append(row)
        else:
            blocks.append([row])
    return blocks


def continues(block: Rows, row: list[Bubble]) -> bool:
    """Whether the bubbles of a row are below those of the block, as far as its rows are apart."""
    last, reach = block[-1], SAME_PLACE * row[0].size[0]
    steps = [two[0].top - one[0].top for one, two in pairwise([*block, row])]
    return (
        len(last) == len(row)
        and all(abs(one.left - other.left) < reach for one, other in zip(last, row, strict=True))
        and 0 < max(steps) < SAME_STEP * min(steps)
    )


def check_block(block: Rows) -> Iterator[Rows]:
    """The block, or its boxes alone; nothing if they may be letters, or boxes for digits."""
    first, count = block[0][0], sum(map(len, block))
    width, height = first.size
    gaps = [other.left - one.right for row in block for one, other in pairwise(row)]
    if first.is_round:
        below = [two[0].top - one[0].bottom for one, two in pairwise(block)]
        are_empty = count > 1 and all(
            one.hollow > MIN_EMPTY and min(one.size) >= MIN_PAIR for row in block for one in row
        )
        far = count > 1 and min([*gaps, *below]) > MIN_GAP * min(width, height)
        if far and (max(len(block), len(block[0])) >= MIN_ROUND or are_empty):
            yield block
    elif are_boxes(block, min(gaps, default=width)):
        if is_single_column(block):
            yield from ([row] for row in block)
        else:
            yield block


def are_boxes(block: Rows, gap: float) -> bool:
    """Whether these are boxes to tick. Large ones are not for digits if they are in a wide grid."""
    width, height = block[0][0].size
    is_grid = len(block) > 1 and len(block[0]) > 2 and gap > width
    return (
        MIN_SIDE_OF_BOX <= height <= (MAX_GRID_BOX if is_grid else MAX_TICK_BOX)
        and gap > MIN_BOX_GAP * width
        and all(one.is_square and one.hollow > MIN_EMPTY for row in block for one in row)
    )


def is_single_column(block: Rows) -> bool:
    return len(block[0]) == 1


def has_equal_rows(small: Grey, block: Rows) -> bool:
    """Whether bubbles side by side have the same print, such as a digit: then options are below
    each other."""
    prints = [[see_print(small, one) for one in row] for row in block]
    beside = [abs(one - two).mean() for row in prints for one, two in pairwise(row)]
    columns = [[*column] for column in zip(*prints, strict=True)]
    below = [abs(one - two).mean() for column in columns for one, two in pairwise(column)]
    differs = float(np.mean(below))
    return differs > PRINT_CONTRAST and float(np.mean(beside)) < SAME_PRINT * differs


def see_print(picture: Grey, one: Bubble) -> NDArray[np.float64]:
    """What is in the middle of a bubble."""
    left, top, right, bottom = one[:4]
    across, down = (right - left) / 5, (bottom - top) / 5
    part = picture[
        round(top + down) : round(bottom - down), round(left + across) : round(right - across)
    ]
    small = cv2.resize(part, (PRINT_SIDE, PRINT_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float64)


def name_options(count: int) -> list[str]:
    """Letters, the ten digits, or numbers."""
    if count == len(digits):
        return [*digits]
    return (
        [*ascii_uppercase[:count]]
        if count <= len(ascii_uppercase)
        else [*map(str, range(1, count + 1))]
    )


def surround(block: Rows) -> list[int]:
    """The box around all bubbles."""
    sides = np.array([one[:4] for row in block for one in row])
    return [
        *np.floor(sides[:, :2].min(0)).astype(int).tolist(),
        *np.ceil(sides[:, 2:].max(0)).astype(int).tolist(),
    ]
