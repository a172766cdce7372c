"""Result rows as an Excel file."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from io import BytesIO
from types import MappingProxyType
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZipFile

import pyarrow as pa
import pyarrow.compute as pc

from digitq.producer.sinks.encoders import drop_lists
from digitq.protocol.formats.xlsx_rows import import_openpyxl

MAX_SHEET_ROWS = 1 << 20  # Excel opens no sheet with more rows
PICTURE_SIDE = 64  # px: of the picture in a row
NOT_IN_XML = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]")


def write_workbook(
    batches: Iterable[pa.RecordBatch],
    file: str | BinaryIO,
    pictures: Mapping[int, bytes] = MappingProxyType({}),
) -> int:
    """Write the columns that a CSV has; there is at least one batch. Text stays text, whether it
    looks like a number, a date or a formula. Rows that one sheet has no room for go to another. The
    first column has the `pictures` of rows, by the row's number from 0, if there are any. If the
    column `review` names other columns, their cells are yellow. Gives the number of rows; raises
    `OSError`.
    """
    book = import_openpyxl().Workbook(write_only=True)
    from openpyxl.writer.excel import ExcelWriter

    rows = 0
    try:
        for batch in map(drop_lists, batches):
            for cells in read_cells(batch):
                place = rows % (MAX_SHEET_ROWS - 1)
                if place == 0:
                    sheet = add_sheet(book, batch.schema, bool(pictures))
                named = [*zip(batch.schema.names, cells, strict=True)]
                review = dict(named).get("review")
                doubtful = review.split(", ") if isinstance(review, str) else []
                shown = [make_cell(sheet, value, name in doubtful) for name, value in named]
                sheet.append([None] * bool(pictures) + shown)
                if rows in pictures:
                    add_picture(sheet, f"A{place + 2}", pictures[rows])
                rows += 1
        if not rows:
            add_sheet(book, batch.schema, False)
        book.properties.created = book.properties.modified = datetime(1980, 1, 1)
        with TimelessZip(file, "w", ZIP_DEFLATED) as archive:
            ExcelWriter(book, archive).save()
    finally:
        for sheet in book.worksheets:  # an open one would complain later, out of anyone's reach
            with suppress(Exception):  # it is saved
                sheet.close()
    return rows


def add_sheet(book: Any, schema: pa.Schema, has_pictures: bool) -> Any:
    """A sheet with the names of the columns in its first row."""
    sheet = book.create_sheet()
    sheet.freeze_panes = "A2"
    if has_pictures:
        sheet.sheet_format.defaultRowHeight = PICTURE_SIDE * 0.75  # points
        sheet.sheet_format.customHeight = True
        sheet.column_dimensions["A"].width = PICTURE_SIDE / 7 + 1  # characters
    sheet.append(
        ["picture"] * has_pictures + [make_cell(sheet, one, False) for one in schema.names]
    )
    return sheet


def make_cell(sheet: Any, value: Any, is_doubtful: bool) -> Any:
    """A cell, which is yellow if it is doubtful. Text stays text there, also what a person types
    there later."""
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import PatternFill

    if not (is_doubtful or isinstance(value, str)):
        return value
    cell = WriteOnlyCell(sheet, value)
    if isinstance(value, str):
        cell.data_type, cell.number_format = "s", "@"
    if is_doubtful:
        cell.fill = PatternFill("solid", start_color="FFFF99")
    return cell


def add_picture(sheet: Any, cell: str, content: bytes) -> None:
    from openpyxl.drawing.image import Image

    picture = Image(BytesIO(content))
    scale = PICTURE_SIDE / max(picture.width, picture.height)
    picture.width, picture.height = picture.width * scale, picture.height * scale
    sheet.add_image(picture, cell)


class TimelessZip(ZipFile):
    """An archive whose files have no times, so that equal rows are equal bytes."""

    def open(self, name: Any, *others: Any, **options: Any) -> Any:
        name.date_time = (1980, 1, 1, 0, 0, 0)
        return super().open(name, *others, **options)


def read_cells(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The cells of each row. Characters that no XML may have are escaped, such as `\\x01`."""
    columns = []
    for column in batch.columns:
        if pa.types.is_float32(column.type):  # so that 0.1 is not 0.10000000149
            column = pc.cast(pc.cast(column, pa.string()), pa.float64())
        cells = column.to_pylist()
        if pa.types.is_string(column.type):
            cells = [
                cell and NOT_IN_XML.sub(lambda one: repr(one[0])[1:-1], cell) for cell in cells
            ]
        columns.append(cells)
    return zip(*columns, strict=True)
