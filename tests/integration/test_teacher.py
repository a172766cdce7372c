"""A teacher's whole way: sheets are printed, filled in by a class, and become a table."""

import csv
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from digitq.answer_sheets import NUMBER_LEFT, NUMBER_STEP, NUMBER_TOP, REDUCED, AnswerSheet, scale
from tests.inspecting import run_here
from training.synthetic.handwriting import draw_digit
from training.synthetic.mark_sheets import (
    FINENESS,
    SHEET_SIZE,
    Kind,
    Pen,
    Question,
    Random,
    draw_mark,
    mark_question,
    photograph,
    shrink,
)

# How each person of a class marks; two of twenty draw circles around the bubbles
HABITS: tuple[Kind, ...] = ("fill", "cross", "tick", "scribble", "fill", "cross", "tick") * 3
CIRCLES = (7, 15)
DOUBTFUL = 0.05  # the share of erasures, of two marks, of faint, half filled and crossed-out ones


def fill_in_sheet(
    blank: Path, number: str, at: int, rng: Random
) -> tuple[np.ndarray, list[Question]]:
    """The sheet of a person, and what is right of it; None where a person must look."""
    sheet, ink = (
        AnswerSheet(40, "ABCDE", 5),
        Image.new("L", [side * FINENESS for side in SHEET_SIZE]),
    )
    habit: Kind = "circle" if at in CIRCLES else HABITS[at]
    grey, width = [(40, 2.2), (75, 2.6), (25, 4.0), (105, 3.0)][at % 4]
    pen, questions = Pen(grey, width, habit), list[Question]()
    for name, options, rows in (("n", "0123456789", sheet.grid), ("q", "ABCDE", sheet.bubbles)):
        for place, row in enumerate(rows):
            one = Question(f"{name}{place + 1}", tuple(options), [tuple(scale(box)) for box in row])
            questions.append(one)
            if name == "q":
                mark_question(ink, one, pen, rng, DOUBTFUL, 0)
                continue
            one.truth, one.kind = number[place], habit
            draw_mark(ink, one.boxes[int(number[place])], habit, pen, rng)
    dark = np.array(shrink(ink))
    for place, digit in enumerate(number):
        side = int(rng.integers(44, 60))
        shape = cv2.resize(draw_digit(int(digit), rng), (side, side), interpolation=cv2.INTER_AREA)
        top, left = NUMBER_TOP // REDUCED + 5, (NUMBER_LEFT + place * NUMBER_STEP) // REDUCED + 2
        part = dark[top : top + side, left : left + side]
        part[:] = np.maximum(part, shape.astype(np.float32) * (255 - grey) / 255)
    questions.append(Question("number", (), [], truth=number, kind="fill"))
    page = np.asarray(Image.open(blank).convert("L")) * (1 - dark / 255.0)
    picture = Image.fromarray(page.round().astype(np.uint8))
    return photograph(picture, rng) if at % 2 else np.asarray(picture), questions


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return [*csv.DictReader(file)]


@pytest.mark.slow
def test_from_a_printed_sheet_to_the_table_of_a_class(tmp_path: Path) -> None:
    """Without a look into the form's file."""
    pdf, pages, rng = tmp_path / "sheet.pdf", tmp_path / "pages", np.random.default_rng(70)
    pages.mkdir()
    options = ["--questions", "40", "--options", "A-E", "--number", "5"]
    assert run_here("form", "sheet", *options, "-o", pdf).exit_code == 0
    right = dict[str, Question]()
    for at in range(20):
        number = f"{rng.integers(100_000):05}"
        page, questions = fill_in_sheet(tmp_path / "sheet.png", number, at, rng)
        name = f"{at}.{'jpg' if at % 2 else 'png'}"
        cv2.imwrite(str(pages / name), page)
        right |= {f"{name}/{one.id}": one for one in questions}
    out = tmp_path / "answers.csv"
    done = run_here("classify", pages, "--form", pdf.with_suffix(".toml"), "-o", out, "--wide")
    assert done.exit_code == 0, done.output
    rows = {row["id"]: row for row in read_csv(out)}
    assert rows.keys() == right.keys() and len(rows) == 920
    wrong = {
        id: (one.kind, one.truth, rows[id]["number"])
        for id, one in right.items()
        if rows[id]["review"] == "false" and rows[id]["number"] != one.truth
    }
    marked = Counter(right[id].kind for id, row in rows.items() if row["review"] == "true")
    assert not wrong
    assert marked.total() <= 150, marked
    table = read_csv(tmp_path / "answers-wide.csv")
    assert len(table) == 20 and table[0].keys() >= {"number", "n5", "q40"}
