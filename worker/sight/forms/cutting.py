"""Cuts the fields and the cells of tables out of a page."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain, compress, islice, pairwise, repeat
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.form import Choice, Form, Table
from digitq.protocol.asked.form_file import Box
from digitq.protocol.asked.known import Known
from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.decoding.any_file import read_picture
from digitq.worker.sight.decoding.scales import scale_to_file
from digitq.worker.sight.forms.alignment import (
    NOT_ALIGNED,
    Alignment,
    BlankBox,
    Template,
    make_place,
    make_template,
    settle_place,
)
from digitq.worker.sight.forms.beside import (
    NOTHING,
    Beside,
    Surroundings,
    find_beside,
    see_surroundings,
)
from digitq.worker.sight.forms.bubbles import find_bubbles, place_bubbles
from digitq.worker.sight.forms.hypotheses import align
from digitq.worker.sight.forms.judging import count_sure, has_head, is_printed
from digitq.worker.sight.forms.perspective import Points, to_corners
from digitq.worker.sight.forms.perspective import warp as show
from digitq.worker.sight.forms.row_lines import RowLines, find_row_lines
from digitq.worker.sight.forms.ruling import Grid, differ, find_grid
from digitq.worker.sight.forms.written import keep_writing
from digitq.worker.sight.normalisation.colours import to_grey

PAGE_SIDE = 1600  # px: the shorter side to which a large page may be reduced
MIN_BLANK_SIDE = 1600  # px: the shorter side to which a large blank may be reduced
# Writing is lost in noise if less than this share of a page has at least this grey value
LIGHT_SHARE, MIN_PAGE_LIGHT = 0.01, 10
MARK_SIDE = 48  # px: the shorter side of a bubble where its marks are sought
MARK_ROOM = 0.5  # so much is seen around a bubble, in shorter sides of it
MIN_RIM = 12  # px: with less around a bubble, it is like a cell
MAX_SHARED_ROOM = 0.4  # at most this share of the gap to the next bubble
CELL_MARGIN = 0.12  # what is nearer to the lines of a cell, in shorter sides, is no mark
MAX_HEIGHT = 100  # px: a cut is at most as high
CUT_MARGIN = 0.06  # a cut shows this much beyond its box, in heights of the box
WRITING_ROOM = 0.5  # writing may reach so far above and below its box, in heights of the box
MAX_OUTSIDE = 0.15  # so much of a box's height may be outside of the page
BOX_RIM = 8  # px of the blank: the outer lines of a table are at most so far outside of its box
MAX_BOX_ERROR = 0.5  # lines of the blank count if they are nearer to the box, in heights of a row
UPRIGHT_FACTOR = 1.1  # most pages are upright: the numbers that are read so count for more
MAX_SECOND_WAY = 0.95  # if another way up has more of the best one's sure numbers, it may be right
MIN_CLEAR = 1.5  # with fewer sure numbers, such a table is taken for upright
MIN_ROWS_BELOW = 3  # with more rows, the first and the last may be a head, which tells nothing
NOT_ON_PAGE = "not on the page"


@dataclass(frozen=True)
class Cut:
    """A field cut out of a page."""

    picture: Grey  # upright, with a small margin, at most MAX_HEIGHT px high
    to_page: NDArray[np.float64]  # (3, 3): from px of the picture to px of the page
    blank: Grey | None = None  # the form's blank, if the field was found by it
    on_blank: Points | None = None  # (4, 2): the corners of the picture in px of the blank
    marks: tuple["Mark", ...] = ()  # what may be marked, if the field is a question
    is_contested: bool = False  # whether what was left out may be written in the field
    rims: tuple[float, float] = (CUT_MARGIN, CUT_MARGIN)  # above and below the box, in its heights

    @property
    def printed(self) -> Grey | None:
        """What the blank shows of the same part, in the same size."""
        if self.blank is None or self.on_blank is None:
            return None
        size = self.picture.shape[1], self.picture.shape[0]
        return show(self.blank, find_matrix(size, self.on_blank), size)

    @property
    def box(self) -> Box:
        """Where the field is within its margin, px of the picture."""
        height, width = self.picture.shape
        above, below = self.rims
        unit = height / (1 + above + below)
        side = unit * CUT_MARGIN
        return side, unit * above, width - side, height - unit * below

    def move(self, matrix: NDArray[np.float64]) -> Self:
        """The cut for px of a page that this (3, 3) leads to."""
        return replace(self, to_page=matrix @ self.to_page)


@dataclass(frozen=True)
class Mark:
    """A bubble or a box that may be marked, and what is around it."""

    picture: Grey  # the box is MARK_SIDE px high or wide, whichever is less
    printed: Grey | None  # what the blank shows of the same part
    rim: int  # px of the picture that are around the box
    scale: float  # px of the picture in a px of the page
    beside: Beside = NOTHING

    @property
    def is_cell(self) -> bool:
        """Whether hardly anything is seen around the box."""
        return self.rim < MIN_RIM


@dataclass(frozen=True)
class Ruled:
    """A ruled table on a page, whose first row may be its head."""

    table: Table
    grid: Grid
    rows: list[list[Cut | ImageError]]  # the cells of all columns in each row of the grid
    shape: tuple[int, ...]  # the shape of the page's picture

    def see(
        self, rows: slice = slice(None), step: int = 1, with_marks: bool = False
    ) -> list[list[Grey]]:
        """What is seen of the cells with numbers, or also of those with marks, in some of the rows;
        with a step of -1, as if the page were turned by 180°."""
        columns = zip(self.table.columns, self.table.column_known, strict=True)
        is_seen = [bool(name) and (with_marks or not known.options) for name, known in columns]
        return [
            [
                np.ascontiguousarray(one.picture[::step, ::step])
                for one in compress(row[::step], is_seen)
                if isinstance(one, Cut)
            ]
            for row in self.rows[::step][rows]
        ]

    def choose(self, row: Sequence[Cut | ImageError]) -> list[Cut | ImageError]:
        """The cells of the columns that are read."""
        return [one for one, name in zip(row, self.table.columns, strict=True) if name]

    def take_rows(self) -> list[list[Cut | ImageError]]:
        """The rows below the head. Raises `ImageError` if it is not sure which these are."""
        counts, head, hint = self.table.row_counts, self.table.head, ""
        if head is None:
            hint = f"; tables.{self.table.name}.head says how many of its first rows are a head"
            if len(counts) > 1:
                raise ImageError(
                    f"{NOT_ALIGNED}: the blank does not show the head of its table{hint}"
                )
            head = int(has_head(self.grid.heights, self.see(), self.table.known))
        if len(self.rows) - head not in counts:
            raise ImageError(f"{differ(len(self.rows) - head, counts, 'rows')}{hint}")
        grid = replace(self.grid, rows=self.grid.rows[head:])
        if grid.may_lack_rows():
            raise ImageError("page not aligned: a line between rows of its table may be missing")
        if len(counts) > 1:
            self.grid.check_ends(self.shape)
            if not grid.has_even_rows():
                raise ImageError("page not aligned: rows of its table differ in height")
        return [*map(self.choose, self.rows[head:])]


@dataclass(frozen=True)
class Blank:
    """What is known of a form's blank, in px of its decoded picture."""

    template: Template
    places: tuple[BlankBox, ...]  # a place for each cell, but for those of a table without a box
    marks: tuple[tuple[Box, ...], ...]  # for each place, what may be marked there
    lines: tuple[RowLines, ...]  # the lines of each table with a box

    @cached_property
    def around(self) -> Surroundings:
        """What is around the boxes of all places."""
        boxes = (
            marks or (place.box,) for place, marks in zip(self.places, self.marks, strict=True)
        )
        return see_surroundings(self.template.grey, [*chain.from_iterable(boxes)])


def cut_cells(form: Form, page: Grey) -> list[Cut | ImageError | None]:
    """One cut for each of the form's cells, or why there is none; `None` if the page has no such
    row.

    Raises `ImageError` if it is not sure where the form is on the page, or if the page is too dark.
    """
    if (page[::4, ::4] >= MIN_PAGE_LIGHT).mean() < LIGHT_SHARE:
        raise ImageError(f"{NOT_ALIGNED}: it is too dark")
    cuts: list[Cut | ImageError | None] = []
    count = len(form.fields) + sum(len(one.names) for one in form.choices)
    if form.blank and (form.fields or form.choices or any(table.box for table in form.tables)):
        blank = read_blank(form)
        alignment = align(blank.template, page)
        for lines in blank.lines:
            lines.check(page, alignment)
        shifts = [settle_place(page, alignment, place) for place in blank.places]
        has_marks = any(blank.marks[:count])  # beside the cells of tables, there is no room
        beside = iter(see_beside(page, blank, alignment, shifts) if has_marks else ())
        for at, (place, boxes) in enumerate(zip(blank.places, blank.marks, strict=True)):
            room = MARK_ROOM if at < count else CELL_MARGIN
            one = cut_place(page, blank.template.grey, alignment, place, shifts[at], boxes, room)
            around = [*islice(beside, len(boxes) or 1)]
            if isinstance(one, Cut) and at < count:
                marks = zip(one.marks, around, strict=False)
                one = replace(one, marks=tuple(replace(mark, beside=ink) for mark, ink in marks))
            cuts.append(one)
    placed = iter(cuts)
    whole = [next(placed) for _ in range(count)]
    for table in form.tables:
        cells = sum(map(bool, table.columns)) * table.rows
        if table.box:
            whole += [next(placed) for _ in range(cells)]
        else:
            found = cut_ruled(know_head(form, table), page)
            whole += [*found, *repeat(None, cells - len(found))]
    return whole


def cut_place(
    page: Grey,
    blank: Grey,
    alignment: Alignment,
    place: BlankBox,
    shift: NDArray[np.float64],
    boxes: Sequence[Box],
    room: float,
) -> Cut | ImageError:
    """Cut out a place of the blank, and the boxes in it that may be marked."""
    corners = to_corners(place.box) + shift
    margin, above = (each * (place.box[3] - place.box[1]) for each in (CUT_MARGIN, WRITING_ROOM))
    margins = to_corners((-margin, -above, margin, above))
    one = cut(page, alignment.to_page(corners), alignment.to_page(margins + corners), WRITING_ROOM)
    if isinstance(one, ImageError):
        return one
    marks = cut_marks(page, lambda points: alignment.to_page(points + shift), boxes, blank, room)
    whole = replace(one, blank=blank, on_blank=margins + to_corners(place.box), marks=marks)
    return whole if boxes else cut_writing(whole)


def cut_writing(whole: Cut) -> Cut:
    """What is written in the box of a wide cut, without print, and without what is beside it."""
    assert whole.printed is not None and whole.on_blank is not None
    picture, rows, is_contested = keep_writing(whole.picture, whole.printed, whole.box)
    _, top, _, bottom = whole.box
    margin = CUT_MARGIN * (bottom - top)
    first, last = max(0, round(rows[0] - margin)), min(len(picture), round(rows[1] + margin))
    left_side, right_side = whole.on_blank[[0, 1]], whole.on_blank[[3, 2]] - whole.on_blank[[0, 1]]
    upper, lower = (left_side + right_side * at / len(picture) for at in (first, last))
    return replace(
        whole,
        picture=picture[first:last],
        to_page=whole.to_page @ np.array([[1, 0, 0], [0, 1, first], [0, 0, 1]]),
        on_blank=np.concatenate([upper, lower[::-1]]),
        is_contested=is_contested,
        rims=((top - first) / (bottom - top), (last - bottom) / (bottom - top)),
    )


def see_beside(
    page: Grey, blank: Blank, alignment: Alignment, shifts: Sequence[NDArray[np.float64]]
) -> list[Beside]:
    """The ink around each box. Between places, the page is shifted as it is at those nearby."""
    middles = np.array([to_corners(place.box).mean(0) for place in blank.places])

    def to_page(points: Points) -> Points:
        gaps = ((points[:, None] - middles) ** 2).sum(2)
        weights = 1 / (gaps + 1) ** 1.5
        return alignment.to_page(points + weights @ shifts / weights.sum(1, keepdims=True))

    return find_beside(page, blank.around, to_page)


def cut_marks(
    page: Grey,
    to_page: Callable[[Points], Points],
    boxes: Sequence[Box],
    blank: Grey | None = None,
    room: float = MARK_ROOM,
) -> tuple[Mark, ...]:
    """Cut out boxes, with what is around them: `room` of their shorter sides, or as much as their
    neighbours leave. `to_page` leads from their px, which are those of the blank, to the page's."""
    sides = np.array(boxes).reshape(-1, 4)
    marks = []
    for box in sides:
        width, height = box[2:] - box[:2]
        gaps = np.maximum(sides[:, :2] - box[2:], box[:2] - sides[:, 2:]).max(1)
        rim = min([room * min(width, height), *(gaps[gaps > 0] * MAX_SHARED_ROOM)])
        around = to_corners(box.tolist()) + to_corners((-rim, -rim, rim, rim))
        scale = MARK_SIDE / min(width, height)
        size = round((width + 2 * rim) * scale), round((height + 2 * rim) * scale)
        corners = to_page(around)
        printed = None if blank is None else show(blank, find_matrix(size, around), size)
        across = float(np.linalg.norm(corners[1] - corners[0]))
        picture = show(page, find_matrix(size, corners), size)
        marks.append(Mark(picture, printed, round(rim * scale), size[0] / max(across, 1.0)))
    return tuple(marks)


@lru_cache(maxsize=4)
def read_blank(form: Form) -> Blank:
    """What is printed on a form's blank, found once in a process. Raises `ImageError`."""
    content = form.blank or b""
    original = to_grey(read_picture(content, MIN_BLANK_SIDE))
    scale = scale_to_file(content, original.shape)
    boxes = list[tuple[Box, tuple[Box, ...]]]()  # those of places, each with what may be marked
    for one in form.fields:
        if one.box:
            box = scale_box(one.box, scale)
            boxes.append((box, (box,) if one.known.options else ()))
    bubbles = find_bubbles(original) if form.choices else []
    for choice in form.choices:
        for marks in place_bubbles(scale_choice(choice, scale), bubbles):
            boxes.append((surround(marks), tuple(marks)))
    lines = list[RowLines]()
    for table in form.tables:
        if table.box:
            columns, rows = find_lines(original, replace(table, box=scale_box(table.box, scale)))
            lines.append(find_row_lines(original, columns.tolist(), rows.tolist()))
            for top, bottom in pairwise(rows.tolist()):
                cells = zip(
                    table.columns, table.column_known, pairwise(columns.tolist()), strict=True
                )
                for name, known, (left, right) in cells:
                    box = left, top, right, bottom
                    if name:
                        boxes.append((box, (shrink_cell(box),) if known.options else ()))
    places = tuple(make_place(original, box) for box, _ in boxes)
    all_marks = tuple(marks for _, marks in boxes)
    return Blank(make_template(original), places, all_marks, tuple(lines))


def surround(boxes: Sequence[Box]) -> Box:
    """The box around all these."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def shrink_cell(box: Box) -> Box:
    """What is within the lines of a cell."""
    left, top, right, bottom = box
    rim = CELL_MARGIN * min(right - left, bottom - top)
    return left + rim, top + rim, right - rim, bottom - rim


def scale_choice(choice: Choice, to_file: NDArray[np.float64]) -> Choice:
    """A choice of the blank's file in px of its decoded picture."""
    boxes = tuple(scale_box(box, to_file) for box in choice.boxes)
    return replace(choice, box=scale_box(choice.box, to_file), boxes=boxes)


def scale_box(box: Box, to_file: NDArray[np.float64]) -> Box:
    """A box of the blank's file in px of its decoded picture, which may be smaller."""
    across, down = np.diag(to_file)[:2].tolist()
    left, top, right, bottom = box
    return left / across, top / down, right / across, bottom / down


def find_lines(blank: Grey, table: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the columns and the rows of a table begin and end in px of the blank: by its lines, or
    equal ones if it lacks some."""
    assert table.box
    left, top, right, bottom = table.box
    columns = np.linspace(left, right, len(table.columns) + 1)
    rows = np.linspace(top, bottom, table.rows + 1)
    x, y = max(0, round(left) - BOX_RIM), max(0, round(top) - BOX_RIM)
    area = blank[y : round(bottom) + BOX_RIM, x : round(right) + BOX_RIM]
    try:
        grid = find_grid(area, table.row_counts, len(table.columns))
        across = grid.place(
            np.column_stack([grid.columns, np.full_like(grid.columns, grid.rows.mean())])
        )
        down = grid.place(
            np.column_stack([np.full_like(grid.rows, grid.columns.mean()), grid.rows])
        )
        found = across[:, 0] + x, down[:, 1] + y
        near = MAX_BOX_ERROR * (bottom - top) / table.rows
        if len(down) == len(rows) and (
            np.abs(found[0][[0, -1]] - (left, right)).max() < near
            and np.abs(found[1][[0, -1]] - (top, bottom)).max() < near
        ):
            columns, rows = found
    except ImageError:
        pass
    return columns, rows


@lru_cache(maxsize=4)
def know_head(form: Form, table: Table) -> Table:
    """The table with its number of rows of head, if the blank shows it: there, they are printed."""
    if table.head is not None or not form.blank:
        return table
    try:
        blank = to_grey(read_picture(form.blank, MIN_BLANK_SIDE))
        rows = cut_turned(table, blank, 0).see(with_marks=True)
    except ImageError:
        return table
    printed = [*map(is_printed, rows)]
    head = printed.index(False) if False in printed else len(rows)
    return replace(table, head=head) if len(rows) - head in table.row_counts else table


def cut_ruled(table: Table, page: Grey) -> list[Cut | ImageError]:
    """The cells of the rows that the largest ruled table of a page has; the page may be turned.

    Raises `ImageError`.
    """
    seen, problem = dict[int, Ruled](), ImageError(NOT_ALIGNED)
    for turns in (0, 1):
        try:
            seen[turns] = cut_turned(table, page, turns)
        except ImageError as error:
            problem = problem if turns else error
            continue
        if len(seen[turns].rows) != len(table.columns):  # else it may be seen from its side
            break
    if not seen:
        raise problem
    turns = choose_way(seen, table)
    ruled = seen[turns] if turns in seen else cut_turned(table, page, turns)
    return [*chain.from_iterable(ruled.take_rows())]


def choose_way(seen: dict[int, Ruled], table: Table) -> int:
    """By how many quarters a page is turned, counterclockwise, so that its table is upright.

    `seen` has the table as it is after some of these. Raises `ImageError` if it is not clear.
    """
    clear = dict[int, float]()
    for turns, ruled in seen.items():
        has_ends = table.head != 0 and len(ruled.rows) > MIN_ROWS_BELOW
        rows = slice(1, -1) if has_ends else slice(None)
        upright, other = (
            count_sure(chain.from_iterable(ruled.see(rows, step)), table.known) for step in (1, -1)
        )
        clear[turns], clear[turns + 2] = UPRIGHT_FACTOR * upright, other
    best, second = sorted(clear, key=lambda turns: -clear[turns])[:2]
    if clear[second] > MAX_SECOND_WAY * clear[best]:
        if clear[second] > MIN_CLEAR:
            raise ImageError(f"{NOT_ALIGNED}: it is not clear which way up its table is")
        return min(clear)
    return best


def cut_turned(table: Table, page: Grey, turns: int) -> "Ruled":
    """A ruled table of a page that is turned counterclockwise by quarters, with its head.

    Raises `ImageError`.
    """
    turned = np.ascontiguousarray(np.rot90(page, turns))
    to_page = np.eye(3)
    width = page.shape[1]
    for _ in range(turns):
        to_page = to_page @ np.array([[0, -1, width], [1, 0, 0], [0, 0, 1]])
        width = page.shape[0] + page.shape[1] - width
    counts, columns = table.row_counts, len(table.columns)
    fewest, most = (0, 1) if table.head is None else (table.head, table.head)  # rows of head
    rows = range(counts.start + fewest, counts.stop + most)
    grid = find_grid(turned, rows, columns, is_open=len(counts) > 1)
    if len(grid.heights) not in rows:
        raise differ(len(grid.heights) - (table.head or 0), counts, "rows")
    cells = [
        [one if isinstance(one, ImageError) else one.move(to_page) for one in row]
        for row in cut_grid(grid, turned, table.column_known)
    ]
    return Ruled(table, grid, cells, turned.shape)


def cut_grid(
    grid: Grid, page: Grey, known_by_column: Sequence[Known]
) -> Iterator[list[Cut | ImageError]]:
    """The cells of each row of a table whose lines are known."""
    for top, bottom in pairwise(grid.rows.tolist()):
        margin = CUT_MARGIN * (bottom - top)
        cells = list[Cut | ImageError]()
        for known, (left, right) in zip(
            known_by_column, pairwise(grid.columns.tolist()), strict=True
        ):
            corners = to_corners((left, top, right, bottom))
            around = to_corners((-margin, -margin, margin, margin)) + corners
            one = cut(page, grid.place(corners), grid.place(around))
            if known.options and isinstance(one, Cut):
                inside = shrink_cell((left, top, right, bottom))
                one = replace(one, marks=cut_marks(page, grid.place, [inside], room=CELL_MARGIN))
            cells.append(one)
        yield cells


def cut(page: Grey, box: Points, around: Points, rim: float = CUT_MARGIN) -> Cut | ImageError:
    """Cut out what is between four corners (4, 2), clockwise from the upper left one.

    Those of the box itself must be on the page. `rim` is what is above and below the box, in
    its heights.
    """
    sides = np.linalg.norm(around - np.roll(around, -1, axis=0), axis=1)
    width, height = (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2
    beyond = max(0.0, float(-box.min()), float((box - page.shape[::-1]).max()))
    if beyond > MAX_OUTSIDE * height:
        return ImageError(NOT_ON_PAGE)
    scale = min(1.0, MAX_HEIGHT * (1 + 2 * rim) / (1 + 2 * CUT_MARGIN) / height)
    size = max(8, round(width * scale)), max(8, round(height * scale))
    matrix = find_matrix(size, around)
    return Cut(show(page, matrix, size), matrix, rims=(rim, rim))


def find_matrix(size: tuple[int, int], corners: Points) -> NDArray[np.float64]:
    """The matrix (3, 3) from px of a picture, of this width and height, to that with its corners
    (4, 2), clockwise from the upper left one."""
    frame = to_corners((0, 0, *size)).astype(np.float32)
    return np.asarray(cv2.getPerspectiveTransform(frame, corners.astype(np.float32)))
