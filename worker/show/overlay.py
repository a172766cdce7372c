"""`digitq form show`: draws the fields of a form on its blank, or on a page."""

from functools import partial
from pathlib import Path

import PIL.Image
from PIL.ImageDraw import Draw

from digitq.protocol.asked.form import Form, read_form
from digitq.protocol.errors import UsageError
from digitq.worker.picture import error_of_row
from digitq.worker.show.drawings import Inspected, draw_file, load_font, read
from digitq.worker.sight.decoding.any_file import read_picture
from digitq.worker.sight.forms.cutting import PAGE_SIDE, Cut, cut_cells
from digitq.worker.sight.forms.perspective import project, to_corners
from digitq.worker.sight.forms.proposal import count_rows
from digitq.worker.sight.limits import Watch
from digitq.worker.sight.normalisation.colours import to_grey

NAME_SHARE = 90  # the longer side of a picture is so many times the height of a name
MIN_NAME_HEIGHT = 13  # px


def show_form(form: Path, page: Path | None = None, out: Path | None = None) -> int:
    """Draw a form on a page, or on its blank; gives the exit status, 1 if it is not all there.

    Raises `UsageError`, `OutputError`.
    """
    fields = read_form(form, count_rows)
    content = read(page) if page else fields.blank
    if content is None:
        raise UsageError(f"{form} has no blank: name a page to draw its table on")
    return draw_file(page or form, out, content, partial(draw_fields, fields))


def draw_fields(form: Form, content: bytes, title: str) -> Inspected:
    """Which fields are not on a page, and the picture of those that are."""
    watch = Watch()
    try:
        with watch.running(), watch.on(0):
            grey = to_grey(read_picture(content, PAGE_SIDE))
            cuts = cut_cells(form, grey)
    except Exception as error:
        return [f"{title}: {error_of_row(error)}"], None, 1
    picture, missing, table = PIL.Image.fromarray(grey).convert("RGB"), list[str](), ""
    draw, height = Draw(picture), max(MIN_NAME_HEIGHT, max(picture.size) // NAME_SHARE)
    for cell, cut in zip(form.cells, cuts, strict=True):
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
    where = f"not on the page: {', '.join(missing)}" if missing else "all fields are on the page"
    return [f"{title}: {where}"], picture, int(bool(missing))
