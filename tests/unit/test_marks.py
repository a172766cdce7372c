"""Ticks and bubbles: which are found on a blank, and what is read of their marks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import ImageDraw

from benchmarks.marks import make_form, read_sheet
from digitq.protocol.asked.form import Choice, Form, Table
from digitq.protocol.asked.known import TICK, Known
from digitq.worker.picture import ImageError
from digitq.worker.sight.forms.bubbles import Bubble, place_bubbles
from digitq.worker.sight.forms.marks import Look, MarkReadings
from digitq.worker.sight.forms.proposal import list_proposed
from tests.forms import FONT
from training.synthetic.mark_sheets import (
    CLEAR_KINDS,
    LAYOUTS,
    Box,
    fill_in,
    photograph,
)

NOTHING = Look(0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("layout", "is_photo"), [("letters", False), *((layout, True) for layout in LAYOUTS)]
)
def test_marks_are_read(layout: str, is_photo: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng([20, [*LAYOUTS].index(layout)])
    sheet = LAYOUTS[layout](rng)
    form = make_form(sheet, tmp_path)
    page = fill_in(sheet, rng, doubtful=0.4)
    answers = read_sheet(form, photograph(page, rng) if is_photo else np.asarray(page))
    clear = [one for one in sheet.questions if one.kind in ("", *CLEAR_KINDS)]
    assert clear and len(answers) == len(sheet.questions)
    assert all(answers[one.id][0] == one.truth for one in clear)
    assert sum(not answers[one.id][1] for one in clear) >= len(clear) - 1
    for one in sheet.questions:
        answer, reason = answers[one.id]
        assert reason or answer == one.truth, (one.kind, one.truth, answer)


def test_a_table_by_its_lines_has_marks_and_numbers(tmp_path: Path) -> None:
    """Without a blank, a cell must be empty but for the mark."""
    columns, rows = (60, 300, 400, 520), range(80, 381, 50)
    page = np.full((460, 600), 235, np.uint8)
    for x in columns:
        cv2.line(page, (x, rows[0]), (x, rows[-1]), 60, 2)
    for y in rows:
        cv2.line(page, (columns[0], y), (columns[-1], y), 60, 2)
    for row, y in enumerate(rows[:-1]):
        cv2.putText(page, str(31 + row), (425, y + 37), FONT, 1, 40, 2, cv2.LINE_AA)
        if row % 2:
            tick = np.array([(330, y + 25), (343, y + 38), (372, y + 8)])
            cv2.polylines(page, [tick], False, 70, 3, cv2.LINE_AA)
    known = Known.check(length=2)
    own = (("here", Known(options=TICK)),)
    table = Table("list", None, 6, ("", "here", "points"), known, 6, 0, True, own)
    form = Form(None, "lines", (), (table,), ())
    for turned in (page, np.rot90(page, 2), np.rot90(page)):
        answers = read_sheet(form, np.ascontiguousarray(turned))
        assert [answers[f"list/{row}/here"] for row in range(1, 7)] == [("", ""), ("1", "")] * 3
        points = [answers[f"list/{row}/points"][0] for row in range(1, 7)]
        assert points == [*map(str, range(31, 37))]


def test_bubbles_that_are_not_there_refuse_all_of_their_block(tmp_path: Path) -> None:
    """Bubbles are alike: the others may be those of the row below."""
    rng = np.random.default_rng(20)
    sheet = LAYOUTS["letters"](rng)
    page = np.array(fill_in(sheet, rng))
    top = int(sheet.questions[-1].boxes[0][1])
    page[top - 5 : top + 45] = 255
    answers = read_sheet(make_form(sheet, tmp_path), page)
    assert {answer for answer, _ in answers.values()} == {None}
    assert "its bubbles are not where the blank has them" in answers["q1"][1]


def test_an_unanswered_question_is_marked_if_it_must_be_answered() -> None:
    marks = MarkReadings(Known(options=("A", "B")), [NOTHING, NOTHING], True)
    assert marks.choose("", 0.99, [], np.eye(3)).reason == "empty"
    optional = MarkReadings(Known(options=("A", "B")), [NOTHING, NOTHING], False)
    assert optional.choose("", 0.99, [], np.eye(3)).reason == ""
    assert optional.calibrated[0].number == "" and optional.calibrated[0].chance > 0.99


def test_bubbles_count_where_they_are_printed() -> None:
    """A box that is drawn loosely around them has no effect."""
    choice = Choice(("q1", "q2"), Known(options=tuple("ABC")), (90, 95, 345, 190))
    printed = [Bubble(x, y, x + 20, y + 20) for y in (100, 160) for x in (100, 200, 300)]
    letter = Bubble(330, 170, 340, 180)
    boxes = place_bubbles(choice, [*printed, letter])
    assert boxes[1] == [(x, 160, x + 20, 180) for x in (100, 200, 300)]
    with pytest.raises(ImageError, match="q1: 3 bubbles side by side and 2 below each other, not"):
        place_bubbles(replace(choice, known=Known(options=tuple("ABCD"))), printed)
    down = Choice(("q1", "q2", "q3"), Known(options=tuple("AB")), choice.box, is_across=False)
    assert place_bubbles(down, printed)[2] == [(300, y, 320, y + 20) for y in (100, 160)]
    even = place_bubbles(choice, [])
    assert even[0][0][:2] == (90, 95) and even[1][2][2:] == pytest.approx((345, 190))


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [
        ("letters", [{"options": [*"ABCDE"], "rows": 8}]),
        ("digits", [{"options": [*"0123456789"], "columns": 4}]),
        ("ticks", [{"kind": "mark"}] * 40),
        ("boxes", [{"options": [*"ABCD"], "rows": 10}]),
    ],
)
def test_bubbles_are_proposed(layout: str, wanted: list[dict[str, object]], tmp_path: Path) -> None:
    sheet = LAYOUTS[layout](np.random.default_rng(8))
    sheet.blank.save(tmp_path / "blank.png")
    parts = [keys for *_, keys in list_proposed(tmp_path / "blank.png")]
    assert [{key: part[key] for key in part if key != "box"} for part in parts] == wanted
    boxes = np.array([box for one in sheet.questions for box in one.boxes])
    around = [*boxes[:, :2].min(0), *boxes[:, 2:].max(0)]
    assert np.array([part["box"] for part in parts])[:, :2].min(0) == pytest.approx(
        around[:2], abs=3
    )
    assert np.array([part["box"] for part in parts])[:, 2:].max(0) == pytest.approx(
        around[2:], abs=3
    )


def test_either_of_two_marks_may_be_the_answer() -> None:
    full, other = Look(0.9, 0.95, 0.9, 0.8, 0), Look(0.6, 0.8, 0.6, 0.5, 0)
    both = MarkReadings(Known(options=tuple("ABC")), [full, NOTHING, other], False)
    first, second, *_ = both.calibrated
    assert {first.number, second.number} == {"A", "C"} and second.chance > 0.4
    all_six = MarkReadings(Known(options=tuple("ABCDEF")), [full] * 6, False)
    assert all_six.calibrated[0].chance < 0.2
    assert all_six.choose("A", 0.2, [], np.eye(3)).reason == "two marks"
    several = MarkReadings(Known(options=tuple("ABC"), many=True), both.looks, False)
    assert several.calibrated[0].number == "A,C" and several.calibrated[0].chance > 0.98
    assert several.choose("A,C", 0.99, [], np.eye(3)).reason == ""


def read_drawn(tmp_path: Path, draw: Callable[[ImageDraw.ImageDraw, Box], None]) -> dict[str, Any]:
    """What is read of questions below each other if something is drawn at box B of the second."""
    sheet = LAYOUTS["letters"](np.random.default_rng(20))
    page = sheet.blank.copy()
    draw(ImageDraw.Draw(page), sheet.questions[1].boxes[1])
    return read_sheet(make_form(sheet, tmp_path), np.asarray(page))


@pytest.mark.parametrize(
    ("strokes", "answer", "reason"),
    [
        ([], "", ""),
        ([(-0.6, 0.4), (-0.4, 0.7), (-0.15, 0.3)], "B", "beside the box"),
        ([(0.3, 1.2), (0.5, 1.4), (0.8, 1.1)], "B", "beside the box"),
        ([(0.3, 0.4), (0.5, 0.7), (1.0, -0.6)], "B", ""),
        ([(0.1, 0.2), (0.9, 0.8), (2.6, 0.3)], "B", "two marks"),
    ],
    ids=["clean page", "left of the box", "below the box", "tick", "tick over two boxes"],
)
def test_ink_beside_a_box_is_a_mark(
    strokes: list[tuple[float, float]], answer: str, reason: str, tmp_path: Path
) -> None:
    def draw(page: ImageDraw.ImageDraw, box: Box) -> None:
        side = box[2] - box[0]
        page.line([(box[0] + x * side, box[1] + y * side) for x, y in strokes], 40, 3)

    answers = read_drawn(tmp_path, draw)
    assert answers.pop("q2") == (answer, reason)
    assert {*answers.values()} == {("", "")}  # the ink is of its own row only


def test_what_is_crossed_out_is_not_proposed_beside_another_mark(tmp_path: Path) -> None:
    def draw(page: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        page.ellipse(box, 30)
        page.line((left - 8, top - 8, right + 8, bottom + 8), 30, 4)
        page.line((left - 8, bottom + 8, right + 8, top - 8), 30, 4)
        side = right - left
        other = LAYOUTS["letters"](np.random.default_rng(20)).questions[1].boxes[0]
        page.line((other[0] + side / 4, other[1] + side / 2, other[2] - 4, other[3] - 4), 40, 4)

    answers = read_drawn(tmp_path, draw)
    assert answers.pop("q2") == ("A", "crossed out?")
    assert {*answers.values()} == {("", "")}


def test_a_circled_box_is_marked(tmp_path: Path) -> None:
    def circle(page: ImageDraw.ImageDraw, box: Box) -> None:
        page.ellipse((box[0] - 7, box[1] - 7, box[2] + 7, box[3] + 7), outline=50, width=2)

    answers = read_drawn(tmp_path, circle)
    assert answers.pop("q2") == ("B", "")
    assert {*answers.values()} == {("", "")}


def test_an_arc_that_touches_a_circle_is_of_its_own_box(tmp_path: Path) -> None:
    sheet = LAYOUTS["letters"](np.random.default_rng(20))
    page, (left, top, right, bottom) = sheet.blank.copy(), sheet.questions[1].boxes[1]
    below = sheet.questions[2].boxes[1]
    draw, gap = ImageDraw.Draw(page), (below[1] - bottom) / 2
    draw.ellipse((left - 7, below[1] - gap, right + 7, below[3] + gap), outline=50, width=2)
    arc = (left - 7, top - gap + 8, right + 7, bottom + gap - 8)
    draw.arc(arc, 95, 230, 50, 2)
    answers = read_sheet(make_form(sheet, tmp_path), np.asarray(page))
    assert answers.pop("q2") == ("B", "beside the box")
    assert answers.pop("q3") == ("B", "")
    assert {*answers.values()} == {("", "")}


def test_a_circled_label_is_the_mark_of_its_box(tmp_path: Path) -> None:
    sheet = LAYOUTS["boxes"](np.random.default_rng(20))
    page = sheet.blank.copy()
    right, top = sheet.questions[3].boxes[2][2], sheet.questions[3].boxes[2][1]
    ImageDraw.Draw(page).ellipse((right + 3, top - 6, right + 28, top + 30), outline=50, width=2)
    answers = read_sheet(make_form(sheet, tmp_path), np.asarray(page))
    assert answers.pop("m4") == ("c", "beside the box")
    assert {*answers.values()} == {("", "")}


def test_a_stroke_through_a_label_into_the_next_box_is_not_silent(tmp_path: Path) -> None:
    sheet = LAYOUTS["boxes"](np.random.default_rng(20))
    page = sheet.blank.copy()
    (left, top, _, bottom), (_, _, right, _) = sheet.questions[3].boxes[1:3]
    middle = (top + bottom) / 2
    ImageDraw.Draw(page).line([(left - 5, middle), (right + 5, middle)], 40, 3)
    answers = read_sheet(make_form(sheet, tmp_path), np.asarray(page))
    assert answers.pop("m4") == ("b,c", "two marks")
    assert {*answers.values()} == {("", "")}


def test_ink_of_a_question_is_not_beside_the_next_one(tmp_path: Path) -> None:
    """The end of a long tick is nearer to the box of the row above."""

    def draw(page: ImageDraw.ImageDraw, box: Box) -> None:
        side = box[2] - box[0]
        up = [(0.2, 0.4), (0.5, 0.8), (1.4, -1.0)]
        page.line([(box[0] + x * side, box[1] + y * side) for x, y in up], 40, 3)

    answers = read_drawn(tmp_path, draw)
    assert answers.pop("q2") == ("B", "")
    assert {*answers.values()} == {("", "")}
