"""What another reader has read: any table with an id and an answer in each row."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from digitq.producer.several_readings import ERROR_READINGS
from digitq.producer.sources.truth import ANSWER_NAMES, Cells, id_finder
from digitq.protocol.asked.values import tidy
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find, find_column, find_first, open_rows
from digitq.protocol.formats.csv_text import plain_text
from digitq.protocol.text import in_one_line

DIGIT = re.compile(r"0*(\d)(\.0*)?")  # as pandas and spreadsheets may write a digit
NumberedCells = Iterator[tuple[int, Cells]]  # the rows of a table, each with its line


def read_reader(
    where: Path | str, answer_column: str, find_fault: Callable[[str, str], str]
) -> dict[str, str]:
    """What is read in a table, and perhaps a column that `find_column` finds, by id; an empty cell
    says that nothing is written. `find_fault` says what is wrong with an id and its answer.

    A row with an error is left out, unless the error is what a person has read. Raises
    `UsageError` if the table or a row can't be read, and if it has an id twice.
    """
    path, sheet, column = find_column(where)
    wanted = [column.strip().lower()] if column else [answer_column, *ANSWER_NAMES[1:], "truth"]
    found: dict[str, str] = {}
    with open_cells(path, sheet) as (names, rows):
        find_id, answer, error = id_finder(path, names), find(path, names, wanted), "error"
        has_error = find_first(names, [error])
        for line, cells in rows:
            place, id = f"line {line:,} of {path}", find_id(cells)
            if not any(cells.values()):
                continue
            if not id:
                raise UsageError(f"{place} has no id")
            failed = cells[has_error].strip() if has_error else ""
            if failed and failed not in ERROR_READINGS:
                continue
            text = ERROR_READINGS[failed] if failed else tidy(plain_text(cells[answer]))
            if answer_column == "label" and (digit := DIGIT.fullmatch(text)):
                text = digit[1]
            if fault := find_fault(id, text):
                raise UsageError(f"{place} has {fault}")
            if id in found:
                raise UsageError(f"{place} has {in_one_line(id)} again: rows are matched by id")
            found[id] = text
    return found


@contextmanager
def open_cells(path: Path, sheet: str) -> Iterator[tuple[list[str], NumberedCells]]:
    """The names of the columns, and the rows, of whatever table; missing cells are empty. Raises
    `UsageError`."""
    if path.suffix.lower() == ".jsonl":
        rows = [*read_objects(path)]
        yield [*rows[0][1]] if rows else [], iter(rows)
        return
    with open_rows(path, sheet) as table:
        names: list[str] = table.fieldnames or []
        whole = ({name: row[name] or "" for name in names} for row in table)
        yield names, ((table.line_num, cells) for cells in whole)


def read_objects(path: Path) -> NumberedCells:
    """The lines of JSON lines. Raises `UsageError`."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                cells = json.loads(line).items()
                yield number, {name: "" if one is None else str(one) for name, one in cells}
    except (OSError, ValueError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or "a line is no JSON object"
        raise UsageError(f"can't read {path}: {reason}") from None
