"""Lists of people: their names in the wide table and on the page, and what is wrong with a list."""

import os
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
    for text in (">Ben, 2<", ">Dan, 3<", '<option value="1007">Ada &lt;i&gt;, 2</option>'):
        assert text in page
    corrections = write_corrections(form.with_name("c.csv"), [("1.png/id", "1019")], "number")
    assert run("correct", out, corrections, "-o", form.with_name("final.jsonl")) == 0
    assert run("wide", form.with_name("final.jsonl"), "-o", wide, "--overwrite") == 0
    assert read_rows(wide)[2] == ["1.png", "1019", "Cleo", "", "12", ""]
    if suffix == ".xlsx":  # what a list says stays text
        assert openpyxl.load_workbook(wide).active["D2"].value == "2"


def test_names_of_several_fields_are_told_apart(form: Path) -> None:
    form.write_text(FORM.replace('"name", "group"', '"name"') + 'allowed = "class.csv:id"\n')
    form.write_text(form.read_text() + 'show = ["name"]\n')
    wide = form.with_name("wide.csv")
    assert run("wide", write_pages(form, "1007"), "-o", wide) == 0
    head, row = read_rows(wide)
    assert head == ["page", "id", "id name", "total", "total name", "review"]
    assert row[2:] == ["Ada <i>", "12", "", ""]  # 12 is not in the list


def test_a_list_that_is_changed_or_gone_is_told(
    form: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, wide, listed = (
        write_pages(form, "1007"),
        form.with_name("w.csv"),
        form.parent / "class.csv",
    )
    os.utime(listed, (4e9, 4e9))
    assert run("wide", out, "-o", wide) == 0
    assert "class.csv:ID may have changed since the pages were read" in capsys.readouterr().err
    listed.unlink()
    assert run("report", out) == run("wide", out, "-o", wide, "--overwrite") == 0
    for text in (capsys.readouterr().err, out.with_suffix(".html").read_text()):
        assert "name, group of class.csv:ID not shown: can" in text
    assert read_rows(wide) == [
        ["page", "id", "name", "group", "total", "review"],
        ["0.png", "1007", "", "", "12", ""],
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"name"', '"nam"', ": .*class.csv has no column 'nam'; it has id, name, group"),
        ('"name"', '"total"', ".show: the wide table has a column 'total' already: rename it in"),
        ('"name"', '"page"', ".show: the wide table has a column 'page' already: rename it in"),
        ('"name"', '"group"', ".show: .*there must be a name, and none twice"),
        ('["name", "group"]', '"name"', ".show: 'name': Input should be a valid list"),
        ('allowed = "class.csv:ID"', "", ": `show` needs the table that has its columns: allowed"),
        ("class.csv:ID", "ids.txt", ": `show` names columns beside .*, but allowed is 'ids.txt'"),
        ("class.csv", "book.xlsx", ": lines 2 and 4 of .*book.xlsx have 1007 with different cells"),
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
    with pytest.raises(UsageError, match=re.escape(f"{form}: fields.id") + message):
        read_form(form)
