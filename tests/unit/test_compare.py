"""Rows that several readers have read: what agrees, what `compare` says and writes, bad input."""

import csv
import json
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
from PIL import Image

from digitq.producer.readers import agree, lay_readings
from digitq.producer.results import open_results
from digitq.protocol.asked.sample import bound_count, show_bound
from digitq.protocol.chunk import CORRECTED, FORM_SCHEMA, NUMBER_SCHEMA, NUMBER_TRUTH
from digitq.protocol.errors import UsageError
from digitq.protocol.origin import Origin
from tests.unit.test_people import read_rows
from tests.unit.test_reports import rows_of, run, write_corrections
from tests.unit.test_results import SUFFIXES, digit_rows, write

FORM = """
blank = "blank.png"
[fields.day]
box = [0, 0, 90, 30]
pattern = "date"
[tables.sheep]
box = [0, 40, 90, 90]
rows = 2
columns = ["code", "kg"]
[tables.goats]
box = [0, 100, 90, 190]
rows = 2
columns = ["kg", {name = "sex", kind = "mark"}]
"""


def make_row(id: str, number: str | None, reason: str | None = None) -> dict[str, Any]:
    error = None if number is not None else "the file is empty"
    return {"id": id, "number": number, "confidence": 0.9, "error": error} | {
        "review": bool(reason or error),
        "reason": "error" if error else reason,
    }


def write_numbers(path: Path, **numbers: str | None) -> Path:
    """Results of `a.png` and so on; the first is marked."""
    rows = [
        make_row(f"{name}.png", one, None if at else "unsure")
        for at, (name, one) in enumerate(numbers.items())
    ]
    write(path, pa.RecordBatch.from_pylist(rows, NUMBER_SCHEMA))
    return path


def marks_of(path: Path) -> dict[str, tuple[bool, str | None, dict[str, str] | None]]:
    """What is marked and why, and the readings, by the name of the row."""
    return {
        row["id"].removesuffix(".png"): (
            row["review"],
            row["reason"],
            row["readings"] and json.loads(row["readings"]),
        )
        for row in rows_of(path)
    }


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("17", "17.0", True),
        ("½", ".5", True),
        ("1,234.50", "1234.5", True),
        ("-3", "-3.00", True),
        ("17", "18", False),
        ("007", "7", False),
        ("007", "007", True),
        ("12.500", "12,500", True),  # both are twelve and a half, or a thousand times as much
        ("12.500", "12500", False),
        ("12.500", "12.5", False),
        ("", "0", False),
        ("", "", True),
        ("3/4", "0.75", False),
        ("9:30", "9:30", True),
        ("A", "B", False),
        ("illegible", "illegible", True),
    ],
)
def test_numbers_agree_if_they_are_worth_the_same(one: str, other: str, is_same: bool) -> None:
    assert agree([one, other], False) is agree([other, one], False) is is_same
    assert agree([one, other], True) is (one == other)


def test_what_agrees_is_confirmed_and_what_differs_is_marked() -> None:
    rows = [
        make_row("a", "1", "unsure"),
        make_row("b", "2"),
        make_row("c", None),
        make_row("d", ""),
    ]
    batch = pa.RecordBatch.from_pylist(rows, NUMBER_SCHEMA)
    laid = lay_readings(batch, {"x": {"a": "1", "b": "3", "c": "4"}}, lambda id: False)
    found = laid.select(["number", "error", "review", "reason", "readings"]).to_pylist()
    assert [[*row.values()] for row in found] == [
        ["1", None, False, None, '{"digitq": "1", "x": "1"}'],
        ["2", None, True, "two readings", '{"digitq": "2", "x": "3"}'],
        [None, "the file is empty", True, "error", '{"x": "4"}'],
        ["", None, False, None, None],
    ]
    again = lay_readings(laid, {"x": {"a": "1", "b": "3"}, "y": {"a": "8"}}, lambda id: False)
    assert again["review"].to_pylist() == [True, True, True, False]
    assert again["readings"][0].as_py() == '{"digitq": "1", "x": "1", "y": "8"}'
    # A person has decided since: only what is read after that may differ from it
    number = pa.array(["1", "3", "4", ""])
    decided = again.set_column(1, NUMBER_SCHEMA.field("number"), number).append_column(
        CORRECTED, pa.array([True] * 4)
    )
    decided = decided.set_column(6, decided.schema.field("review"), pa.array([False] * 4))
    same = lay_readings(decided, {"x": {"a": "1", "b": "3"}}, lambda id: False)
    assert same["review"].to_pylist() == [False] * 4
    later = lay_readings(decided, {"z": {"a": "1", "b": "2", "d": "5"}}, lambda id: False)
    assert later["review"].to_pylist() == [False, True, False, True]
    assert later["readings"][3].as_py() == '{"corrected": "", "z": "5"}'


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_tables_become_one_with_both_readings(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, both = tmp_path / "results.csv", tmp_path / f"both{suffix}"
    write_numbers(results, a="17", b="18", c="5", d="", e=None, f="1")
    other = tmp_path / "other.csv"
    other.write_text("file;typed\na.png;17.0\nb.png;=2\nb.png;19\n")
    assert run("compare", results, f"{other}:typed", "-o", both) == 2
    assert f"line 3 of {other} has the number '=2' for b.png" in capsys.readouterr().err
    assert not both.exists()
    other.write_text("file;typed\na.png;17.0\nb.png;19\nd.png;\ne.png;4\nz.png;1\ny.png;1\n\n")
    assert run("compare", results, f"{other}:typed", "-o", both) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[1].split() == ["all", "3", "2", "66.67%", "20.77%", "to", "93.85%"]
    assert sorted(said[2:5]) == [
        "other.csv:typed lacks 2 rows of results.csv: c.png, f.png",
        "results.csv has an error in 1 row of other.csv:typed: e.png",
        "results.csv lacks 2 rows of other.csv:typed: z.png, y.png",
    ]
    assert "can't tell how many errors they share" in said[5]
    assert f"`digitq report {both} --sample 200`" in said[5]
    name = "other.csv:typed"
    assert marks_of(both) == {
        "a": (False, None, {"digitq": "17", name: "17.0"}),
        "b": (True, "two readings", {"digitq": "18", name: "19"}),
        "c": (False, None, None),
        "d": (False, None, {"digitq": "", name: ""}),
        "e": (True, "error", {name: "4"}),
        "f": (False, None, None),
    }
    assert open_results(both).record.counts.review == 1
    assert run("compare", both, f"{other}:typed") == 2
    assert f"has readings of {name} already" in capsys.readouterr().err
    third = write_numbers(tmp_path / f"third{suffix}", a="8", b="19", c="5", e=None)
    assert run("compare", both, third, "-o", tmp_path / "three.csv") == 0
    found = marks_of(tmp_path / "three.csv")
    assert found["a"] == (True, "two readings", {"digitq": "17", name: "17.0", third.name: "8"})
    assert [found[id][0] for id in "bcdef"] == [True, False, False, True, False]
    assert found["e"][2] == {name: "4"}  # the third run had an error, too
    answers = write_corrections(tmp_path / "c.csv", [("b.png", "19")], "number")
    assert run("correct", tmp_path / "three.csv", answers, "-o", tmp_path / "final.jsonl") == 0
    final = rows_of(tmp_path / "final.jsonl")[1]
    assert (final["number"], final["review"], final["corrected"]) == ("19", False, True)
    assert json.loads(final["readings"]) == {"digitq": "18", name: "19", third.name: "19"}


def test_digits_of_an_excel_table_are_compared(tmp_path: Path) -> None:
    write(tmp_path / "out.parquet", digit_rows(["a", "b", "c", "d", "e"]))
    book = openpyxl.Workbook()
    for row in (("id", "digit"), ("a", "2.0"), ("b", 3), ("c", 4), ("d", "illegible")):
        book.active.append(row)
    book.save(tmp_path / "other.xlsx")
    assert run("compare", tmp_path / "out.parquet", tmp_path / "other.xlsx", "-o", "-") == 0
    both = tmp_path / "both.csv"
    assert run("compare", tmp_path / "out.parquet", tmp_path / "other.xlsx", "-o", both) == 0
    assert marks_of(both) == {
        "a": (False, None, {"digitq": "2", "other.xlsx": "2"}),
        "b": (True, "two readings", {"digitq": "2", "other.xlsx": "3"}),
        "c": (True, "error", {"other.xlsx": "4"}),
        "d": (True, "two readings", {"digitq": "2", "other.xlsx": "illegible"}),
        "e": (False, None, None),
    }


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Results of a form with two tables that have a column `kg`."""
    form = tmp_path / "form.toml"
    form.write_text(FORM)
    Image.new("L", (200, 200), 255).save(tmp_path / "blank.png")
    cells = [("day", None, "1.2.2024"), ("code", 1, "17"), ("kg", 1, "17"), ("kg", 2, "12")]
    cells += [("kg", 1, "30"), ("sex", 1, "1")]
    rows = [
        {"page": "p.png", "field": field, "row": row}
        | make_row(f"p.png/{f'{table}/{row}/{field}' if row else field}", number)
        for (field, row, number), table in zip(cells, ["sheep"] * 4 + ["goats"] * 2, strict=True)
    ]
    results = tmp_path / "results.csv"
    write(results, pa.RecordBatch.from_pylist(rows, FORM_SCHEMA), Origin(form=str(form)))
    return results


def test_fields_of_pages_are_matched_and_told_one_by_one(
    pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, both = tmp_path / "other.csv", tmp_path / "both.csv"
    other.write_text(
        "page,table,row,field,number\np.png,,,day,01.02.2024\np.png,sheep,1,code,17.0\n"
        "p.png,sheep,1,kg,17.0\np.png,sheep,2,kg,13\np.png,goats,1,kg,30\np.png,goats,1,sex,1\n"
    )
    assert run("compare", pages, other, "-o", both) == 0
    said = [line.split()[:3] for line in capsys.readouterr().err.splitlines()]
    assert said[1:7] == [
        ["day", "1", "0"],  # a date is its text
        ["sheep/code", "1", "1"],
        ["sheep/kg", "2", "1"],
        ["goats/kg", "1", "1"],
        ["goats/sex", "1", "1"],
        ["all", "6", "4"],
    ]
    assert run("wide", both, "-o", tmp_path / "wide.csv") == 0
    assert [row[-1] for row in read_rows(tmp_path / "wide.csv")[1:]][:2] == ["day", "day, kg"]
    other.write_text("page,row,field,number\np.png,1,code,17\np.png,1,kg,17\n")
    assert run("compare", pages, other) == 2
    assert "needs a column `table`: two tables have a row p.png//1/kg" in capsys.readouterr().err
    other.write_text("page,row,field,number\np.png,1,sex,A\n")
    assert run("compare", pages, other) == 2
    assert "the number 'A' for p.png//1/sex: it must be 1 if it is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,number\nx.png,1\n", "have no row in common: one has x.png, the other a.png, b.png"),
        ("id,number\na.png,1\na.png,1\n", "line 3 of {} has a.png again"),
        ("id,number\n,1\n", "line 2 of {} has no id"),
        (
            "id,number\na.png,one\n",
            "line 2 of {} has the number 'one' for a.png: it must be 1 to 20",
        ),
        ("id,typed\na.png,1\n", "the first line of {} has none of these names of columns: number,"),
        ("", "{} is empty, or its first line is"),
    ],
)
def test_a_table_that_does_not_go_with_the_results_is_told(
    table: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_numbers(tmp_path / "results.csv", a="1", b="2")
    other = tmp_path / "other.csv"
    other.write_text(table)
    assert run("compare", results, other, "-o", tmp_path / "both.csv") == 2
    said = capsys.readouterr().err
    assert message.format(other) in said and len(said.splitlines()) == 1
    assert not (tmp_path / "both.csv").exists()
    assert run("compare", results, f"{other}:no", "-o", tmp_path / "both.csv") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("cell", ["{", "[1]", '{"digitq": 1}', "{}"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_readings_that_are_none_are_told_with_their_row(
    cell: str, suffix: str, tmp_path: Path
) -> None:
    rows = [make_row("a", "1") | {"readings": None}, make_row("b", "2") | {"readings": cell}]
    schema = NUMBER_SCHEMA.append(pa.field("readings", pa.string()))
    write(tmp_path / f"out{suffix}", pa.RecordBatch.from_pylist(rows, schema))
    with pytest.raises(UsageError, match="row 2 of .*: readings .* must be a JSON object from the"):
        rows_of(tmp_path / f"out{suffix}")


def write_many(folder: Path, *, has_truth: bool) -> tuple[Path, Path]:
    """100 rows, of which both readers agree in 80. A tenth is marked, and 3 rows are wrong."""
    rows = [make_row(f"{n}.png", str(n + 1), None if n % 10 else "unsure") for n in range(100)]
    truths = [str(n + 1 + (n in (3, 14, 95))) for n in range(100)]
    batch = pa.RecordBatch.from_pylist(rows, NUMBER_SCHEMA)
    if has_truth:
        batch = batch.append_column(NUMBER_TRUTH, pa.array(truths))
    write(folder / "results.csv", batch)
    with (folder / "other.csv").open("w") as file:
        csv.writer(file).writerows([("id", "number"), *([f"{n}.png", n + 1] for n in range(80))])
    return folder / "results.csv", folder / "other.csv"


def test_right_answers_say_how_many_errors_both_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compare", *write_many(tmp_path, has_truth=True)) == 0
    said = capsys.readouterr().err
    bound = "of 80 unmarked rows in which both agree at most 2.5 % are wrong (95 % confidence; "
    assert bound + "2 of 80 looked at were)" in said


@pytest.mark.parametrize("drawn_from_both", [False, True])
def test_a_sample_says_how_many_errors_both_share(
    drawn_from_both: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, other = write_many(tmp_path, has_truth=False)
    # A page of the results draws no marked row, one of both readings may; the draw has a gap at 43
    drawn = [n for n in range(3, 97) if drawn_from_both or n % 10][:60]
    answers = [(f"{n}.png", str(n + 1 + (n in (3, 14))), at) for at, n in enumerate(drawn, 1)]
    del answers[42]
    with (tmp_path / "c.csv").open("w") as file:
        csv.writer(file).writerows([("id", "number", "sample"), *answers])
    assert run("compare", results, other, "--sample", tmp_path / "c.csv") == 0
    rows = 80 if drawn_from_both else 72
    bound = show_bound(bound_count(2, 42, rows) / rows)
    assert (
        f"of {rows} unmarked rows in which both agree at most {bound} are wrong (95 % confidence; "
        "2 of 42 looked at were)"
    ) in capsys.readouterr().err


def test_the_page_shows_what_each_reader_read(tmp_path: Path) -> None:
    results = write_numbers(tmp_path / "results.csv", a="17", b="18")
    other = tmp_path / "<b>.csv"
    other.write_text("id,number\na.png,77\nb.png,18\n")
    assert run("compare", results, other, "-o", tmp_path / "both.csv") == 0
    assert run("report", tmp_path / "both.csv") == 0
    text = (tmp_path / "both.html").read_text()
    assert 'data-give="77"><small>&lt;b&gt;.csv</small> 77' in text and "<b>.csv" not in text
    assert "two readings <small>another reader has read something else" in text
