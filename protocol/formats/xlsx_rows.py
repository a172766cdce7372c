"""The rows of an Excel file (.xlsx)."""

import io
import sys
import warnings
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

from digitq.protocol.errors import UsageError
from digitq.protocol.host.regular_files import open_regular
from digitq.protocol.text import name_some, plural

XLSX = ".xlsx"
OLD_FILE = bytes.fromhex("d0cf11e0")  # an encrypted .xlsx and an old .xls begin so
CellPlace = tuple[int, int]  # the row and the column of a cell; both count from 1


def import_openpyxl() -> Any:
    """The library for .xlsx. Raises `UsageError` if it is missing."""
    try:
        import openpyxl
    except ImportError:
        raise UsageError(
            "openpyxl, which .xlsx needs, is not installed: run `pip install 'digitq[excel]'`"
        ) from None
    return openpyxl


def read_sheet(path: Path, sheet: str = "", limit: int = sys.maxsize) -> io.StringIO:
    """The cells of a sheet as the text of a CSV: the sheet of this name, or else the only one with
    cells in its first row.

    A formula counts as the value that is stored with it. Raises `UsageError` if the file can't be
    read, if there is not one such sheet, or if a formula has no value.
    """
    library = import_openpyxl()
    with open_regular(path, limit) as file:
        if file.read(len(OLD_FILE)) == OLD_FILE:
            raise UsageError(
                f"{path} has a password, or is an old .xls: save it as .xlsx without a password"
            )
        try:
            with warnings.catch_warnings(action="ignore"):  # about charts and other extras
                book = library.load_workbook(file, read_only=True)
                title = _choose_sheet(path, book, sheet)
                formulas: set[CellPlace] = set()
                text = _write_csv(path, book[title], formulas)
                if formulas:
                    book = library.load_workbook(file, read_only=True, data_only=True)
                    text = _write_csv(path, book[title], formulas)
        except (UsageError, OSError):
            raise
        except Exception as error:  # openpyxl raises anything for a damaged file
            raise UsageError(
                f"can't read {path}: it is no .xlsx, or damaged: {error}", str(error)
            ) from None
    return io.StringIO(text, newline="")


def _choose_sheet(path: Path, book: Any, name: str) -> str:
    titles = []
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # some programs write wrong ones
        if any(cell.value for cell in next(sheet.iter_rows(max_row=1), ())):
            titles.append(sheet.title)
    if not titles:
        raise UsageError(f"{path} has no sheet with cells in its first row")
    if name not in titles and (name or len(titles) > 1):
        raise UsageError(
            f"{path} has {plural(len(titles), 'sheet')} with cells ({name_some(titles)}): name "
            f"the sheet and the column, as in '{path}:{titles[0]}!COLUMN'"
        )
    return name or titles[0]


def _write_csv(path: Path, sheet: Any, formulas: set[CellPlace]) -> str:
    """The rows of a sheet. Formulas are added to `formulas`; those that are already there must have
    values."""
    lines = []
    width = 0
    for number, cells in enumerate(sheet.iter_rows(), 1):
        width = width or len(cells)
        for column, cell in enumerate(cells[:width], 1):
            if cell.data_type == "f":
                formulas.add((number, column))
            elif cell.value is None and (number, column) in formulas:
                raise UsageError(
                    f"{path} has a formula without a value in row {number} of the sheet "
                    f"{sheet.title}: open it in Excel or LibreOffice, and save it"
                )
        texts = [_quote(cell) for cell in cells[:width]]
        lines.append(",".join(texts + [""] * (width - len(texts))) if any(texts) else "")
    return "\n".join([*lines, ""])


def _quote(cell: Any) -> str:
    """A cell of a CSV: nothing for an empty one, and else quoted text. Numbers have the 15 digits
    that Excel keeps, the zeros of a format such as `00000`, and the sign of `0%`."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int | float):
        format = cell.number_format
        width = len(format) if {*format} == {"0"} else 0
        is_percentage = format.endswith("%")
        value = f"{value * 100:.15g}%" if is_percentage else f"{value:.15g}".zfill(width)
    elif isinstance(value, date | time | timedelta):
        value = f"{value} (a date or a time)"  # Excel has changed what was typed
    return '"' + str(value).replace('"', '""') + '"'
