"""Cuts the fields and the cells of tables out of a page."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.form import Form, Table
from protocol.form_file import Box
from worker.sight.decoding.any_file import read_picture
from worker.sight.decoding.scales import scale_to_file
from worker.sight.forms.alignment import (
    NOT_ALIGNED,
    Place,
    Template,
    align,
    make_place,
    make_template,
    settle_place,
)
from worker.sight.forms.perspective import Points, to_corners
from worker.sight.forms.perspective import warp as show
from worker.sight.forms.ruling import Grid, find_grid
from worker.sight.normalisation.colours import to_grey
from worker.sight.types import Grey, ImageError

PAGE_SIDE = 1600  # px: the shorter side to which a large page may be reduced
MIN_BLANK_SIDE = 1600  # px: the shorter side to which a large blank may be reduced
MIN_PAGE_LIGHT = (
    10  # grey value: writing on a page whose lightest parts are darker is lost in noise
)
MAX_HEIGHT = 100  # px: a cut is at most as high
CUT_MARGIN = 0.06  # a cut shows this much beyond its box, in heights of the box
MAX_OUTSIDE = 0.15  # so much of a box's height may be outside of the page
BOX_RIM = 8  # px of the blank: the outer lines of a table are at most so far outside of its box
MAX_BOX_ERROR = 0.5  # lines of the blank count if they are nearer to the box, in heights of a row
JUDGED_CELLS = 24  # so many cells of a table tell whether it is upside down
WORD_SIGNS = 5  # so many signs in a cell are words
NOT_ON_PAGE = "not on the page"


@dataclass(frozen=True)
class Cut:
    """A field cut out of a page."""

    picture: Grey  # upright, with a small margin, at most MAX_HEIGHT px high
    to_page: NDArray[np.float64]  # (3, 3): from px of the picture to px of the page

    @property
    def box(self) -> Box:
        """Where the field is within its margin, px of the picture."""
        height, width = self.picture.shape
        margin = height * CUT_MARGIN / (1 + 2 * CUT_MARGIN)
        return margin, margin, width - margin, height - margin


@dataclass(frozen=True)
class Blank:
    """What is known of a form's blank, in px of its decoded picture."""

    template: Template
    places: tuple[Place, ...]  # of each cell; those of a table without a box are missing


def cut_cells(form: Form, page: Grey) -> list[Cut | ImageError]:
    """One cut for each of the form's cells, or why there is none.

    Raises `ImageError` if it is not sure where the form is on the page, or if the page is too dark.
    """
    if np.percentile(page[::4, ::4], 99) < MIN_PAGE_LIGHT:
        raise ImageError(f"{NOT_ALIGNED}: it is too dark")
    cuts: list[Cut | ImageError] = []
    if form.blank and (form.fields or any(table.box for table in form.tables)):
        blank = read_blank(form)
        alignment = align(blank.template, page)
        for place in blank.places:
            corners = to_corners(place.box) + settle_place(page, alignment, place)
            margin = CUT_MARGIN * (place.box[3] - place.box[1])
            around = to_corners((-margin, -margin, margin, margin)) + corners
            cuts.append(cut(page, alignment.to_page(corners), alignment.to_page(around)))
    placed = iter(cuts)
    whole = [next(placed) for _ in form.fields]
    for table in form.tables:
        cells = sum(map(bool, table.columns)) * table.rows
        whole += [next(placed) for _ in range(cells)] if table.box else cut_ruled(table, page)
    return whole


@lru_cache(maxsize=4)
def read_blank(form: Form) -> Blank:
    """What is printed on a form's blank, found once in a process. Raises `ImageError`."""
    content = form.blank or b""
    original = to_grey(read_picture(content, MIN_BLANK_SIDE))
    scale = scale_to_file(content, original.shape)
    boxes = [scale_box(one.box, scale) for one in form.fields if one.box]
    for table in form.tables:
        if table.box:
            boxes += list_cells(original, replace(table, box=scale_box(table.box, scale)))
    return Blank(make_template(original), tuple(make_place(original, box) for box in boxes))


def scale_box(box: Box, to_file: NDArray[np.float64]) -> Box:
    """A box of the blank's file in px of its decoded picture, which may be smaller."""
    across, down = np.diag(to_file)[:2].tolist()
    left, top, right, bottom = box
    return left / across, top / down, right / across, bottom / down


def list_cells(blank: Grey, table: Table) -> Iterator[Box]:
    """The cells of a table in px of the blank: by its lines, or equal ones if it lacks some."""
    assert table.box
    left, top, right, bottom = table.box
    columns = np.linspace(left, right, len(table.columns) + 1)
    rows = np.linspace(top, bottom, table.rows + 1)
    x, y = max(0, round(left) - BOX_RIM), max(0, round(top) - BOX_RIM)
    area = blank[y : round(bottom) + BOX_RIM, x : round(right) + BOX_RIM]
    try:
        grid = find_grid(area, table.rows, len(table.columns))
        across = grid.place(
            np.column_stack([grid.columns, np.full_like(grid.columns, grid.rows.mean())])
        )
        down = grid.place(
            np.column_stack([np.full_like(grid.rows, grid.columns.mean()), grid.rows])
        )
        found = across[:, 0] + x, down[:, 1] + y
        near = MAX_BOX_ERROR * (bottom - top) / table.rows
        if (
            np.abs(found[0][[0, -1]] - (left, right)).max() < near
            and np.abs(found[1][[0, -1]] - (top, bottom)).max() < near
        ):
            columns, rows = found
    except ImageError:
        pass
    for row in range(table.rows):
        for column, name in enumerate(table.columns):
            if name:
                yield (
                    float(columns[column]),
                    float(rows[row]),
                    float(columns[column + 1]),
                    float(rows[row + 1]),
                )


def cut_ruled(table: Table, page: Grey) -> list[Cut | ImageError]:
    """The cells of the largest ruled table of a page, which may be turned. Raises `ImageError`."""
    problem = ImageError(NOT_ALIGNED)
    for turns in (0, 1):
        try:
            cuts = cut_turned(table, page, turns)
        except ImageError as error:
            problem = problem if turns else error
            continue
        return cut_turned(table, page, turns + 2) if is_upside_down(cuts) else cuts
    raise problem


def cut_turned(table: Table, page: Grey, turns: int) -> list[Cut | ImageError]:
    """The cells of a ruled table of a page that is turned counterclockwise by quarters."""
    turned = np.ascontiguousarray(np.rot90(page, turns))
    to_page = np.eye(3)
    width = page.shape[1]
    for _ in range(turns):
        to_page = to_page @ np.array([[0, -1, width], [1, 0, 0], [0, 0, 1]])
        width = page.shape[0] + page.shape[1] - width
    grid = find_grid(turned, table.rows, len(table.columns))
    if grid.may_lack_rows():
        raise ImageError("page not aligned: a line between rows of its table may be missing")
    cuts = cut_grid(grid, table, turned)
    return [
        replace(one, to_page=to_page @ one.to_page) if isinstance(one, Cut) else one for one in cuts
    ]


def cut_grid(grid: Grid, table: Table, page: Grey) -> list[Cut | ImageError]:
    """The cells of a table whose lines are known."""
    cuts = []
    for top, bottom in zip(grid.rows, grid.rows[1:], strict=False):
        margin = CUT_MARGIN * (bottom - top)
        for name, left, right in zip(table.columns, grid.columns, grid.columns[1:], strict=False):
            if name:
                corners = to_corners((left, top, right, bottom))
                around = to_corners((-margin, -margin, margin, margin)) + corners
                cuts.append(cut(page, grid.place(corners), grid.place(around)))
    return cuts


def is_upside_down(cuts: list[Cut | ImageError]) -> bool:
    """Whether digits are clearer when turned by 180°, in the cells with most ink but no words."""
    # These import torch, which takes 2 s: `digitq report` needs them for some forms only
    from worker.models.number import load_networks
    from worker.sight.numbers.search import find_line

    pictures = [one.picture for one in cuts if isinstance(one, Cut)]
    inked = sorted(pictures, key=lambda picture: -float(picture.std()))[:JUDGED_CELLS]
    reader, _ = load_networks()
    votes = 0.0
    for picture in inked:
        turned = np.ascontiguousarray(picture[::-1, ::-1])
        upright, other = (find_line(reader, each).line.chances for each in (picture, turned))
        if max(len(upright), len(other)) < WORD_SIGNS:
            votes += float(other.sum() - upright.sum())
    return votes > 0


def cut(page: Grey, box: Points, around: Points) -> Cut | ImageError:
    """Cut out what is between four corners (4, 2), clockwise from the upper left one.

    Those of the box itself must be on the page.
    """
    sides = np.linalg.norm(around - np.roll(around, -1, axis=0), axis=1)
    width, height = (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2
    beyond = max(0.0, float(-box.min()), float((box - page.shape[::-1]).max()))
    if beyond > MAX_OUTSIDE * height:
        return ImageError(NOT_ON_PAGE)
    scale = min(1.0, MAX_HEIGHT / height)
    size = max(8, round(width * scale)), max(8, round(height * scale))
    frame = to_corners((0, 0, *size)).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(frame, around.astype(np.float32))
    return Cut(show(page, matrix, size), matrix)
