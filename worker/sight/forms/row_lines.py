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
ROOM_BESIDE = 8  # px: what is left and right of the table is seen, too
MIN_LINES = 3  # fewer lines on the page tell nothing
SLACK = 5  # px: a line of a bent page may be so far from its place
MIN_RULED = 0.5  # lines are compared if they are drawn for at least this share of their length
MAX_MISSING = 0.3  # a line is missing if it is drawn for less than this share of clear ones
MIN_EXTRA = 0.6  # a line that the blank lacks is another row's with more than this share
OTHER_HEIGHTS = np.linspace(0.6, 2.1, 301)  # rows of a page may be so high, in those of the blank
MIN_MOVED = 0.22  # a line of other rows is at least so far from those of the blank, in its rows
MIN_BETTER = 0.3  # lines of other rows are drawn for so much more of their length


@dataclass(frozen=True)
class Ruling:
    """What is drawn at each height of a table."""

    level: NDArray[np.float64]  # for what share of its length a line is drawn near there
    upright: NDArray[np.float64]  # which share of the lines between columns is drawn there

    def see_columns(self, start: int, end: int) -> float:
        """Which share of the lines between columns is drawn from one height to another."""
        low, high = sorted((start, end))
        between = self.upright[low + SLACK : high - SLACK]
        return float(between.mean()) if len(between) else 0.0


@dataclass(frozen=True)
class RowLines:
    """Where a table of the blank has its lines, and what the blank shows there."""

    origin: tuple[float, float]  # the left upper corner of what is compared, px of the blank
    scale: float  # px of the compared picture in one of the blank
    size: tuple[int, int]  # the size of the compared picture, px
    places: NDArray[np.intp]  # where the lines of rows are, outer ones too, px of that picture
    columns: NDArray[np.intp]  # where the lines of columns are
    blank: Ruling

    def check(self, page: Grey, alignment: Alignment) -> None:
        """Raises `ImageError` if other rows explain the lines of the page better."""

        def place(points: Points) -> Points:
            return alignment.to_page(points / self.scale + self.origin)

        seen = measure(warp_smoothly(page, place, self.size), self.columns)
        ends = [(x, y) for y in self.places for x in self.columns[[0, -1]]]
        targets = place(np.array(ends, np.float64))
        is_inside = ((targets >= 0) & (targets <= page.shape[::-1])).all(1)
        shown = np.flatnonzero(is_inside.reshape(-1, 2).all(1))
        if len(shown) < MIN_LINES:
            return
        before, now = (one.level[self.places[shown]] for one in (self.blank, seen))
        clear = float(np.sort(now)[-2])  # rows that are elsewhere may share the outer lines only
        if min(clear, float(np.median(before))) < MIN_RULED:
            return  # the rows are not ruled, or not clearly
        if (
            self.has_other_heights(seen, shown, clear)
            or (shown[0] == 0 and self.has_other_end(seen, clear, self.places[:2][::-1]))
            or (shown[-1] == len(self.places) - 1)
            and self.has_other_end(seen, clear, self.places[-2:])
        ):
            raise ImageError(f"{NOT_ALIGNED}: the rows of its table are not those of the blank")

    def has_other_heights(self, seen: Ruling, shown: NDArray[np.intp], clear: float) -> bool:
        """Whether the lines of higher or lower rows, from the first one on, are drawn better."""
        numbers = np.arange(len(self.places))
        for height in OTHER_HEIGHTS:
            others = np.arange(height, shown[-1], height)
            others = others[others > shown[0]]
            moved = others[np.abs(others - np.rint(others)) > MIN_MOVED]
            inner = shown[1:-1]
            inner = inner[np.abs(inner - height * np.rint(inner / height)) > MIN_MOVED]
            others, better = (moved, MIN_BETTER) if len(moved) else (others, 1 - MAX_MISSING)
            if len(inner) and 2 * len(others) >= len(inner):
                places = np.rint(np.interp(others, numbers, self.places)).astype(int)
                own = float(seen.level[self.places[inner]].mean())
                if seen.level[places].mean() > max(MIN_EXTRA * clear, own + better * clear):
                    return True
        return False

    def has_other_end(self, seen: Ruling, clear: float, last: NDArray[np.intp]) -> bool:
        """Whether the page lacks the row between the two last lines, or has another one beyond."""
        inner, outer = last.tolist()
        beyond = outer + ROW_PX * (1 if outer > inner else -1)
        before, now = self.blank, seen
        usual = min(before.see_columns(inner, outer), now.see_columns(*self.places[[0, -1]]))
        has_line = now.level[outer] >= (MIN_EXTRA if usual >= MIN_EXTRA else MAX_MISSING) * clear
        if usual >= MIN_EXTRA:
            return (not has_line and now.see_columns(inner, outer) < MAX_MISSING * usual) or (
                now.see_columns(outer, beyond) > MIN_EXTRA * usual
                and before.see_columns(outer, beyond) < MAX_MISSING
            )
        near = slice(beyond - SLACK, beyond + SLACK)
        is_new = before.level[near].max() < MAX_MISSING * clear
        return bool(
            (not has_line and before.level[outer] >= MIN_RULED)
            or (is_new and now.level[near].max() > MIN_EXTRA * clear)
        )


def find_row_lines(blank: Grey, columns: Sequence[float], rows: Sequence[float]) -> RowLines:
    """The lines of a table of a blank that has these lines, px of the blank."""
    height = (rows[-1] - rows[0]) / (len(rows) - 1)
    scale = ROW_PX / height
    origin = columns[0] - ROOM_BESIDE / scale, rows[0] - ROWS_BEYOND * height
    size = (
        max(ROW_PX, round(scale * (columns[-1] - columns[0]))) + 2 * ROOM_BESIDE,
        round(scale * (rows[-1] - rows[0]) + 2 * ROWS_BEYOND * ROW_PX),
    )
    seen = warp_smoothly(blank, lambda points: points / scale + origin, size)
    across, down = (
        np.rint((np.array(lines) - start) * scale).astype(int)
        for lines, start in zip((columns, rows), origin, strict=True)
    )
    return RowLines(origin, scale, size, down, across, measure(seen, across))


def measure(picture: Grey, columns: NDArray[np.intp]) -> Ruling:
    """What is drawn of the lines of a table whose columns are at these px."""
    ink = find_ink(picture)
    near = np.ones((2 * SLACK + 1, 1), np.uint8)
    level = cv2.dilate(find_line_ink(ink, 0), near)[:, ROOM_BESIDE:-ROOM_BESIDE].mean(1)
    upright = cv2.dilate(find_line_ink(ink, 1), near.T)[:, columns].mean(1)
    return Ruling(level.astype(np.float64), upright.astype(np.float64))
