"""Shows a form: `digitq form show` draws its fields, and the editor asks where its places are."""

import textwrap
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise, product, repeat
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from PIL.ImageDraw import Draw

from digitq.protocol.asked.form import Form, read_form
from digitq.protocol.asked.form_file import Box
from digitq.protocol.errors import UsageError
from digitq.protocol.host.fonts import load_font
from digitq.protocol.text import plural
from digitq.worker.picture import Grey, ImageError, error_of_row
from digitq.worker.show.drawings import Inspected, draw_file, read
from digitq.worker.sight.decoding.any_file import read_picture
from digitq.worker.sight.decoding.pillow import prepare_libraries
from digitq.worker.sight.decoding.scales import scale_to_file
from digitq.worker.sight.forms.bubbles import check_places, find_bubbles
from digitq.worker.sight.forms.cutting import (
    MIN_BLANK_SIDE,
    PAGE_SIDE,
    Cut,
    cut_cells,
    find_lines,
    read_blank,
    scale_box,
    scale_choice,
)
from digitq.worker.sight.forms.hypotheses import guess_corners
from digitq.worker.sight.forms.perspective import project, to_corners
from digitq.worker.sight.forms.proposal import count_rows
from digitq.worker.sight.limits import Watch
from digitq.worker.sight.normalisation.colours import to_grey

NAME_SHARE = 90  # the longer side of a picture is so many times the height of a name
MIN_NAME_HEIGHT = 13  # px
READ = "#008000"  # the colour of what is read
TRIED = "#c000c0"  # the colour of what was tried where the form is not found


def show_form(
    form: Path, page: Path | None = None, out: Path | None = None, answers: bool = False
) -> int:
    """Draw a form on a page, or on its blank, and perhaps what is read there; gives the exit
    status, 1 if it is not all there.

    Raises `UsageError`, `OutputError`.
    """
    fields = read_form(form, count_rows)
    content = read(page) if page else fields.blank
    if content is None:
        raise UsageError(f"{form} has no blank: name a page to draw its table on")
    return draw_file(page or form, out, content, partial(draw_fields, fields, answers=answers))


def draw_fields(form: Form, content: bytes, title: str, answers: bool = False) -> Inspected:
    """Which fields are not on a page, and the picture of those that are, perhaps with what is read;
    or why none is, and the picture of what was tried."""
    watch, grey = Watch(), None
    try:
        with watch.running(), watch.on(0):
            grey = to_grey(read_picture(content, PAGE_SIDE))
            cuts = cut_cells(form, grey)
    except Exception as error:
        reason = error_of_row(error)
        return [f"{title}: {reason}"], None if grey is None else draw_tried(form, grey, reason), 1
    rows: Iterable[dict[str, Any] | None] = repeat(None)
    if answers:
        from digitq.worker.show.inspection import answer_page  # imports torch, which takes seconds

        rows = answer_page(content, form)
    told = list[str]()
    picture, missing, table = PIL.Image.fromarray(grey).convert("RGB"), list[str](), ""
    draw, height = Draw(picture), max(MIN_NAME_HEIGHT, max(picture.size) // NAME_SHARE)
    for cell, cut, row in zip(form.cells, cuts, rows, strict=False):
        if cut is None:  # the page has no such row
            continue
        if not isinstance(cut, Cut):
            missing.append(cell.id)
            continue
        colour = "#0050d0" if cell.table else "#d00000"
        corners = [(x, y) for x, y in project(cut.to_page, to_corners(cut.box)).tolist()]
        draw.polygon(corners, outline=colour, width=max(2, height // 7))
        if cell.row <= 1:  # the names of columns are above the first row
            name = cell.field if cell.table == table else f"{cell.table}\n{cell.field}"
            place, font = (corners[0][0], corners[0][1] - 3), load_font(height)
            draw.text(place, name, colour, font, "ld", stroke_width=2, stroke_fill="white")
        table = cell.table
        if row:
            doubt = row["error"] or row["reason"]
            told += [f"{cell.id}: {row['number'] or 'nothing'}: {doubt}"] if doubt else []
            text, middle = (
                f"{row['number'] or ''}{'?' if doubt else ''}",
                np.mean(corners[1:3], axis=0),
            )
            place, anchor = (middle[0] - 3, middle[1]), "rm" if cell.table else "lm"
            draw.text(
                place, text, READ, load_font(height), anchor, stroke_width=2, stroke_fill="white"
            )
    where = f"not on the page: {', '.join(missing)}" if missing else "all fields are on the page"
    read = [f"{plural(len(told), 'answer')} to review", *told] if answers else []
    return [f"{title}: {where}", *read], picture, int(bool(missing))


def draw_tried(form: Form, grey: Grey, reason: str) -> PIL.Image.Image:
    """A page on which the form is not found: where its blank may be, and why it is not there."""
    picture = PIL.Image.fromarray(grey).convert("RGB")
    draw, height = Draw(picture), max(MIN_NAME_HEIGHT, max(picture.size) // NAME_SHARE)
    with suppress(Exception):  # a blank that can't be read, or a page that is too dark
        corners = guess_corners(read_blank(form).template, grey).tolist()
        draw.polygon([(x, y) for x, y in corners], outline=TRIED, width=max(3, height // 3))
    text = textwrap.fill(reason, max(20, picture.width // height))
    start, font = (height, height), load_font(height)
    draw.text(start, text, TRIED, font, stroke_width=2, stroke_fill="white")
    return picture


def list_places(path: Path) -> list[tuple[Box, list[Box], str]]:
    """The box of each table and choice of a form, the boxes of all its places, row by row, in px of
    the blank's file, and how they differ from its print. Raises `UsageError`."""
    form, placed = read_form(path, count_rows), list[tuple[Box, list[Box], str]]()
    prepare_libraries()
    try:
        blank = to_grey(read_picture(form.blank or b"", MIN_BLANK_SIDE))
    except ImageError as error:
        raise UsageError(f"can't read the blank of {path}: {error}") from None
    scale = scale_to_file(form.blank or b"", blank.shape)
    for table in form.tables:
        if table.box:
            columns, rows = find_lines(blank, replace(table, box=scale_box(table.box, scale)))
            cells = product(pairwise(rows.tolist()), pairwise(columns.tolist()))
            boxes = [(left, top, right, bottom) for (top, bottom), (left, right) in cells]
            placed.append((table.box, boxes, ""))
    bubbles = find_bubbles(blank) if form.choices else []
    for choice in form.choices:
        boxes, wrong = check_places(scale_choice(choice, scale), bubbles)
        placed.append((choice.box, boxes, wrong))
    to_blank = np.diag(1 / np.diag(scale))
    return [
        (box, [scale_box(one, to_blank) for one in boxes], wrong) for box, boxes, wrong in placed
    ]
