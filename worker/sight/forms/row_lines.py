"""Compares the lines between the rows of a table on a page with those on its blank.

The blank's print is found although a table has more or fewer rows: then rows are elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.forms.alignment import NOT_ALIGNED, Alignment
from digitq.worker.sight.forms.perspective import Points
from digitq.worker.sight.forms.ruling import find_ink, find_line_ink
from digitq.worker.sight.forms.smooth_shift import warp_smoothly

ROW_PX = 32  # px: rows are compared where the usual one is as high
ROWS_BEYOND = 1.3  # what is above and below the table, in heights of a row, is compared too
MIN_LINES = 3  # fewer lines on the page tell nothing
SLACK = 5  # px: a line of a bent page may be so far from its place
MIN_RULED = 0.5  # lines are compared if they are drawn for at least this share of their length
MAX_MISSING = 0.3  # a line is missing if it is drawn for less than this share of clear ones
MIN_EXTRA = 0.6  # a line that the blank lacks is another row's with more than this share


@dataclass(frozen=True)
class RowLines:
    """What is drawn at each height of a table of the blank."""

    origin: tuple[float, float]  # the left upper corner of what is compared, px of the blank
    scale: float  # px of the compared picture in one of the blank
    size: tuple[int, int]  # the size of the compared picture, px
    places: NDArray[np.intp]  # where the lines of rows are, outer ones too, px of that picture
    cover: NDArray[np.float64]  # for what share of its length a line is drawn at each height

    def check(self, page: Grey, alignment: Alignment) -> None:
        """Raises `ImageError` if the page lacks a line of a row, or has one row more."""

        def place(points: Points) -> Points:
            return alignment.to_page(points / self.scale + self.origin)

        cover = measure_cover(warp_smoothly(page, place, self.size))
        ends = [(x, y) for y in self.places for x in (0, self.size[0])]
        targets = place(np.array(ends, np.float64))
        is_inside = ((targets >= 0) & (targets <= page.shape[::-1])).all(1)
        shown = self.places[is_inside.reshape(-1, 2).all(1)]
        if len(shown) < MIN_LINES:
            return
        before, now = self.cover[shown], cover[shown]
        clear = float(np.sort(now)[-2])  # rows that are elsewhere may share the outer lines only
        if min(clear, float(np.median(before))) < MIN_RULED:
            return  # the rows are not ruled, or not clearly
        next_ones = self.places[0] - ROW_PX, self.places[-1] + ROW_PX
        if np.any((now < MAX_MISSING * clear) & (before >= MIN_RULED)) or any(
            cover[at] > MIN_EXTRA * clear and self.cover[at] < MAX_MISSING * clear
            for at in next_ones
        ):
            raise ImageError(f"{NOT_ALIGNED}: the rows of its table are not those of the blank")


def find_row_lines(blank: Grey, columns: Sequence[float], rows: Sequence[float]) -> RowLines:
    """The lines of a table of a blank that has these lines, px of the blank."""
    height = (rows[-1] - rows[0]) / (len(rows) - 1)
    scale = ROW_PX / height
    origin = columns[0], rows[0] - ROWS_BEYOND * height
    size = (
        max(ROW_PX, round(scale * (columns[-1] - columns[0]))),
        round(scale * (rows[-1] - rows[0]) + 2 * ROWS_BEYOND * ROW_PX),
    )
    seen = warp_smoothly(blank, lambda points: points / scale + origin, size)
    places = np.rint((np.array(rows) - origin[1]) * scale).astype(int)
    return RowLines(origin, scale, size, places, measure_cover(seen))


def measure_cover(picture: Grey) -> NDArray[np.float64]:
    """For what share of the width a level line is drawn near each height."""
    lines = find_line_ink(find_ink(picture), 0)
    near = cv2.dilate(lines, np.ones((2 * SLACK + 1, 1), np.uint8))
    return np.asarray(near.mean(1), np.float64)
