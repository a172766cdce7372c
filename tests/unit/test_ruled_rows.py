"""How many rows a ruled table has: as many as the form says, or as the page shows."""

from dataclasses import replace
from itertools import pairwise, product

import cv2
import numpy as np
import PIL.Image
import pytest

from digitq.producer.sources.source import Entry
from digitq.protocol.asked.form import Check, Form, Table
from digitq.protocol.asked.known import Known
from digitq.worker.classify import classify_chunk
from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.forms.cutting import Cut, cut_cells
from digitq.worker.sight.forms.perspective import project
from tests.cutting import cut_items
from tests.drawing import encode_image
from tests.forms import FONT, draw_lines, draw_words, take_photo

LEFT, TOP, ROW = 80, 120, 44  # px: where the table begins, and how high a row is
COLUMNS = (LEFT, 300, 400, 500, 600)
WORDS = ("Oral", "Written", "Points")
DIGITS = Known.check(pattern=r"\d{1,3}")
TABLE = Table("marks", None, 6, ("", "c1", "c2", "c3"), DIGITS)
OPEN = replace(TABLE, rows=40, fewest=1, head=0)


def draw_page(
    rows: int, head: tuple[str, ...] = (), head_height: int = ROW, size: int = 1100
) -> Grey:
    """A page with a table of so many rows below its head; `size` is the page's height in px."""
    page = np.full((size, 700), 255, np.uint8)
    top = TOP + head_height * bool(head)
    lines = (*([TOP] * bool(head)), *range(top, top + rows * ROW + 1, ROW))
    draw_lines(page, COLUMNS, lines)
    for left, word in zip(COLUMNS[1:], head, strict=False):
        cv2.putText(page, word, (left + 8, top - 14), FONT, 0.6, 0, 1, cv2.LINE_AA)
    for row in range(rows):
        cv2.putText(page, "Ada", (LEFT + 8, top + row * ROW + 30), FONT, 0.7, 0, 1, cv2.LINE_AA)
        for column, left in enumerate(COLUMNS[1:-1]):
            place = left + 20, top + row * ROW + 34
            number = f"{(7 * row + 3 * column) % 9 + 1}{(5 * row + column) % 10}"
            cv2.putText(page, number, place, FONT, 1, 40, 2, cv2.LINE_AA)
    return page


def find_rows(page: Grey, table: Table, blank: Grey | None = None) -> list[int]:
    """How far below the page's edge each row of the table is, px."""
    file = None if blank is None else encode_image(PIL.Image.fromarray(blank))
    cuts = cut_cells(Form(file, "lines", (), (table,), ()), page)
    width = len(list(filter(None, table.columns)))
    assert len(cuts) == table.rows * width
    rows = [cuts[at : at + width] for at in range(0, len(cuts), width)]
    there = [row for row in rows if all(isinstance(one, Cut) for one in row)]
    assert all(one is None for row in rows[len(there) :] for one in row)
    middles = []
    for first, *_ in there:
        assert isinstance(first, Cut)
        height, width = first.picture.shape
        middles.append(round(project(first.to_page, np.array([(width / 2, height / 2)]))[0, 1]))
    return middles


def expect(rows: int, head: int = 0) -> list[int]:
    """Where the rows of `draw_page` are."""
    return [TOP + head + row * ROW + ROW // 2 for row in range(rows)]


@pytest.mark.parametrize("rows", [4, 5, 7, 9])
@pytest.mark.parametrize("head", [(), WORDS])
def test_a_page_with_other_rows_than_the_form_is_refused(rows: int, head: tuple[str, ...]) -> None:
    """The last rows would be read under the first's names, or the first be lost as a head."""
    with pytest.raises(ImageError, match=r"page not aligned: its table has \d+ rows, the form 6"):
        find_rows(draw_page(rows, head), TABLE)


@pytest.mark.parametrize(
    ("head", "height"),
    [
        (WORDS, ROW),  # it is read with doubt
        (("1", "2", "3"), ROW),  # it numbers the columns
        (("A", "B", "C"), round(1.5 * ROW)),  # it is higher
    ],
)
def test_a_head_is_above(head: tuple[str, ...], height: int) -> None:
    page = draw_page(6, head, height)
    assert find_rows(page, TABLE) == pytest.approx(expect(6, height), abs=3)
    with pytest.raises(ImageError, match="its table has 5 rows, the form 6; tables.marks.head"):
        find_rows(draw_page(5, head, height), TABLE)


def test_a_form_may_say_how_many_rows_of_head_there_are() -> None:
    page = draw_page(6, ("A", "B", "C"))
    with pytest.raises(ImageError, match="its table has 7 rows, the form 6; tables.marks.head"):
        find_rows(page, TABLE)  # this may be a row with numbers
    assert find_rows(page, replace(TABLE, head=1)) == pytest.approx(expect(6, ROW), abs=3)
    with pytest.raises(ImageError, match="its table has 7 rows, the form 6$"):
        find_rows(page, replace(TABLE, head=0))
    assert find_rows(page, replace(TABLE, rows=5, head=2)) == pytest.approx(
        expect(6, ROW)[1:], abs=3
    )


@pytest.mark.parametrize(("rows", "head"), [(1, ()), (5, ("A", "B", "C")), (17, ())])
def test_the_rows_of_a_page_count_where_their_number_is_open(
    rows: int, head: tuple[str, ...]
) -> None:
    table = replace(OPEN, head=int(bool(head)))
    page = draw_page(rows, head)
    assert find_rows(page, table) == pytest.approx(expect(rows, ROW * bool(head)), abs=3)
    corners = [(40.0, 60.0), (690.0, 30.0), (720.0, 1050.0), (20.0, 1090.0)]
    photo, _ = take_photo(page, corners, (760, 1120))
    assert len(find_rows(np.ascontiguousarray(np.rot90(photo, 2)), table)) == rows


def test_a_range_of_rows_has_ends() -> None:
    with pytest.raises(ImageError, match="its table has 7 rows, the form 8 to 40"):
        find_rows(draw_page(7), replace(OPEN, fewest=8))
    with pytest.raises(ImageError, match="its table has 7 rows, the form 1 to 6"):
        find_rows(draw_page(7), replace(OPEN, rows=6))


def test_the_blank_shows_the_head() -> None:
    blank = draw_page(9, ("A", "B", "C"))
    blank[TOP + ROW + 3 :, COLUMNS[1] + 3 :] = 255
    draw_lines(blank, COLUMNS, (*range(TOP, TOP + 10 * ROW + 1, ROW),))
    table = replace(OPEN, head=None)
    page = draw_page(7, ("A", "B", "C"))
    assert find_rows(page, table, blank) == pytest.approx(expect(7, ROW), abs=3)
    with pytest.raises(ImageError, match="the blank does not show the head of its table; tables.m"):
        find_rows(page, table, np.full_like(blank, 255))


def test_rules_hold_for_the_rows_that_a_page_has() -> None:
    check = Check("sum(c1) == 0", 0)
    form = Form(None, "lines", (), (replace(OPEN, rows=9),), (check,))
    page = encode_image(PIL.Image.fromarray(draw_page(5)))
    (chunk,) = cut_items([Entry("a.png", lambda: page)], form=form)
    rows = classify_chunk(chunk, "number", known=form).to_pylist()
    assert {row["reason"] for row in rows if row["row"] > 5} == {"absent"}
    failed = [row["row"] for row in rows if row["reason"] == "check failed"]
    assert failed == [1, 2, 3, 4, 5]
    assert {row["field"] for row in rows if row["reason"] == "check failed"} == {"c1"}


def cut_off(page: Grey) -> Grey:
    return page[: TOP + 5 * ROW - 20]


def lack_border(page: Grey) -> Grey:
    page[TOP + 6 * ROW - 2 : TOP + 6 * ROW + 3, :] = 255
    for x in COLUMNS:
        cv2.line(page, (x, TOP), (x, TOP + 6 * ROW), 0, 2)
    return page


def lack_line(page: Grey) -> Grey:
    for left, right in zip(COLUMNS, COLUMNS[1:], strict=False):
        page[TOP + 3 * ROW - 2 : TOP + 3 * ROW + 3, left + 3 : right - 2] = 255
    return page


def add_line(page: Grey) -> Grey:
    cv2.line(page, (COLUMNS[0], TOP + 26), (COLUMNS[-1], TOP + 26), 0, 2)
    return page


def add_table(page: Grey) -> Grey:
    draw_lines(page, COLUMNS, (700, 744, 788, 832))
    return page


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_off, "its table goes on beyond its outer lines"),
        (lack_border, "its table goes on beyond its outer lines"),
        (lack_line, "a line between rows of its table may be missing"),
        (add_line, "rows of its table differ in height"),
        (add_table, "it has several tables of 4 columns"),
    ],
)
def test_no_row_is_lost_or_added_where_their_number_is_open(spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ImageError, match=f"page not aligned: {message}"):
        find_rows(spoil(draw_page(6)), OPEN)


@pytest.mark.parametrize("rows", [3, 4, 5, 7, 8])
def test_a_page_with_other_rows_than_the_box_of_the_blank_is_refused(rows: int) -> None:
    """What is printed above fits, so the rows of the blank would be read where they were."""
    form = make_boxed()
    for draw in (draw_form(rows), stretch_table(draw_form(rows), 6 / rows)):
        page, _ = take_photo(draw, [(9, 4), (712, 14), (707, 1107), (4, 1096)], (720, 1110))
        with pytest.raises(ImageError, match="page not aligned: "):
            cut_cells(form, page)


def test_a_page_that_shows_a_part_of_a_table_is_read() -> None:
    form, page = make_boxed(), draw_form(6)
    whole = cut_cells(form, page)
    assert all(isinstance(one, Cut) for one in whole)
    part = cut_cells(form, page[: BOXED_TOP + 4 * ROW + 10])
    assert [isinstance(one, Cut) for one in part] == [True] * 12 + [False] * 6


@pytest.mark.parametrize("erased", [(3,), (1, 4), (6,), (1, 2, 3, 4, 5)])
def test_faint_lines_are_no_other_rows(erased: tuple[int, ...]) -> None:
    """The lines between columns go on, and no other number of rows has lines there."""
    page = draw_form(6)
    for row, (left, right) in product(erased, pairwise(COLUMNS)):
        y = BOXED_TOP + row * ROW
        page[y - 2 : y + 3, left + 3 : right - 2] = 255
    assert all(isinstance(cut, Cut) for cut in cut_cells(make_boxed(), page))


def test_a_line_below_a_table_is_no_other_row() -> None:
    page = draw_form(6)
    below = BOXED_TOP + 7 * ROW
    cv2.line(page, (COLUMNS[0], below), (COLUMNS[-1], below), 0, 2)
    assert all(isinstance(cut, Cut) for cut in cut_cells(make_boxed(), page))


BOXED_TOP = TOP + 420  # px: where the table of `draw_form` begins below its head


def draw_form(rows: int, numbers: bool = True) -> Grey:
    """A page with words above a table and its head."""
    table = draw_page(rows, WORDS)
    if not numbers:
        table[TOP + ROW + 3 :] = 255
        draw_lines(table, COLUMNS, (*range(TOP, TOP + (rows + 1) * ROW + 1, ROW),))
    page = np.full((1100, 700), 255, np.uint8)
    page[TOP + 370 :] = table[TOP - 6 :][: len(page) - TOP - 370]
    for line in range(10):
        draw_words(page, line, 40 + 7 * line, 60 + 40 * line)
    return page


def stretch_table(page: Grey, factor: float) -> Grey:
    """The page with the rows of its table higher or lower."""
    rest = page[BOXED_TOP:]
    longer = cv2.resize(rest, None, fx=1, fy=factor, interpolation=cv2.INTER_AREA)
    return np.vstack([page[:BOXED_TOP], longer, np.full_like(rest, 255)])[: len(page)]


def make_boxed() -> Form:
    box = (float(COLUMNS[0]), float(BOXED_TOP), float(COLUMNS[-1]), float(BOXED_TOP + 6 * ROW))
    blank = encode_image(PIL.Image.fromarray(draw_form(6, numbers=False)))
    return Form(blank, "page", (), (replace(TABLE, box=box),), ())


def test_a_wide_column_lacks_no_line() -> None:
    """Words in it were taken for a faint line if it was about twice as wide as others."""
    page = draw_page(6)
    for row in range(6):
        cv2.line(page, (192, TOP + row * ROW + 12), (192, TOP + row * ROW + 26), 0, 2)
    assert len(find_rows(page, TABLE)) == 6


def test_a_square_table_is_not_seen_from_its_side() -> None:
    page = np.ascontiguousarray(np.rot90(draw_page(4)))
    rows = cut_cells(Form(None, "lines", (), (OPEN,), ()), page)
    first, below = rows[0], rows[3]
    assert isinstance(first, Cut) and isinstance(below, Cut)
    step = below.to_page[:2, 2] - first.to_page[:2, 2]
    assert abs(step[1]) < 4 and step[0] == pytest.approx(ROW, abs=4)
