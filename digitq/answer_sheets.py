"""Draws answer sheets to print, and the form's file that reads them."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from digitq.producer.sinks.sink import replacing
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find, find_column, open_rows
from digitq.protocol.host.folders import check_folder
from digitq.protocol.host.fonts import lacks_letters, load_font

PRINT_SIZE = (2480, 3508)  # px: A4 at 300 dpi
PRINT_DPI = 300
REDUCED = 2  # the blank of the form's file has half of that
BUBBLE_SIDE = 54  # px
ACROSS, DOWN = 104, 96  # px between the middles of bubbles of a question, and between questions
NUMBER_TOP, NUMBER_LEFT, NUMBER_STEP = 330, 260, 118  # px: boxes of the written number
GRID_TOP, GRID_DOWN = 520, 82  # px: bubbles below the number
QUESTIONS_LEFT, QUESTIONS_TOP, QUESTIONS_RIGHT, QUESTIONS_BOTTOM = 200, 1420, 2290, 3340  # px
NAME_LEFT, NAME_RIGHT, NAME_LINE = 1340, 2260, 520  # px: the line for a name
NAME_SIZE = 60  # px; a longer name is written smaller
CORNER_MARK_SIDE, CORNER_MARGIN = 60, 90  # px of a mark in a corner of the sheet, and outside of it
LABEL, GUTTER = 120, 80  # px left of a question's bubbles, and right of them
Sides = tuple[int, int, int, int]


class AnswerSheet:
    """Where the bubbles of a sheet are. Raises `UsageError` if they don't fit on it."""

    def __init__(self, questions: int, options: Sequence[str], digits: int) -> None:
        self.options, self.digits = options, digits
        wide = LABEL + len(options) * ACROSS + GUTTER
        rows = (QUESTIONS_BOTTOM - QUESTIONS_TOP) // DOWN
        fit = (QUESTIONS_RIGHT - QUESTIONS_LEFT + GUTTER) // wide * rows
        if questions > fit:
            raise UsageError(
                f"at most {fit} questions with {len(options)} options fit on a sheet: "
                f"{questions} don't"
            )
        self.bubbles = [
            spread_across(
                QUESTIONS_LEFT + LABEL + at // rows * wide,
                QUESTIONS_TOP + at % rows * DOWN,
                len(options),
            )
            for at in range(questions)
        ]
        middle = (NUMBER_STEP - BUBBLE_SIDE) // 2
        self.grid = [
            [
                place_bubble(NUMBER_LEFT + at * NUMBER_STEP + middle, GRID_TOP + digit * GRID_DOWN)
                for digit in range(10)
            ]
            for at in range(digits)
        ]

    def draw(self, number: str = "", name: str = "") -> Image.Image:
        """One page, for the person with this number, or an empty one."""
        page = Image.new("L", PRINT_SIZE, 255)
        draw = ImageDraw.Draw(page)
        across, down = (
            (CORNER_MARGIN, side - CORNER_MARGIN - CORNER_MARK_SIDE) for side in PRINT_SIZE
        )
        for x, y in product(across, down):
            draw.rectangle((x, y, x + CORNER_MARK_SIDE, y + CORNER_MARK_SIDE), 0)
        draw.text((NUMBER_LEFT, 180), "Answer sheet", 0, ImageFont.load_default(80))
        draw.text((NAME_LEFT, NAME_LINE - 170), "Name", 0, ImageFont.load_default(50))
        draw.line((NAME_LEFT, NAME_LINE, NAME_RIGHT, NAME_LINE), 0, 4)
        wide = max(1.0, draw.textlength(name, load_font(NAME_SIZE)))
        font = load_font(int(NAME_SIZE * min(1.0, (NAME_RIGHT - NAME_LEFT) / wide)))
        draw.text((NAME_LEFT, NAME_LINE - 20), name, 0, font, "ls")
        for at, column in enumerate(self.grid):
            left = NUMBER_LEFT + at * NUMBER_STEP
            draw.rectangle((left, NUMBER_TOP, left + NUMBER_STEP, NUMBER_TOP + 140), None, 0, 4)
            draw_bubbles(draw, column, "0123456789", number[at : at + 1])
            middle = left + NUMBER_STEP / 2, NUMBER_TOP + 70
            draw.text(middle, number[at : at + 1], 0, ImageFont.load_default(90), "mm")
        for at, row in enumerate(self.bubbles, 1):
            place = row[0][0] - 30, row[0][1] + BUBBLE_SIDE / 2
            draw.text(place, str(at), 0, ImageFont.load_default(44), "rm")
            draw_bubbles(draw, row, self.options)
        return page

    def describe(self, blank: str, people: str) -> str:
        """The form's file. `people` are the keys of a list of them, or nothing."""
        boxes = [scale(surround(row)) for row in self.bubbles]
        grid = scale(surround([box for column in self.grid for box in column]))
        right = NUMBER_LEFT + self.digits * NUMBER_STEP
        names = ", ".join(f"n{at + 1}" for at in range(self.digits))
        return f"""blank = {json.dumps(blank, ensure_ascii=False)}

[fields.number]
box = {scale((NUMBER_LEFT, NUMBER_TOP, right, NUMBER_TOP + 140))}
length = {self.digits}
{people}
[choices.n]
options = {json.dumps([*"0123456789"])}
box = {grid}
columns = {self.digits}

[choices.q]
options = {json.dumps([*self.options])}
boxes = {boxes}
rows = 1

[[checks]]
rule = "number == digits({names})"
"""


def scale(sides: Iterable[int]) -> list[int]:
    """In px of the blank."""
    return [side // REDUCED for side in sides]


def place_bubble(left: int, top: int) -> Sides:
    return left, top, left + BUBBLE_SIDE, top + BUBBLE_SIDE


def spread_across(left: int, top: int, count: int) -> list[Sides]:
    return [place_bubble(left + at * ACROSS, top) for at in range(count)]


def surround(boxes: Sequence[Sides]) -> Sides:
    """The box around these, and a little more."""
    left, top, *_ = boxes[0]
    *_, right, bottom = boxes[-1]
    return left - 8, top - 8, right + 8, bottom + 8


def draw_bubbles(
    draw: ImageDraw.ImageDraw, boxes: Sequence[Sides], texts: Sequence[str], filled: str = ""
) -> None:
    for box, text in zip(boxes, texts, strict=True):
        draw.ellipse(box, 0 if text == filled else None, 0, 4)
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        draw.text(middle, text, 90, ImageFont.load_default(30), "mm")


def read_options(text: str) -> list[str]:
    """The letters or digits that `A-E` or `1-4` says. Raises `UsageError`."""
    is_range = re.fullmatch("[A-Z]-[A-Z]|[a-z]-[a-z]|[0-9]-[0-9]", text)
    letters = [chr(code) for code in range(ord(text[0]), ord(text[2]) + 1)] if is_range else []
    if not 2 <= len(letters) <= 10:
        raise UsageError(f"--options are 2 to 10 letters, such as A-E, not {text!r}")
    return letters


def read_people(path: Path, digits: int) -> list[tuple[str, str]]:
    """The numbers and names of a list. Raises `UsageError`."""
    place, tab, _ = find_column(path)
    with open_rows(place, tab) as rows:
        names = rows.fieldnames or []
        id, name = (find(place, names, [wanted]) for wanted in ("id", "name"))
        people = [(row[id] or "", row[name] or "") for row in rows]
    if not people:
        raise UsageError(f"{path} has no people")
    if len({number for number, _ in people}) < len(people):
        raise UsageError(f"{path} has a number twice")
    for number, _ in people:
        if len(number) != digits or not (number.isascii() and number.isdigit()):
            raise UsageError(f"{path}: {number!r} has not {digits} digits, as --number says")
    return people


def write_sheets(out: Path, sheet: AnswerSheet, listed: Path | None) -> list[str]:
    """Write the PDF, with a page for each person of a list, or an empty one.

    Beside it are the form's file, and its blank, a .png. Gives the names that have letters which
    can't be printed. Raises `UsageError`, `OutputError`.
    """
    people = read_people(listed, sheet.digits) if listed else [("", "")]
    keys = ""
    if listed:
        place = os.path.relpath(os.path.realpath(listed), os.path.realpath(out.parent))
        keys = f'allowed = {json.dumps(f"{place}:id", ensure_ascii=False)}\nshow = ["name"]\n'
    check_folder(out)
    with replacing(out) as path:
        for number, one in enumerate(people):  # a page takes 9 MB of memory
            sheet.draw(*one).save(path, "PDF", resolution=PRINT_DPI, append=number > 0)
    blank = out.with_suffix(".png")
    with replacing(blank) as path:
        sheet.draw().reduce(REDUCED).save(path, "PNG")
    with replacing(out.with_suffix(".toml")) as path:
        path.write_text(sheet.describe(blank.name, keys), encoding="utf-8")
    return [name for _, name in people if lacks_letters(name)]
