"""Which fields and tables the ruled boxes of a blank are."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from digitq.protocol.asked.form import read_form
from digitq.worker.picture import Grey
from digitq.worker.sight.forms.new_form import drop_overlapping, find_faults, write_proposal
from digitq.worker.sight.forms.proposal import (
    RuledBox,
    count_rows,
    find_boxes,
    list_proposed,
    propose,
)
from digitq.worker.sight.forms.questions import propose_marks
from tests.forms import FONT

EXAMPLE = Path(__file__).parents[2] / "examples" / "forms"


def row(top: int, boxes: str, width: int = 40, left: int = 100) -> list[RuledBox]:
    """Adjoining boxes, where `_` is an empty one, and `x` one with print."""
    return [
        RuledBox(left + at * width, top, left + at * width + width - 4, top + 36, box == "_")
        for at, box in enumerate(boxes)
    ]


def test_a_row_of_boxes_is_one_field() -> None:
    boxes = row(100, "x___") + row(300, "_" * 25) + row(500, "_") + row(500, "_", 90, 140)
    fields = [*propose(boxes)]
    assert [field.get("length") for field in fields] == ["1-3", None, None]
    assert fields[0]["box"] == [137, 97, 259, 139]


def test_equal_rows_are_a_table_without_its_printed_head_and_columns() -> None:
    boxes = row(100, "xxxx") + row(140, "x_x_") + row(180, "x___") + row(220, "xxx_")
    (table,) = propose(boxes + row(400, "xxx", 80) + row(440, "xxx", 80))
    assert (table["rows"], table["columns"]) == (3, ["", "c1", "", "c2"])
    assert table["box"] == [97, 137, 259, 259]


def test_one_row_with_a_head_is_a_table() -> None:
    """As the points of each question are on a paper; without a head, they are fields."""
    (table,) = propose(row(100, "xxxx", 60) + row(140, "____", 60))
    assert (table["rows"], table["columns"]) == (1, ["c1", "c2", "c3", "c4"])
    assert len([*propose(row(140, "____", 60))]) == 4


@pytest.mark.parametrize("boxes", ["___", "xxx", "x_x"])
def test_rows_of_digit_boxes_below_each_other_are_fields(boxes: str) -> None:
    fields = [*propose(row(100, boxes) + row(140, boxes) + row(180, boxes))]
    assert [field.get("length") for field in fields] == ["1-3"] * 3
    (table,) = propose(row(100, "___", 80) + row(140, "___", 80))
    assert table["rows"] == 2


@pytest.mark.parametrize("kind", ["plain", "faint", "broken", "guides", "round"])
def test_boxes_are_found(kind: str) -> None:
    """Three boxes for digits, on a page whose longer side is 1400 px."""
    page = np.full((1400, 1000), 255, np.uint8)
    grey = 215 if kind == "faint" else 0
    for left in (400, 444, 488):
        if kind == "round":
            circle = np.array(cv2.ellipse2Poly((0, 0), (28, 28), 0, 0, 360, 5))
            cv2.polylines(page, [circle.clip(-22, 22) + (left + 22, 322)], True, grey, 1)
        else:
            cv2.rectangle(page, (left, 300), (left + 44, 344), grey, 1)
        if kind == "guides":
            for top in (310, 322):
                cv2.rectangle(page, (left + 11, top), (left + 33, top + 12), 150, 1)
        if kind == "broken":
            page[298:347, left + 16 : left + 20] = page[316:320, left - 2 : left + 47] = 255
    (field,) = propose(find_boxes(page))
    assert field["length"] == "1-3"
    assert field["box"] == pytest.approx([400, 300, 532, 344], abs=3)


def test_rows_of_square_cells_are_counted(tmp_path: Path) -> None:
    page = np.full((1400, 1000), 255, np.uint8)
    for top in range(300, 500, 50):
        for left in range(100, 350, 50):
            cv2.rectangle(page, (left, top), (left + 50, top + 50), 0, 2)
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), page)
    assert count_rows("marks", blank, (100, 300, 350, 500), 5) == 4


@pytest.mark.parametrize("has_lines", [True, False])
def test_faint_lines_are_found_where_nothing_else_is(has_lines: bool, tmp_path: Path) -> None:
    page = np.random.default_rng(1).normal(250, 2, (1400, 1000))
    for x in (300, 450, 600) if has_lines else ():
        page[400:900, x : x + 2] -= 4
    for y in range(400, 901, 50) if has_lines else ():
        page[y : y + 2, 300:602] -= 4
    image = page.clip(0, 255).astype(np.uint8)
    for line in range(8):  # words are no lines
        cv2.putText(image, "what the form asks", (100, 60 + 34 * line), FONT, 1, 40, 2)
    cv2.imwrite(str(tmp_path / "blank.png"), image)
    parts = list_proposed(tmp_path / "blank.png")
    assert [kind for kind, *_ in parts] == ["table"] * has_lines
    assert all(part["rows"] == 10 and len(part["columns"]) == 2 for *_, part in parts)


def test_the_form_of_the_example_is_proposed(tmp_path: Path) -> None:
    write_proposal(EXAMPLE / "blank.png", tmp_path / "form.toml")
    proposed, form = read_form(tmp_path / "form.toml"), read_form(EXAMPLE / "form.toml")
    for new, old in zip(
        (*proposed.fields, *proposed.tables), (*form.fields, *form.tables), strict=True
    ):
        assert new.box == pytest.approx(old.box, abs=2)
    assert proposed.tables[0].rows == form.tables[0].rows
    assert [*map(bool, proposed.tables[0].columns)] == [*map(bool, form.tables[0].columns)]


def test_a_part_that_overlaps_a_choice_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    field, choice = (
        ("field", "field1", {"box": [0, 0, 50, 50]}),
        ("choice", "choice1", {"box": [40, 0, 90, 50]}),
    )
    assert drop_overlapping([field, choice]) == [choice]
    assert "left out: field1: it overlaps choice1" in capfd.readouterr().err


def draw_questions(rows: int, drift: float, side: int, step: int) -> Grey:
    """A page with rows of five boxes or bubbles, each row farther to the left by the drift."""
    page = np.full((1400, 1080), 255, np.uint8)
    for row, column in np.ndindex(rows, 5):
        left, top = round(120 - drift * row) + step * column, 200 + max(step, 70) * row
        if side > 20:
            cv2.rectangle(page, (left, top), (left + side, top + side), 0, 1)
        else:
            cv2.circle(page, (left, top), side // 2, 0, 1)
    return page


def test_a_block_of_questions_that_is_askew_is_one() -> None:
    (part,) = propose_marks(draw_questions(15, 0.3, 16, 30))
    assert (part["rows"], part["options"]) == (15, [*"ABCDE"])


def test_large_boxes_far_apart_in_a_grid_are_to_tick() -> None:
    (part,) = propose_marks(draw_questions(5, 0, 36, 150))
    assert (part["rows"], part["options"]) == (5, [*"ABCDE"])
    assert not [*propose_marks(draw_questions(1, 0, 36, 150))]  # they may be for digits


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ('[choices.q]\noptions = ["A", "B"]\nrows = 4', "5 bubbles side by side and 5 below"),
        ('[choices.q]\noptions = ["A", "A"]', "there must be a name, and none twice"),
        ("[fields.q]\nbox = [0, 0, 2000, 40]", "it is outside of the blank"),
    ],
)
def test_a_part_that_is_not_read_from_its_blank_is_told(
    part: str, fault: str, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "blank.png"), draw_questions(5, 0, 36, 150))
    draft = tmp_path / "form.toml"
    if "choices" in part:
        part += "\nbox = [100, 180, 800, 860]"
    draft.write_text(f'blank = "blank.png"\n[fields.a]\nbox = [100, 1000, 300, 1050]\n{part}\n')
    ((key, reason),) = find_faults(draft).items()
    assert key == part[1 : part.index("]")]
    assert fault in reason
