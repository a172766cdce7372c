"""Result rows as an Excel file."""

import re
import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pyarrow as pa
import pyarrow.compute as pc

from producer.sinks.encoders import drop_lists
from protocol.xlsx_rows import import_openpyxl

MAX_SHEET_ROWS = 1 << 20  # Excel opens no sheet with more rows
NOT_IN_XML = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]")


def write_workbook(batches: Iterable[pa.RecordBatch], file: str | BinaryIO) -> int:
    """Write the columns that a CSV has; there is at least one batch. Text stays text, whether it
    looks like a number, a date or a formula. Rows that one sheet has no room for go to another.
    Gives the number of rows; raises `OSError`.
    """
    library = import_openpyxl()
    from openpyxl.writer.excel import ExcelWriter

    book = library.Workbook(write_only=True)
    rows = 0
    for batch in map(drop_lists, batches):
        for cells in read_cells(batch):
            if rows % (MAX_SHEET_ROWS - 1) == 0:
                sheet = book.create_sheet()
                sheet.freeze_panes = "A2"
                sheet.append(batch.schema.names)
                # Each cell is written at once, so one for each column of text is enough
                texts = [
                    library.cell.WriteOnlyCell(sheet) if pa.types.is_string(kind) else None
                    for kind in batch.schema.types
                ]
                for text in filter(None, texts):
                    text.number_format = "@"  # what a person types there stays text, too
            for column, text in enumerate(texts):
                if text and cells[column] is not None:
                    text.value, text.data_type = cells[column], "s"
                    cells[column] = text
            sheet.append(cells)
            rows += 1
    if not rows:
        book.create_sheet().append(batch.schema.names)
    book.properties.created = book.properties.modified = datetime(1980, 1, 1)
    with TimelessZip(file, "w") as archive:
        ExcelWriter(book, archive).save()
    return rows


class TimelessZip(ZipFile):
    """An archive whose files have no times, so that equal rows are equal bytes."""

    def writestr(self, name: Any, data: Any, *others: Any) -> None:
        super().writestr(ZipInfo(name), data, ZIP_DEFLATED)

    def write(self, path: Any, name: Any = None, *others: Any) -> None:
        member = ZipInfo(name)
        member.compress_type = ZIP_DEFLATED
        with open(path, "rb") as file, self.open(member, "w", force_zip64=True) as target:
            shutil.copyfileobj(file, target)


def read_cells(batch: pa.RecordBatch) -> Iterator[list[Any]]:
    """The cells of each row. Characters that no XML may have are escaped, such as `\\x01`."""
    columns = []
    for column in batch.columns:
        if pa.types.is_float32(column.type):  # so that 0.1 is not 0.10000000149
            column = pc.cast(pc.cast(column, pa.string()), pa.float64())
        cells = column.to_pylist()
        if pa.types.is_string(column.type):
            cells = [cell and NOT_IN_XML.sub(escape, cell) for cell in cells]
        columns.append(cells)
    return map(list, zip(*columns, strict=True))


def escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
