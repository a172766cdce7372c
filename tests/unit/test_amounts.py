"""In the Excel file of a wide table, columns of numbers can be added up."""

from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest

from digitq.producer.provenance import Record
from digitq.producer.results import open_results
from digitq.producer.sinks.resumable import FileSink
from digitq.protocol.chunk import FORM_SCHEMA
from digitq.protocol.origin import Origin
from digitq.review.wide import write_wide

FORM = """
align = "lines"
[tables.marks]
rows = 4
columns = ["c1", "c2"]
{known}
"""


def write_columns(
    folder: Path, columns: dict[str, list[str | None]], known: str = "", suffix: str = ".xlsx"
) -> list[list[Any]]:
    """The rows of the wide table of a page with a table that has these columns."""
    form = folder / "form.toml"
    form.write_text(FORM.format(known=known))
    rows = [
        {
            "id": f"a.png/marks/{row}/{name}",
            "page": "a.png",
            "field": name,
            "row": row,
            "number": number,
            "review": number is None,
            "error": "torn" if number is None else None,
        }
        for row, numbers in enumerate(zip(*columns.values(), strict=True), 1)
        for name, number in zip(columns, numbers, strict=True)
    ]
    sink = FileSink(folder / "a.jsonl", {})
    sink.write(pa.RecordBatch.from_pylist(rows, FORM_SCHEMA))
    sink.finish("number", Record.build("number", Origin(form=str(form)), sink.counts, ()))
    out = folder / f"wide{suffix}"
    write_wide(open_results(folder / "a.jsonl"), out, overwrite=True)
    if suffix == ".csv":
        return [line.split(",") for line in out.read_text().splitlines()]
    return [[cell.value for cell in row] for row in openpyxl.load_workbook(out).active]


@pytest.mark.parametrize(
    ("written", "worth"),
    [
        (["12", "", None, "7.5"], [12, None, None, 7.5]),
        (["-3", "+4", "0", "40%"], [-3, 4, 0, 40]),
        (["12.500", "8.25", "0.0", "950"], [12.5, 8.25, 0, 950]),  # points are before decimals
        (["12.500", "1.234.567", "3", "4"], [12500, 1234567, 3, 4]),  # … between thousands
        (["12.500", "7,5", "1.000,25", "4"], [12500, 7.5, 1000.25, 4]),
        (["7,5", "7.5", "1,25", "2"], [7.5, 7.5, 1.25, 2]),  # each has one value
        (["7½", "½", "-1¼", "12.5"], [7.5, 0.5, -1.25, 12.5]),
        (["7½", "3", "2.5", "¼"], [7.5, 3, 2.5, 0.25]),
        (["1.234½", "12.500", "1.234.567", "3"], [1234.5, 12500, 1234567, 3]),
        (["123456789012345", "1", "2", "3"], [123456789012345, 1, 2, 3]),
    ],
)
def test_a_column_of_numbers_has_a_sum(
    written: list[str | None], worth: list[float | None], tmp_path: Path
) -> None:
    head, *rows = write_columns(tmp_path, {"c1": written, "c2": [""] * 4})
    assert [row[head.index("c1")] for row in rows] == worth
    assert sum(value or 0 for value in worth) != 0


@pytest.mark.parametrize(
    "written",
    [
        ["007", "12", "13", "14"],  # ids
        ["12.500", "8.750", "950", "3"],  # twelve and a half, or twelve thousand five hundred
        ["12.500", "7.5", "1.234.567", "3"],  # both
        ["12.500", "7,5", "1,234,567", "3"],  # nothing is said of points
        ["1.234½", "12.500", "2", "3"],  # a half shows nothing of points
        ["12/05/2024", "1", "2", "3"],
        ["1/2", "1", "2", "3"],
        ["9:30", "1", "2", "3"],
        ["12.05.2024", "1", "2", "3"],
        ["12.05.", "1", "2", "3"],
        ["2024-05-12", "1", "2", "3"],
        ["1234567890123456", "1", "2", "3"],
    ],
)
def test_a_column_with_another_value_stays_text(written: list[str | None], tmp_path: Path) -> None:
    head, *rows = write_columns(tmp_path, {"c1": written, "c2": ["1", "2", "3", "4"]})
    assert [row[head.index("c1")] for row in rows] == written
    assert sum(row[head.index("c2")] for row in rows) == 10


@pytest.mark.parametrize("known", ['allowed = "ids.txt"', 'pattern = "time"', 'pattern = "date"'])
def test_what_the_form_calls_ids_dates_or_times_stays_text(known: str, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("1\n2\n3\n4\n")
    columns: dict[str, list[str | None]] = {"c1": ["1", "2", "3", "4"], "c2": ["4", "3", "2", "1"]}
    _, *rows = write_columns(tmp_path, columns, known)
    assert [row[2] for row in rows] == columns["c1"]


def test_a_csv_has_all_as_it_is_written(tmp_path: Path) -> None:
    columns: dict[str, list[str | None]] = {"c1": ["1.50"] * 4, "c2": ["12"] * 4}
    assert write_columns(tmp_path, columns, suffix=".csv")[1][2:4] == ['"1.50"', '"12"']
