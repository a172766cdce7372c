"""Excel files: lists that a person made, and results that stay text."""

import gc
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, time
from pathlib import Path

import openpyxl
import pyarrow as pa
import pytest

from digitq.producer.sinks import workbook
from digitq.producer.sinks.resumable import FileSink
from digitq.producer.sinks.workbook import write_workbook
from digitq.producer.sources.truth import read_truths
from digitq.protocol.asked.known import read_allowed
from digitq.protocol.chunk import NUMBER_SCHEMA
from digitq.protocol.errors import UsageError


def write_sheets(path: Path, **sheets: list[list[object]]) -> Path:
    """An Excel file with these rows."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def store_values(path: Path, formula: str, value: str) -> None:
    """Put a value beside each such formula, as Excel does."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    old, new = (f"<f>{formula}</f><v{end}" for end in (" />", f">{value}</v>"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.replace(old.encode(), new.encode()))


def test_allowed_numbers_in_a_sheet(tmp_path: Path) -> None:
    """A blank sheet does not count, nor a blank row; a number is what Excel shows."""
    rows = [["name", "Student"], ["Ada", "007"], [], ["Bob", 12], ["Cy", 12.5], ["Di", None]]
    path = write_sheets(tmp_path / "ids.xlsx", Sheet1=rows, Sheet2=[])
    assert read_allowed(f"{path}:student") == ["007", "12", "12.5"]
    book = openpyxl.load_workbook(path)
    book["Sheet1"]["B4"].number_format = "00000"
    book["Sheet1"]["B5"].number_format, book["Sheet1"]["B5"].value = "0.0%", 0.07
    book.save(path)
    assert read_allowed(f"{path}:Student") == ["007", "00012", "7%"]


def test_formulas_count_as_their_values(tmp_path: Path) -> None:
    path = write_sheets(tmp_path / "ids.xlsx", A=[["id", "number"], ["a.png", "=1+1"]])
    with pytest.raises(UsageError, match="a formula without a value in row 2 of the sheet A: open"):
        read_truths(path)
    store_values(path, "1+1", "2")
    assert read_truths(path) == {"a.png": "2"}


def test_right_answers_are_in_the_sheet_and_the_column_that_are_named(tmp_path: Path) -> None:
    rows = [["id", "label", "second hand"], ["a.png", 7, 1], ["b.png", 8, None]]
    path = write_sheets(tmp_path / "t.xlsx", May=[["id"]], **{"Jun 1": rows})
    assert read_truths(Path(f"{path}:Jun 1!second hand")) == {"a.png": "1"}
    table = tmp_path / "t.csv"
    table.write_text("id,label,Mine\na.png,7,1\nb.png,8,\n")
    assert read_truths(Path(f"{table}:mine")) == {"a.png": "1"}
    assert read_truths(table) == {"a.png": "7", "b.png": "8"}
    with pytest.raises(UsageError, match="none of these names of columns: yours"):
        read_truths(Path(f"{table}:yours"))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("ids.xlsx", r"name the column, as in 'ids.xlsx:COLUMN'; it has id, label$"),
        ("ids.xlsx:gone", "none of these names of columns: gone; it has id, label"),
        (
            "many.xlsx:id",
            r"many.xlsx has 50 sheets with cells \(s0, s1, .*\): name the sheet and the column, as "
            "in 'many.xlsx:s0!COLUMN'",
        ),
        ("many.xlsx:s50!id", r"many.xlsx has 50 sheets with cells \(s0, s1, .*\): name the sheet"),
        ("empty.xlsx:id", "empty.xlsx has no sheet with cells in its first row"),
        ("password.xlsx:id", "password.xlsx has a password, or is an old .xls: save it as .xlsx"),
        ("damaged.xlsx:id", "can't read damaged.xlsx: it is no .xlsx, or damaged: File is not a"),
        ("gone.xlsx:id", "can't read gone.xlsx: No such file"),
        ("odd.xlsx:date", r"has '2024-05-12 00:00:00 \(a date or a time\)' in the column date"),
        ("odd.xlsx:time", r"has '09:15:00 \(a date or a time\)' in the column time"),
        ("odd.xlsx:long", r"has '1.23456789012346e\+19' in the column long"),
    ],
)
def test_a_sheet_that_has_no_allowed_numbers(
    where: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = where.partition(":")[0]
    sheets: dict[str, dict[str, list[list[object]]]] = {
        "ids.xlsx": {"A": [["id", "label"], ["a", "1"]]},
        "many.xlsx": {f"s{n}": [["id"]] for n in range(50)},
        "empty.xlsx": {"A": []},
        "odd.xlsx": {
            "A": [
                ["date", "time", "long"],
                [datetime(2024, 5, 12), time(9, 15), 12345678901234567890],
            ]
        },
    }
    contents = {"password.xlsx": bytes.fromhex("d0cf11e0a1b11ae1"), "damaged.xlsx": b"PK\x03\x04"}
    if name in sheets:
        write_sheets(Path(name), **sheets[name])
    elif name in contents:
        Path(name).write_bytes(contents[name])
    with pytest.raises(UsageError, match=message):
        read_allowed(where)


TEXTS = ["00123", "=1+1", "12/05", "1e5", "#N/A", " x ", "a\x01\rb", "TRUE", "-", "'1", "é\n"]


def test_text_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that have no room in a sheet are in another one."""
    monkeypatch.setattr(workbook, "MAX_SHEET_ROWS", 5)
    rows = [
        {"id": id, "number": "007", "confidence": 0.1, "review": False, "digits": []}
        for id in TEXTS
    ]
    out = tmp_path / "out.xlsx"
    with closing(FileSink(out, {})) as sink:
        sink.write(pa.RecordBatch.from_pylist(rows, NUMBER_SCHEMA))
        sink.finish("number")
    book = openpyxl.load_workbook(out)
    cells = [row for sheet in book for row in sheet.iter_rows(min_row=2)]
    assert [len([*sheet.rows]) for sheet in book] == [5, 5, 4]
    shown = [text.replace("\x01\r", r"\x01\r") for text in TEXTS]
    assert [row[0].value for row in cells] == shown
    assert {(row[0].data_type, row[0].number_format) for row in cells} == {("s", "@")}
    assert [cells[0][n].value for n in (1, 2, 4)] == ["007", 0.1, False]


def test_the_name_of_a_column_is_no_formula(tmp_path: Path) -> None:
    batch = pa.record_batch({"page": ["1.png"], "=1+1": ["A"]})
    write_workbook([batch], str(tmp_path / "out.xlsx"))
    head, _ = openpyxl.load_workbook(tmp_path / "out.xlsx").active.rows
    assert [(cell.value, cell.data_type) for cell in head] == [("page", "s"), ("=1+1", "s")]


def test_rows_that_are_torn_leave_no_sheet_open(tmp_path: Path) -> None:
    def tear() -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pylist([{"id": "a", "review": False}], NUMBER_SCHEMA)
        raise UsageError("torn")

    with pytest.raises(UsageError, match="torn"):
        workbook.write_workbook(tear(), str(tmp_path / "out.xlsx"))
    gc.collect()  # a sheet that is open complains here


def test_without_openpyxl_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UsageError, match=r"run `pip install 'digitq\[excel\]'`"):
        FileSink(tmp_path / "out.xlsx", {})
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"openpyxl, which .xlsx needs, is not installed"):
        read_allowed(f"{tmp_path}/a.xlsx:id")
