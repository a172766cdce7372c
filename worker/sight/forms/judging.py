"""Judges by what is in the cells of a ruled table which way up it is, and whether it has a head."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.known import Known
from digitq.protocol.asked.values import only_digits
from digitq.worker.picture import Grey, ImageError

if TYPE_CHECKING:
    from digitq.worker.sight.numbers.recognition import Readings

PLACE_RIM = 0.2  # this share of each side of a cell may show its lines
MAX_PRINT_LIGHT = 0.8  # print is at most so light, as a share of the light of paper
MIN_PRINT = 0.005  # something is printed in a cell of a blank if this share of it is dark
MIN_DIFFERENCE = 0.2  # a head is higher or lower than the usual row by more, in its heights
MAX_UNEVEN = 0.1  # then all rows differ from the usual one by less
MIN_NUMBERED = 0.75  # a head numbers columns if this share of its numbers is one more than before
MIN_HEAD_DOUBT = 0.5  # words are read as numbers, of which at least this share is doubtful
JUDGED_CELLS = 24  # so many cells tell which way up a table is
COMPARED_CELLS = 16  # so many cells below the first row tell whether all writing is doubtful


def count_sure(cells: Iterable[Grey], known: Known) -> float:
    """How many numbers are surely read in the cells with most ink.

    This tells which way up they are. The detector does not: it finds digits upside down, too.
    """
    inked = sorted(cells, key=lambda cell: -float(cell.std()))[:JUDGED_CELLS]
    read = read_cells(inked, known)
    return sum(one.confidence for one in read if one and not one.reason)


def is_printed(cells: Sequence[Grey]) -> bool:
    """Whether something is printed in most of these cells of a blank."""
    printed = 0
    for cell in cells:
        high, wide = (round(PLACE_RIM * side) for side in cell.shape)
        inside = cell[high:-high, wide:-wide]
        printed += bool((inside < MAX_PRINT_LIGHT * np.median(inside)).mean() > MIN_PRINT)
    return printed > len(cells) / 2


def has_head(heights: NDArray[np.float64], rows: Sequence[Sequence[Grey]], known: Known) -> bool:
    """Whether the first row of a table is clearly a head.

    Then it is the only row of another height, it numbers the columns, or it is read with doubt
    where the next rows are not. `heights` (R,) are those of the rows; the usual one is 1.
    """
    differences = np.abs(heights - 1)
    if differences[0] > MIN_DIFFERENCE and differences[1:].max(initial=0) < MAX_UNEVEN:
        return True
    numbers = [*read_cells(rows[0], known)]
    texts = [only_digits(one.numbers[0].number) if one else "" for one in numbers]
    steps = [int(after or 0) - int(before or 0) == 1 for before, after in pairwise(texts)]
    if len(steps) > 1 and sum(steps) >= MIN_NUMBERED * len(steps):
        return True
    doubt = measure_doubt(numbers)
    if doubt < MIN_HEAD_DOUBT:
        return False
    below = [*chain.from_iterable(rows[1:])][:COMPARED_CELLS]
    others = [*read_cells(below, known)]
    return bool(others) and measure_doubt(others) <= doubt / 2


def measure_doubt(readings: "Sequence[Readings | None]") -> float:
    """The share of readings that a person would have to check."""
    from digitq.worker.models.number_networks import (
        load_networks,  # it imports torch, see `read_cells`
    )

    _, card = load_networks()
    doubts = [not one or one.reason or one.confidence < card.review_below for one in readings]
    return sum(map(bool, doubts)) / max(1, len(doubts))


def read_cells(cells: Iterable[Grey], known: Known) -> "Iterator[Readings | None]":
    """What the cells in which something is written may show; `None` for what can't be read."""
    # It imports torch, which takes 2 s: `digitq report` needs it for some forms only
    from digitq.worker.sight.numbers.recognition import find_readings

    for cell in cells:
        try:
            readings = find_readings(cell, known)
        except ImageError:
            yield None
        else:
            if readings.numbers[0].number:
                yield readings
