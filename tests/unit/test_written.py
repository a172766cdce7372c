"""What is written in a place is kept, and what is printed or belongs to its neighbours is not."""

import cv2
import numpy as np
import pytest

from digitq.protocol.asked.form_file import Box
from digitq.worker.picture import Grey
from digitq.worker.sight.forms.written import keep_writing
from tests.drawing import add_grain

HIGH, WIDE = 56, 160  # px: a box, of which half a height is seen above and below
SIZE = 2 * HIGH, WIDE
TOP, BOTTOM = HIGH // 2, HIGH // 2 + HIGH
BOX: Box = (4, TOP, WIDE - 4, BOTTOM)
PAPER, PEN = 230, 60  # grey values


def draw_place(guides: int = 0, line_ink: int = 0) -> Grey:
    """An empty place: the lines of a table and, if asked for, guides for so many digits."""
    place = np.full(SIZE, PAPER, np.uint8)
    for line in (TOP, BOTTOM):
        place[line - 1 : line + 1] = line_ink
    place[:, 3:5] = place[:, -5:-3] = 0
    for guide in range(1, guides):
        across = WIDE * guide // guides
        place[TOP:BOTTOM, across - 1 : across + 1] = 90
    return place


def write_stroke(top: int, bottom: int, across: int = 60, ink: int = PEN, slant: int = 8) -> Grey:
    """A `1` on paper, of which some may be beyond the box."""
    page = np.full(SIZE, PAPER, np.uint8)
    cv2.line(page, (across + slant, top), (across, bottom), ink, 4, cv2.LINE_AA)
    return page


def see(place: Grey, *written: Grey) -> Grey:
    """The place with what is written there, as a scanner sees it."""
    soft = cv2.GaussianBlur(np.minimum.reduce([place, *written]), (0, 0), 0.7)
    return add_grain(soft, 2)


def keep(page: Grey, blank: Grey) -> tuple[Grey, tuple[int, int]]:
    kept, rows, _ = keep_writing(page, blank, BOX)
    assert kept.shape == page.shape and kept.dtype == np.uint8
    return kept, rows


def is_ink(page: Grey, least: int = 60) -> np.ndarray:
    return np.asarray(page < PAPER - least)


def share_kept(kept: Grey, written: Grey) -> float:
    """How much of the ink of a stroke is left."""
    ink = is_ink(written, (PAPER - int(written.min())) // 2)
    return float((kept[ink] < PAPER - (PAPER - int(written.min())) // 4).mean())


@pytest.mark.parametrize(("top", "bottom"), [(TOP + 8, BOTTOM - 8), (TOP - 16, BOTTOM - 10)])
def test_a_digit_is_whole_though_it_reaches_beyond_its_row(top: int, bottom: int) -> None:
    digit, place = write_stroke(top, bottom), draw_place(line_ink=170)
    kept, rows = keep(see(place, digit), place)
    assert share_kept(kept, digit) > 0.95
    assert rows[0] <= min(TOP, top + 2) and rows[1] >= BOTTOM
    assert not is_ink(kept)[:, 90:].any()  # there are only lines


@pytest.mark.parametrize(("top", "bottom"), [(BOTTOM - 6, 2 * HIGH - 1), (0, TOP + 6)])
def test_a_digit_of_the_next_row_is_gone(top: int, bottom: int) -> None:
    digit, other = write_stroke(TOP + 8, BOTTOM - 10), write_stroke(top, bottom, 110)
    kept, rows = keep(see(draw_place(), digit, other), draw_place())
    assert share_kept(kept, digit) > 0.95 and rows == (TOP, BOTTOM)
    assert share_kept(kept, other) < 0.05


@pytest.mark.parametrize("shift", [(0, 0), (2, 2), (-2, -2)])
def test_lines_and_guides_of_the_blank_are_gone(shift: tuple[int, int]) -> None:
    """The page may have them 2 px from where the blank has them."""
    moved = np.roll(draw_place(4), shift, (0, 1))
    kept, rows = keep(see(moved), draw_place(4))
    assert not is_ink(kept, 20).any() and rows == (TOP, BOTTOM)
    digit = write_stroke(TOP + 8, BOTTOM - 8, 54)
    kept, _ = keep(see(moved, digit), draw_place(4))
    assert share_kept(kept, digit) > 0.95
    assert not is_ink(kept)[:, 75:-6].any()  # at its sides, a place shows more than its box


def test_pale_pencil_stays() -> None:
    digit = write_stroke(TOP + 8, BOTTOM - 8, ink=PAPER - 20)
    kept, _ = keep(see(draw_place(), digit), draw_place())
    assert share_kept(kept, digit) > 0.9


@pytest.mark.parametrize("paper", [PAPER, 120])
def test_an_empty_place_gives_plain_paper(paper: int) -> None:
    page = (see(draw_place()) * (paper / PAPER)).astype(np.uint8)
    kept, rows = keep(page, draw_place())
    assert np.abs(kept - float(paper)).max() <= 6 and rows == (TOP, BOTTOM)


@pytest.mark.parametrize("ink", [0, PEN, 110])
def test_a_stroke_that_touches_a_line_of_the_form_stays(ink: int) -> None:
    digit = write_stroke(TOP + 10, BOTTOM + 3, ink=ink)
    kept, _ = keep(see(draw_place(), digit), draw_place())
    assert share_kept(kept, digit) > 0.85


@pytest.mark.parametrize("gap", [4, 8])
def test_a_digit_near_the_side_of_its_box_stays(gap: int) -> None:
    digit = write_stroke(TOP + 8, BOTTOM - 8, 4 + gap, slant=4)
    kept, _ = keep(see(draw_place(), digit), draw_place())
    assert share_kept(kept, digit) > 0.8
