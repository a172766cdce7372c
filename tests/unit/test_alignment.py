"""Where the fields of a form are on a page, or that it is not there."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise, product

import cv2
import numpy as np
import PIL.Image
import pytest

from digitq.protocol.asked.form import Field, Form, Table
from digitq.protocol.asked.form_file import Box
from digitq.protocol.asked.known import Known
from digitq.worker.picture import Grey, ImageError
from digitq.worker.show.surroundings import show_cells
from digitq.worker.sight.forms.cutting import Cut, cut_cells
from digitq.worker.sight.forms.hypotheses import LOOKS
from digitq.worker.sight.forms.perspective import Points, project
from digitq.worker.sight.limits import Watch
from digitq.worker.sight.numbers.ink import has_strokes
from tests.drawing import encode_image
from tests.forms import (
    BOXES,
    COLUMNS,
    FONT,
    HEIGHT,
    ROWS,
    WIDTH,
    cell_boxes,
    draw_blank,
    draw_words,
    fill,
    make_form,
    take_photo,
)

Place = Callable[[Points], Points]
Corners = list[tuple[float, float]]
WHOLE: Corners = [(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)]
FLAT = (WIDTH, HEIGHT)
PAGES: dict[str, tuple[Corners, tuple[int, int]]] = {
    "shifted and stretched": ([(0.98 * x + 31, 1.03 * y - 17) for x, y in WHOLE], FLAT),
    "upside down": (WHOLE[2:] + WHOLE[:2], FLAT),
    "clockwise": ([(HEIGHT, 0), (HEIGHT, WIDTH), (0, WIDTH), (0, 0)], (HEIGHT, WIDTH)),
    "from below": ([(250, 150), (900, 150), (1100, 1300), (60, 1350)], (1200, 1500)),
    "askew": ([(330, 200), (1000, 300), (950, 1270), (150, 1120)], (1200, 1600)),
}


@cache
def blank(seed: int = 0) -> Grey:
    return draw_blank(seed)


@cache
def form() -> Form:
    """One form for all tests: what is known of its blank is found once."""
    return make_form(blank())


@cache
def photo(name: str) -> tuple[Grey, Place, list[Cut | ImageError]]:
    """A filled page, where its points are on it, and its cuts."""
    corners, size = PAGES[name]
    page, place = take_photo(fill(blank()), corners, size, 255 if size == FLAT else 90)
    return page, place, cut_cells(form(), page)


def check_cuts(
    cuts: list[Cut | ImageError], place: Place, near: float = 0.1, boxes: list[Box] | None = None
) -> int:
    """Each cut shows its cell, to `near` times its height; gives how many cells were cut."""
    for (left, top, right, bottom), cut in zip(boxes or cell_boxes(), cuts, strict=True):
        if isinstance(cut, Cut):
            height, width = cut.picture.shape
            middle = place(np.array([((left + right) / 2, (top + bottom) / 2)]))
            ends = place(np.array([((left + right) / 2, top), ((left + right) / 2, bottom)]))
            seen = project(cut.to_page, np.array([(width / 2, height / 2), (width / 2, 0)]))
            cell_height = np.linalg.norm(ends[1] - ends[0])
            assert np.linalg.norm(seen[0] - middle[0]) < near * cell_height
            up = (seen[1] - seen[0]) / np.linalg.norm(seen[1] - seen[0])
            assert up @ (ends[0] - ends[1]) > 0.95 * cell_height  # the cut is upright
    return sum(isinstance(cut, Cut) for cut in cuts)


@pytest.mark.parametrize("name", PAGES)
def test_the_fields_are_found(name: str) -> None:
    _, place, cuts = photo(name)
    assert check_cuts(cuts, place) == len(cell_boxes())


def to_one_bit(page: Grey) -> Grey:
    return np.uint8(255) * (page > 128)


def spoil(page: Grey) -> Grey:
    """A blurred, grainy photo in the dark."""
    soft = cv2.GaussianBlur(page.astype(np.float32), (0, 0), 1.2)
    dark = 20 + soft / 4 + np.linspace(0, 30, page.shape[1], dtype=np.float32)
    grain = np.random.default_rng(0).normal(0, 3, page.shape)
    return (dark + grain).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("change", [to_one_bit, spoil])
def test_the_fields_are_found_on_bad_pictures(change: Callable[[Grey], Grey]) -> None:
    page, place, _ = photo("askew")
    assert check_cuts(cut_cells(form(), change(page)), place, 0.15) == len(cell_boxes())


def bend(page: Grey) -> tuple[Grey, Place]:
    """The page bent upwards in its middle by 14 px."""
    down, right = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    bent = cv2.remap(page, right, down + 14 * np.sin(right / WIDTH * np.pi), cv2.INTER_LINEAR)

    def place(points: Points) -> Points:
        return points - np.stack([0 * points[:, 0], 14 * np.sin(points[:, 0] / WIDTH * np.pi)], 1)

    return np.asarray(bent), place


def test_a_bent_page_is_followed() -> None:
    page, place = bend(fill(blank()))
    assert check_cuts(cut_cells(form(), page), place, 0.15) == len(cell_boxes())


def fold(page: Grey) -> tuple[Grey, Place]:
    """A photo of the page whose lower half is folded towards the camera."""
    down, right = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)

    def place(points: Points) -> Points:
        below = (points[:, 1] / HEIGHT - 0.45).clip(0)
        return points + np.stack([40 * below * (points[:, 0] / WIDTH - 1), -70 * below], 1)

    points = np.stack([right.ravel(), down.ravel()], 1)
    sources = points
    for _ in range(8):  # the px of the page at each px of the photo
        sources = sources + points - place(sources)
    grid = sources.reshape(HEIGHT, WIDTH, 2).astype(np.float32)
    return np.asarray(cv2.remap(page, grid, None, cv2.INTER_LINEAR, borderValue=90)), place


def test_a_folded_page_is_followed() -> None:
    page, place = fold(fill(blank()))
    assert check_cuts(cut_cells(form(), page), place, 0.2) == len(cell_boxes())


@pytest.mark.parametrize("name", ["shifted and stretched", "upside down", "askew"])
def test_what_is_printed_on_the_blank_is_no_ink_in_a_field(name: str) -> None:
    corners, size = PAGES[name]
    cuts = cut_cells(form(), take_photo(blank(), corners, size, 255 if size == FLAT else 90)[0])
    for cut in cuts:
        assert isinstance(cut, Cut) and cut.printed is not None
        assert cut.printed.shape == cut.picture.shape
        assert not has_strokes(cut.picture, cut.printed)
        left, top, right, bottom = map(int, cut.box)
        dash = (left + (right - left) // 3, (top + bottom) // 2)
        struck = cv2.line(cut.picture.copy(), dash, (dash[0] + (right - left) // 3, dash[1]), 20, 3)
        assert has_strokes(struck, cut.printed)


def test_fields_beyond_the_edge_are_errors() -> None:
    page = fill(blank())[:650]
    cuts = cut_cells(form(), page)
    assert check_cuts(cuts, lambda points: points) == 4
    assert {str(cut) for cut in cuts[4:]} == {"not on the page"}


def letter() -> Grey:
    page = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for line in range(35):
        draw_words(page, 1000 + line, 50, 40 + 30 * line)
        draw_words(page, 2000 + line, 450, 40 + 30 * line)
    return page


FOREIGN: dict[str, Callable[[], Grey]] = {
    "blank page": lambda: np.full((HEIGHT, WIDTH), 255, np.uint8),
    "a letter": letter,
    "another form": lambda: fill(blank(7)),
    "tiny": lambda: np.full((3, 5), 200, np.uint8),
    "far too blurred": lambda: np.asarray(cv2.GaussianBlur(fill(blank()), (0, 0), 12)),
    "a mirrored form": lambda: np.ascontiguousarray(fill(blank())[:, ::-1]),
    "a corner of the form": lambda: fill(blank())[:90, :400],
}


def make_small(page: Grey) -> Grey:
    """The page as small as features are sought first: there is no second, larger look."""
    scale = min(1.0, LOOKS[0][0] / max(page.shape))
    return np.asarray(cv2.resize(page, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("name", FOREIGN)
def test_a_page_without_the_form_is_not_aligned(name: str) -> None:
    with pytest.raises(ImageError, match="page not aligned: "):
        cut_cells(form(), make_small(FOREIGN[name]()))


@pytest.mark.parametrize("shape", [(5000, 1), (1, 5000), (1, 800)])
def test_a_strip_of_a_page_is_not_aligned(shape: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="page not aligned"):
        cut_cells(make_form(draw_blank()), np.full(shape, 250, np.uint8))


def test_a_page_in_the_dark_is_not_taken_for_an_empty_one() -> None:
    noise = np.random.default_rng(0).normal(0, 1.5, (HEIGHT, WIDTH))
    page = (0.02 * fill(blank()) + noise).clip(0, 255).astype(np.uint8)
    with pytest.raises(ImageError, match="page not aligned: it is too dark"):
        cut_cells(form(), page)


def test_a_form_with_the_same_title_but_other_fields_is_not_aligned() -> None:
    page = fill(blank(7))
    page[:350] = fill(blank())[:350]
    page[350:] = np.roll(page[350:], 60, axis=0)
    with pytest.raises(ImageError, match="page not aligned: what is printed"):
        cut_cells(form(), make_small(page))


def test_two_forms_on_one_photo_are_not_aligned() -> None:
    page = np.hstack([fill(blank()), fill(blank(), 1)])
    with pytest.raises(ImageError, match="page not aligned: the form is on it twice"):
        cut_cells(form(), page)


def test_no_guess_chooses_one_of_two_forms() -> None:
    """The outline of either sheet is clear."""
    page = np.full((HEIGHT + 200, 2 * WIDTH + 300), 90, np.uint8)
    for at, left in enumerate((100, WIDTH + 200)):
        page[100 : 100 + HEIGHT, left : left + WIDTH] = fill(blank(), at)
    with pytest.raises(ImageError, match="page not aligned: the form is on it twice"):
        cut_cells(form(), page)


SHEET_BOXES: list[Box] = [
    (100.0 + 26 * column, 250.0 + 24 * row, 116.0 + 26 * column, 266.0 + 24 * row)
    for row, column in product(range(30), range(25))
]
MARKED = SHEET_BOXES[7::40]  # one in each row or so


def draw_sheet(down: int = 0, title: int = 3) -> Grey:
    """A sheet of equal bubbles, in which no feature is like one place only. Its bubbles are lower
    by `down` px."""
    page = np.full((HEIGHT, WIDTH), 255, np.uint8)
    draw_words(page, title, 240, 130)
    for x, y in product((60, WIDTH - 80), (60, HEIGHT - 80)):
        cv2.rectangle(page, (x, y), (x + 20, y + 20), 0, -1)
    for left, top, _, _ in SHEET_BOXES:
        cv2.circle(page, (int(left) + 8, int(top) + 8 + down), 8, 90, 1, cv2.LINE_AA)
    return page


@cache
def sheet_form() -> Form:
    fields = tuple(Field(f"q{at}", box, Known()) for at, box in enumerate(MARKED))
    return Form(encode_image(PIL.Image.fromarray(draw_sheet())), "page", fields, (), ())


def mark_sheet(page: Grey) -> Grey:
    for left, top, *_ in MARKED:
        cv2.circle(page, (int(left) + 8, int(top) + 8), 8, 30, -1)
    return page


@pytest.mark.parametrize("name", ["flat", "moved", "upside down", "clockwise"])
def test_a_sheet_of_equal_bubbles_is_laid_on_by_its_size(name: str) -> None:
    places: dict[str, Corners] = {
        "flat": WHOLE,
        "moved": [(x + 0.01 * y, y - 0.01 * x + 12) for x, y in WHOLE],
        "upside down": PAGES["upside down"][0],
        "clockwise": PAGES["clockwise"][0],
    }
    size = PAGES.get(name, (WHOLE, FLAT))[1]
    page, place = take_photo(mark_sheet(draw_sheet()), places[name], size, 255)
    assert check_cuts(cut_cells(sheet_form(), page), place, 0.2, MARKED) == len(MARKED)


def test_a_photo_of_a_sheet_of_equal_bubbles_is_laid_on_its_sheet() -> None:
    """The desk is dark, and a shadow lies on the sheet."""
    corners: Corners = [(200, 150), (960, 210), (900, 1330), (120, 1260)]
    photo, place = take_photo(mark_sheet(draw_sheet()), corners, (1100, 1450), 60)
    shaded = (photo * np.linspace(0.6, 1, photo.shape[1])).astype(np.uint8)
    assert check_cuts(cut_cells(sheet_form(), shaded), place, 0.25, MARKED) == len(MARKED)


@pytest.mark.parametrize("shift", [(0, -24), (0, 48), (52, 0)])
def test_a_sheet_that_is_off_by_rows_of_its_bubbles_is_not_read_as_if_it_were_not(
    shift: tuple[int, int],
) -> None:
    """All of the page is shifted: it is found there, or not at all."""
    corners = [(x + shift[0], y + shift[1]) for x, y in WHOLE]
    page, place = take_photo(mark_sheet(draw_sheet()), corners, FLAT, 255)
    try:
        cuts = cut_cells(sheet_form(), page)
    except ImageError as error:
        assert str(error).startswith("page not aligned: ")
    else:
        assert check_cuts(cuts, place, 0.2, MARKED) == len(MARKED)


def test_a_form_of_the_same_size_and_layout_is_another_form() -> None:
    with pytest.raises(ImageError, match="page not aligned: "):
        cut_cells(form(), fill(blank(8)))


def test_a_blank_with_nothing_printed_aligns_no_page() -> None:
    empty = np.full((HEIGHT, WIDTH), 255, np.uint8)
    with pytest.raises(ImageError, match="page not aligned: too little is printed"):
        cut_cells(make_form(empty), fill(blank()))


def test_the_same_page_gives_the_same_cuts() -> None:
    page, _, cuts = photo("askew")
    for one, other in zip(cuts, cut_cells(make_form(blank()), page), strict=True):
        assert isinstance(one, Cut) and isinstance(other, Cut)
        assert np.array_equal(one.picture, other.picture)
        assert np.array_equal(one.to_page, other.to_page)


def test_a_large_blank_may_be_reduced() -> None:
    """Its boxes stay those in px of its file."""
    large = cv2.resize(blank(), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    small = form()
    fields = [replace(one, box=enlarge(one.box)) for one in small.fields]
    (table,) = small.tables
    tables = (replace(table, box=enlarge(table.box)),)
    content = cv2.imencode(".jpg", large)[1].tobytes()
    scaled = replace(small, blank=content, fields=tuple(fields), tables=tables)
    cuts = cut_cells(scaled, fill(blank()))
    assert check_cuts(cuts, lambda points: points) == len(cell_boxes())


def enlarge(box: Box | None) -> Box:
    assert box
    left, top, right, bottom = (4 * side for side in box)
    return left, top, right, bottom


def ruled_form() -> Form:
    """A form without a blank: its table has six rows below its header."""
    table = Table("marks", None, 6, ("", "c1", "c2", "c3"), Known())
    return Form(None, "lines", (), (table,), ())


def ruled_page() -> Grey:
    """A page with a table of handwritten digits below words."""
    page = draw_blank()
    page[110:690] = 255
    for (left, top, _, bottom), number in zip(cell_boxes()[4:], range(23, 95, 4), strict=True):
        place = int(left + 30), int(bottom - 8)
        cv2.putText(page, f"{number}", place, FONT, (bottom - top) / 35, 40, 2, cv2.LINE_AA)
    return page


@pytest.mark.parametrize("name", ["upside down", "clockwise", "askew"])
def test_a_table_is_found_by_its_lines(name: str) -> None:
    corners, size = PAGES[name]
    page, place = take_photo(ruled_page(), corners, size, 255 if size == FLAT else 90)
    # A blank that only says how many rows there are need not be like the page
    white = encode_image(PIL.Image.new("L", FLAT, 255)) if name == "askew" else None
    form = replace(ruled_form(), blank=white)
    assert check_cuts(cut_cells(form, page), place, 0.15, cell_boxes()[4:]) == 18


def test_bent_lines_with_gaps_are_followed() -> None:
    page = ruled_page()
    rng = np.random.default_rng(1)
    for left, top in zip(rng.integers(100, 720, 40), rng.choice(ROWS[1:], 40), strict=True):
        page[top - 2 : top + 3, left : left + 12] = 255
    page[ROWS[3] - 2 : ROWS[3] + 3, COLUMNS[1] + 3 : COLUMNS[3] - 3] = 255
    bent, place = bend(page)
    assert check_cuts(cut_cells(ruled_form(), bent), place, 0.15, cell_boxes()[4:]) == 18


def test_a_table_with_other_rows_or_columns_is_not_aligned() -> None:
    (table,) = ruled_form().tables
    for other, said in (
        (replace(table, rows=9), "its table has 7 rows, the form 9"),
        (replace(table, columns=("", "c1", "c2")), "its table has 4 columns, the form 3"),
    ):
        with pytest.raises(ImageError, match=said):
            cut_cells(replace(ruled_form(), tables=(other,)), ruled_page())


def erase_rows(page: Grey, rows: tuple[int, ...]) -> Grey:
    """The page without these lines; those between columns stay."""
    for row, (left, right) in product(rows, pairwise(COLUMNS)):
        page[row - 2 : row + 3, left + 3 : right - 2] = 255
    return page


@pytest.mark.parametrize("name", ["flat", "upside down"])
def test_words_and_digits_are_no_lines_of_a_table(name: str) -> None:
    page = erase_rows(ruled_page(), ROWS[2:-1])
    for number, row in enumerate(ROWS[2:]):
        draw_words(page[:, : COLUMNS[1] - 4], number, COLUMNS[0] + 8, row - 12)
    photo, _ = take_photo(page, *PAGES.get(name, (WHOLE, FLAT)))
    with pytest.raises(ImageError, match="its table has . rows, the form 6"):
        cut_cells(ruled_form(), photo)


def test_a_row_that_may_be_two_is_not_cut() -> None:
    page = ruled_page()
    cv2.line(page, (COLUMNS[0], 720), (COLUMNS[-1], 720), 0, 2)  # eight lines are seen again
    (table,) = ruled_form().tables
    form = replace(ruled_form(), tables=(replace(table, head=1),))
    with pytest.raises(ImageError, match="a line between rows of its table may be missing"):
        cut_cells(form, erase_rows(page, ROWS[4:5]))


@pytest.mark.parametrize("turns", [0, 2])
def test_the_clearest_digits_say_which_way_up_a_table_is(turns: int) -> None:
    page = draw_blank()
    page[110:690] = 255
    for (left, top, _, bottom), number in zip(
        cell_boxes()[4:], ["80", "69", "88", "4", "96", "7"] * 3, strict=True
    ):
        place = int(left + 30), int(bottom - 8)
        cv2.putText(page, number, place, FONT, (bottom - top) / 35, 40, 2, cv2.LINE_AA)
    cuts = cut_cells(ruled_form(), np.ascontiguousarray(np.rot90(page, turns)))
    first, *_, last = (one.to_page[:2, 2] for one in cuts if isinstance(one, Cut))
    assert (first < last).all() == (turns == 0)


def test_a_page_with_lines_of_one_direction_has_no_table() -> None:
    page = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for x in range(100, 800, 80):
        cv2.line(page, (x, 200), (x, 900), 0, 2)
    with pytest.raises(ImageError, match="no ruled table is found"):
        cut_cells(ruled_form(), page)


@pytest.mark.parametrize("name", ["blank page", "a letter", "tiny"])
def test_a_page_without_a_table_is_not_aligned(name: str) -> None:
    with pytest.raises(ImageError, match="page not aligned: "):
        cut_cells(ruled_form(), FOREIGN[name]())


def test_a_field_is_shown_within_its_surroundings() -> None:
    page = fill(draw_blank())
    content = encode_image(PIL.Image.fromarray(np.ascontiguousarray(np.rot90(page, 2))))
    ids = ["marks/2/c3", "other", "total"]
    cell, missing, total = show_cells(form(), content, ids, Watch())
    assert missing is None
    for strip, box in ((cell, cell_boxes()[9]), (total, BOXES["total"])):
        assert strip
        shown = cv2.imdecode(np.frombuffer(strip["picture"], np.uint8), 0)
        left, top, right, bottom = strip["box"]
        scale = (right - left) / (box[2] - box[0])
        beside, above = left / scale, top / scale
        whole = page[
            round(box[1] - above) : round(box[3] + above),
            round(box[0] - beside) : round(box[2] + beside),
        ]
        expected = cv2.resize(whole, shown.shape[::-1], interpolation=cv2.INTER_AREA)
        soft = [cv2.GaussianBlur(one, (0, 0), 2).ravel() for one in (shown, expected)]
        assert np.corrcoef(*soft)[0, 1] > 0.8 and shown.shape[1] >= 2 * shown.shape[0]
    assert show_cells(form(), b"", ids, Watch()) == [None] * 3
