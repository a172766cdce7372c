"""Lists of people: their names in the wide table and on the page, and what is wrong with a list."""

import re
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
from PIL import Image

from digitq.producer.sinks.workbook import write_workbook
from digitq.protocol.asked.form import read_form
from digitq.protocol.chunk import FORM_SCHEMA
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import open_rows
from digitq.protocol.origin import Origin
from tests.unit.test_reports import run, write_corrections
from tests.unit.test_results import write

CLASS = "id,name,group\n1007,Ada <i>,2\n1012,Ben,2\n1019,Cleo,\n1023,Dan,3\n,,\n"
FORM = """
blank = "blank.png"
[fields.id]
box = [0, 0, 9, 9]
allowed = "class.csv:ID"
show = ["name", "group"]
[fields.total]
box = [0, 0, 9, 9]
"""


@pytest.fixture
def form(tmp_path: Path) -> Path:
    Image.new("L", (9, 9)).save(tmp_path / "blank.png")
    (tmp_path / "class.csv").write_text(CLASS)
    (tmp_path / "form.toml").write_text(FORM)
    return tmp_path / "form.toml"


def write_pages(form: Path, *ids: str | None, unsure: str = "") -> Path:
    """The results of pages `0.png` and so on, on which these ids are written."""
    out, rows = form.with_name("out.jsonl"), list[dict[str, Any]]()
    for page, id in enumerate(ids):
        reason = "unsure" if id == unsure else None if id else "error"
        for field, number in (("id", id), ("total", "12")):
            place = {"page": f"{page}.png", "field": field, "number": number, "confidence": 0.99}
            marked = {"review": field == "id" and bool(reason), "reason": reason, "digits": []}
            other = [{"number": "1023", "probability": 0.1}] if field == "id" and reason else []
            error = None if number else "page not aligned"
            rows.append(
                {"id": f"{page}.png/{field}", **place, **marked, "alternatives": other}
                | {"error": error}
            )
    write(out, pa.RecordBatch.from_pylist(rows, FORM_SCHEMA), Origin(form=str(form)))
    return out


def read_rows(path: Path) -> list[list[str]]:
    with open_rows(path) as found:
        return [found.fieldnames, *([cell or "" for cell in row.values()] for row in found)]


def test_a_name_with_a_comma_or_like_a_formula_shifts_no_column(form: Path) -> None:
    people = CLASS.replace("Ada <i>", "=1+1").replace("name", '"name, first"')
    form.with_name("class.csv").write_text(people)
    form.write_text(FORM.replace('"name"', '"name, first"'))
    out, wide = write_pages(form, "1007"), form.with_name("wide.csv")
    assert run("wide", out, "-o", wide) == 0
    head, row = read_rows(wide)
    named = dict(zip(head, row, strict=True))
    assert named["id"] == "1007" and named["name, first"] == "'=1+1"


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_names_are_in_the_wide_table_and_on_the_page_but_do_not_travel(
    suffix: str, form: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert b"Ada" not in read_form(form).encode()
    out, wide = write_pages(form, "1007", "1012", unsure="1012"), form.with_name(f"w{suffix}")
    assert run("wide", out, "-o", wide) == 0
    head = ["page", "id", "name", "group", "total", "review"]
    ada = ["0.png", "1007", "Ada <i>", "2", "12", ""]
    assert read_rows(wide) == [head, ada, ["1.png", "1012", "Ben", "2", "12", "id"]]
    assert run("report", out) == 0
    page = out.with_suffix(".html").read_text()
    assert ">Ben 2<" in page and ">Dan 3<" in page
    corrections = write_corrections(form.with_name("c.csv"), [("1.png/id", "1019")], "number")
    assert run("correct", out, corrections, "-o", form.with_name("final.jsonl")) == 0
    assert run("wide", form.with_name("final.jsonl"), "-o", wide, "--overwrite") == 0
    assert read_rows(wide)[2] == ["1.png", "1019", "Cleo", "", "12", ""]
    if suffix == ".xlsx":  # what a list says stays text
        assert openpyxl.load_workbook(wide).active["D2"].value == "2"


def test_a_list_that_is_gone_is_told(form: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, wide, listed = (
        write_pages(form, "1007"),
        form.with_name("w.csv"),
        form.parent / "class.csv",
    )
    listed.unlink()
    assert run("report", out) == run("wide", out, "-o", wide) == 0
    for text in (capsys.readouterr().err, out.with_suffix(".html").read_text()):
        assert "places, rules and names are not shown: " in text and "can" in text
    assert read_rows(wide) == [["page", "id", "total", "review"], ["0.png", "1007", "12", ""]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"name"', '"nam"', "fields.id: .*class.csv has none of .*: nam; it has id, name, group"),
        ('"name"', '"id"', "show: 'id' is the name of two columns: rename this one"),
        ('"name"', '"page"', "fields.id.show.1: 'page': a column of results has this name"),
        ('["name", "group"]', '"name"', "fields.id.show: 'name': Input should be a valid list"),
        ('allowed = "class.csv:ID"', "", "fields.id: `show` needs a list: allowed"),
        (
            "class.csv:ID",
            "ids.txt",
            "fields.id: name the column, as in .*ids.txt:COLUMN'; it has 1",
        ),
        ("class.csv", "book.xlsx", "fields.id: line 4 of .*book.xlsx has 1007 again, with other"),
    ],
)
def test_what_is_wrong_with_show_is_told(old: str, new: str, message: str, form: Path) -> None:
    (form.parent / "ids.txt").write_text("1007\n")
    names = pa.record_batch(
        {"ID": ["1007", "1007", "1007"], "name": ["Ada", "Ada", "Eve"], "group": ["", "", ""]}
    )
    with open(form.parent / "book.xlsx", "wb") as file:
        write_workbook(iter([names]), file)
    form.write_text(FORM.replace(old, new))
    with pytest.raises(UsageError, match=re.escape(f"{form}: ") + message):
        read_form(form)


def test_who_is_missing_or_occurs_twice_is_told_and_marked(
    form: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = write_pages(form, "1007", "1019", "1007", "9999", None, "1023", unsure="1023")
    told = [
        "id: 1 of 4 in class.csv read on no page: 1012 Ben 2",
        "id: 1 of 4 in class.csv read on several pages, all to review: "
        "1007 Ada <i> 2 (0.png, 2.png)",
        "id: 2 pages without a number of class.csv: 3.png, 4.png",
    ]
    wide, page = form.with_name("wide.csv"), out.with_suffix(".html")
    assert run("wide", out, "-o", wide) == 0
    assert capsys.readouterr().err.splitlines()[1:] == told
    assert [row[-1] for row in read_rows(wide)[1:]] == ["id", "", "id", "", "id", "id"]
    assert run("report", out) == 0
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.endswith("12 fields, 1 with an error, 3 more to review") and lines[:3] == told
    text = page.read_text()
    assert told[0] in text and ">occurs twice <small>" in text
    answers = [("2.png/id", "1012"), ("5.png/id", "1023")]
    corrections = write_corrections(form.with_name("c.csv"), answers, "number")
    assert run("correct", out, corrections, "-o", form.with_name("final.csv")) == 0
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"the rows are in {form.with_name('final.csv')}",
        told[2],
    ]


def test_a_column_of_a_table_may_have_a_list_of_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "class.csv").write_text(CLASS)
    form, out = tmp_path / "form.toml", tmp_path / "out.csv"
    form.write_text(
        'align = "lines"\n[tables.marks]\nrows = "1-3"\nhead = 0\ncolumns = ["points", '
        '{name = "id", allowed = "class.csv:id", show = ["name"]}]\n'
    )
    rows = [
        {"id": f"0.png/marks/{row}/{field}", "page": "0.png", "row": row, "field": field}
        | {"number": number, "review": False}
        for row in (1, 2)
        for field, number in (("points", "9"), ("id", "1007"))
    ]
    write(out, pa.RecordBatch.from_pylist(rows, FORM_SCHEMA), Origin(form=str(form)))
    assert run("wide", out, "-o", tmp_path / "wide.csv") == 0
    assert len(capsys.readouterr().err.splitlines()) == 1  # several rows may have a number
    assert read_rows(tmp_path / "wide.csv") == [
        ["page", "row", "points", "id", "name", "review"],
        *(["0.png", str(row), "9", "1007", "Ada <i>", ""] for row in (1, 2)),
    ]
