"""The rows of an Excel file (.xlsx)."""

import io
import warnings
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

from digitq.protocol.errors import UsageError
from digitq.protocol.text import name_some, plural

XLSX = ".xlsx"
OLD_FILE = bytes.fromhex("d0cf11e0")  # an encrypted .xlsx and an old .xls begin so
Place = tuple[str, int, int]  # the sheet, row and column of a cell; both count from 1


def import_openpyxl() -> Any:
    """The library for .xlsx. Raises `UsageError` if it is missing."""
    try:
        import openpyxl
    except ImportError:
        raise UsageError(
            "openpyxl, which .xlsx needs, is not installed: run `pip install 'digitq[excel]'`"
        ) from None
    return openpyxl


def read_sheet(path: Path, sheet: str = "", every: bool = False) -> io.StringIO:
    """The cells of a sheet as the text of a CSV: the sheet of this name, or else the only one with
    cells in its first row; with `every`, those of all sheets that have the same first row.

    A formula counts as the value that is stored with it. Raises `UsageError` if the file can't be
    read, if there is not one such sheet, or if a formula has no value.
    """
    library = import_openpyxl()
    with open(path, "rb") as file:
        if file.read(len(OLD_FILE)) == OLD_FILE:
            raise UsageError(
                f"{path} has a password, or is an old .xls: save it as .xlsx without a password"
            )
        try:
            with warnings.catch_warnings(action="ignore"):  # about charts and other extras
                book = library.load_workbook(file, read_only=True)
                titles = _choose_sheets(path, book, sheet, every)
                formulas: set[Place] = set()
                text = _write_csv(path, book, titles, formulas, not every)
                if formulas:
                    book = library.load_workbook(file, read_only=True, data_only=True)
                    text = _write_csv(path, book, titles, formulas, not every)
        except (UsageError, OSError):
            raise
        except Exception as error:  # openpyxl raises anything for a damaged file
            raise UsageError(f"can't read {path}: it is no .xlsx, or damaged: {error}") from None
    return io.StringIO(text, newline="")


def _choose_sheets(path: Path, book: Any, name: str, every: bool) -> list[str]:
    heads = {}
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # some programs write wrong ones
        head = [cell.value for cell in next(sheet.iter_rows(max_row=1), ())]
        if any(head):
            heads[sheet.title] = head
    if not heads:
        raise UsageError(f"{path} has no sheet with cells in its first row")
    first = next(iter(heads))
    if every:
        return [title for title, head in heads.items() if head == heads[first]]
    if name not in heads and (name or len(heads) > 1):
        raise UsageError(
            f"{path} has {plural(len(heads), 'sheet')} with cells ({name_some([*heads])}): name "
            f"the sheet and the column, as in '{path}:{first}!COLUMN'"
        )
    return [name or first]


def _write_csv(path: Path, book: Any, titles: list[str], formulas: set[Place], signs: bool) -> str:
    """The rows of the sheets, whose first row counts once. Formulas are added to `formulas`; those
    that are already there must have values. With `signs`, percentages have theirs."""
    lines = []
    for title in titles:
        width = 0
        for number, cells in enumerate(book[title].iter_rows(), 1):
            width = width or len(cells)
            for column, cell in enumerate(cells[:width], 1):
                if cell.data_type == "f":
                    formulas.add((title, number, column))
                elif cell.value is None and (title, number, column) in formulas:
                    raise UsageError(
                        f"{path} has a formula without a value in row {number} of the sheet "
                        f"{title}: open it in Excel or LibreOffice, and save it"
                    )
            if number == 1 and title != titles[0]:
                continue
            texts = [_quote(cell, signs) for cell in cells[:width]]
            lines.append(",".join(texts + [""] * (width - len(texts))) if any(texts) else "")
    return "\n".join([*lines, ""])


def _quote(cell: Any, signs: bool) -> str:
    """A cell of a CSV: nothing for an empty one, and else quoted text. Numbers have the 15 digits
    that Excel keeps, the zeros of a format such as `00000`, and perhaps the sign of `0%`."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int | float):
        format = cell.number_format
        width = len(format) if {*format} == {"0"} else 0
        is_percentage = signs and format.endswith("%")
        value = f"{value * 100:.15g}%" if is_percentage else f"{value:.15g}".zfill(width)
    elif isinstance(value, date | time | timedelta):
        value = f"{value} (a date or a time)"  # Excel has changed what was typed
    return '"' + str(value).replace('"', '""') + '"'
