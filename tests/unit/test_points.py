"""Points by a key: in the wide table, on the page of results, and what is wrong with a key."""

import re
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
from PIL import Image

from digitq.protocol.asked.form import read_form
from digitq.protocol.chunk import FORM_SCHEMA
from digitq.protocol.formats.csv_rows import open_rows
from digitq.protocol.origin import Origin
from tests.unit.test_reports import run, write_corrections
from tests.unit.test_results import write

FORM = """
blank = "blank.png"
[fields.version]
box = [0, 0, 9, 9]
[fields.n1]
box = [0, 10, 9, 19]
[choices.q]
options = ["A", "B", "C"]
box = [20, 0, 90, 60]
rows = 3
[choices.m]
options = ["A", "B", "C"]
box = [20, 70, 90, 80]
many = true
[tables.t]
box = [100, 0, 190, 90]
rows = 2
columns = ["c"]
"""
PLACES = ["version", "n1", "q1", "q2", "q3", "m", "t/1/c", "t/2/c"]
KEY = """
[key]
wrong = -0.1
several = -0.2
[key.answers]
q1 = "A"
q2 = ["B", "C"]
q3 = "C"
m = "C, A"
n1 = 17
"t/1/c" = "12.50"
"""
Page = dict[str, str]  # what is read in each place; "?" after it is to review, "!" is an error


@pytest.fixture
def form(tmp_path: Path) -> Path:
    Image.new("L", (200, 100)).save(tmp_path / "blank.png")
    (tmp_path / "form.toml").write_text(FORM)
    return tmp_path / "form.toml"


def write_pages(form: Path, *pages: Page) -> Path:
    out, rows = form.with_name("out.jsonl"), list[dict[str, Any]]()
    for at, page in enumerate(pages):
        for place in PLACES:
            *_, row, field = ["", *place.split("/")]
            text = page.get(place, "")
            rows.append(
                {"id": f"{at}.png/{place}", "page": f"{at}.png", "field": field}
                | {"row": int(row) if row else None, "confidence": 0.9, "alternatives": []}
                | {"number": None if text == "!" else text.rstrip("?"), "digits": []}
                | {"error": "page not aligned" if text == "!" else None}
                | {"review": text == "!" or text.endswith("?"), "reason": None}
            )
    write(out, pa.RecordBatch.from_pylist(rows, FORM_SCHEMA), Origin(form=str(form)))
    return out


def read_wide(out: Path, *options: Path | str, suffix: str = ".csv") -> list[dict[str, str]]:
    """The rows of the wide table that are the first of their page."""
    wide = out.with_name(f"wide{suffix}")
    assert run("wide", out, "-o", wide, "--overwrite", *options) == 0
    with open_rows(wide) as rows:
        return [row for row in rows if row["row"] == "1"]


def points_of(*arguments: Any) -> list[tuple[str, str]]:
    return [(row["points"], row["undecided"]) for row in read_wide(*arguments)]


RIGHT = {"q1": "A", "q2": "C", "q3": "C", "m": "A,C", "n1": "17.0", "t/1/c": "12,5", "version": "1"}


@pytest.mark.parametrize(
    ("answers", "points"),
    [
        ({}, ("6", "0")),
        ({"q2": "B"}, ("6", "0")),
        ({"q2": "A", "n1": "18"}, ("3.8", "0")),  # 4 - 0.1 - 0.1 without noise
        ({"m": "A"}, ("4.9", "0")),
        ({"m": "", "q1": ""}, ("4", "0")),
        ({"q1": "A?", "m": "!"}, ("4", "2")),
        (dict.fromkeys(RIGHT, "!"), ("", "6")),
    ],
)
def test_an_answer_gives_its_points(
    answers: Page, points: tuple[str, str], form: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form.write_text(FORM + KEY)
    out = write_pages(form, RIGHT | answers)
    assert points_of(out) == [points]
    assert "1 question has no right answer in the key: t/2/c\n" in capsys.readouterr().err


def test_what_a_person_decides_gives_points(form: Path) -> None:
    form.write_text(FORM + KEY)
    out = write_pages(form, RIGHT | {"q1": "B?", "q2": "A?", "q3": "A?", "n1": "!"}, RIGHT)
    assert points_of(out) == [("2", "4"), ("6", "0")]
    answers = ("0.png/q1", "two marks"), ("0.png/q2", "B"), ("0.png/q3", "illegible")
    answers += ("0.png/n1", "17"), ("1.png/q1", "")
    given = write_corrections(form.with_name("c.csv"), answers, "number")
    final = form.with_name("final.csv")
    form.write_text(form.read_text().replace("q1 =", "q9 ="))
    assert run("correct", out, given, "-o", final) == 2 and not final.exists()
    form.write_text(form.read_text().replace("q9 =", "q1 ="))
    assert run("correct", out, given, "-o", final) == 0
    assert points_of(final) == [("3.7", "0"), ("5", "0")]  # 2 - 0.2 + 1 - 0.1 + 1


def test_points_are_numbers_in_excel(form: Path) -> None:
    form.write_text(FORM + KEY)
    wide = form.with_name("wide.xlsx")
    assert run("wide", write_pages(form, RIGHT | {"q1": "B"}), "-o", wide) == 0
    head, *rows = openpyxl.load_workbook(wide).active.values
    assert [dict(zip(head, row, strict=True))["points"] for row in rows] == [4.9, 4.9]


VERSIONS = """
[key]
[key.answers.1]
q1 = "A"
[key.answers.2]
q1 = "B"
q2 = "B"
"""
TABLE = 'version,field,answer,right,wrong\n1,q1,A,,\n2,q1,B,2.5,\n2,q2,A|B,,"-0,5"\n2,q3,,,\n'


@pytest.mark.parametrize("is_table", [False, True])
def test_a_page_has_the_key_of_its_version(
    is_table: bool, form: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = (
        {"version": "1"},
        {"version": "2.0"},
        {"version": "2"},
        {"version": "3"},
        {"version": "1?"},
    )
    out = write_pages(
        form, *({"q1": "AB"[at % 2], "q2": "C"} | one for at, one in enumerate(pages))
    )
    options = list[str | Path]()
    if is_table:
        form.with_name("key.csv").write_text(TABLE)
        options = ["--key", form.with_name("key.csv")]
    else:
        form.write_text(FORM + VERSIONS)
    second, third = (("2", "0"), ("-0.5", "0")) if is_table else (("1", "0"), ("0", "0"))
    assert points_of(out, *options) == [("1", "0"), second, third, ("", "2"), ("", "2")]
    said = capsys.readouterr().err
    assert "1 page without points: the key has no version '3'\n" in said
    assert "3 questions have no right answer in the key of version 1: q2, q3, m\n" in said
    assert "2 questions have no right answer in the key of version 2: q3, m\n" in said
    assert "…" not in said


def test_the_page_of_results_shows_points(form: Path) -> None:
    form.write_text(FORM + KEY)
    wrong = {"q1": "B"}
    out = write_pages(form, RIGHT, RIGHT | wrong, RIGHT | wrong, RIGHT | {"q1": "C", "m": "B?"})
    assert run("report", out) == 0
    text = re.sub(r"<[^>]*>", " ", out.with_suffix(".html").read_text())
    assert "3 pages decided, with 5.27 points on average; 1 undecided." in text
    found = re.findall(r"q1 +1 +3 +0 +0 +0 +B \(2\)", text)
    assert found and re.search(r"\bm +3 +0 +0 +0 +1 ", text)
    bars = re.search(r"whole points.*?Pages with", text, re.DOTALL)
    assert bars and re.findall(r"\d+", bars[0]) == ["3", "1", "1", "4", "2", "6", "1"]
    assert "1 question has no right answer in the key: t/2/c" in text


def test_without_a_key_nothing_changes(form: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = write_pages(form, RIGHT)
    assert run("report", out) == 0 and "Points" not in out.with_suffix(".html").read_text()
    assert "points" not in read_wide(out)[0]
    assert "right answer" not in capsys.readouterr().err
    form.write_text(FORM + KEY)
    assert b"wrong" not in read_form(form).encode()  # no key travels


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ('[key.answers]\nq9 = "A"', "key.answers.q9: the form has no field 'q9'"),
        ('[key.answers.1]\nq9 = "A"', "key.answers.1.q9: the form has no field 'q9'"),
        ('[key.answers]\nq1 = "D"', "key.answers.q1: 'D' must be one of A, B, C"),
        ("[key.answers]\nq1 = []", "key.answers.q1: '[]' must be one of A, B, C"),
        ('[key.answers]\nq1 = "A,B"', "key.answers.q1: 'A,B' must be one of A, B, C"),
        ('[key.answers]\nm = "A,D"', "key.answers.m: 'A,D' must be one of A, B, C, or several"),
        (
            '[key]\nworng = 1\n[key.answers]\nq1 = "A"',
            "key.worng: a key has right, wrong, empty",
        ),
        ('[key]\nwrong = "x"\n[key.answers]\nq1 = "A"', "key.wrong: 'x' is no number of points"),
        ('[key]\nwrong = nan\n[key.answers]\nq1 = "A"', "key.wrong: nan is no number of points"),
        ('[key]\nversion = "v"\n[key.answers.1]\nq1 = "A"', "key.version: the form has no field"),
        (
            '[key]\nversion = 1\n[key.answers.1]\nq1 = "A"',
            "key.version: a key has right, wrong",
        ),
        (
            '[key]\nversion = "q2"\n[key.answers.1]\nq1 = "A"',
            "key.version: '1' must be one of A, B",
        ),
        (
            '[key]\nversion = "q2"\n[key.answers]\nq1 = "A"',
            "key.version: '' must be one of A, B, C",
        ),
        ("[key]\nwrong = 1", "key: give right answers, either in `answers` or in a `file`"),
        ("[key]\nfile = 'key.csv'", "line 3 of {folder}/key.csv: 'q1' is in the key twice"),
        ("[key]\nfile = 'none.csv'", "can't read {folder}/none.csv"),
        ("[key]\nfile = 'odd.csv'", "{folder}/odd.csv: 'points' is none of the columns version"),
        ("[key]\nfile = 'sum.csv'", "line 2 of {folder}/sum.csv: right: 'one' is no number of"),
        ("[key]\nfile = 'cell.csv'", "line 2 of {folder}/cell.csv: the form has no field 't/3/c'"),
        ("[key]\nfile = 'empty.csv'", "key: give right answers"),
    ],
)
def test_what_is_wrong_with_a_key_is_told(
    key: str, message: str, form: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {"key": "field,answer\nq1,A\nq1,B\n", "odd": "field,answer,points\nq1,A,1\n"}
    tables |= {"sum": "field,answer,right\nq1,A,one\n", "empty": "field,answer\nq1,\n"}
    tables |= {"cell": "table,row,field,answer\nt,3,c,1\n"}
    for name, text in tables.items():
        form.with_name(f"{name}.csv").write_text(text)
    form.write_text(f"{FORM}\n{key}\n")
    assert run("wide", write_pages(form, RIGHT)) == 2
    said = capsys.readouterr().err
    assert f"{form}: {message.format(folder=form.parent)}" in said and said.count("\n") == 1


def test_a_field_can_t_have_the_name_of_a_column_of_points(
    form: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form.write_text(FORM.replace('"c"', '"points"') + '[key.answers]\nq1 = "A"\n')
    assert run("wide", write_pages(form, RIGHT)) == 2
    assert "key: the wide table needs the name 'points'" in capsys.readouterr().err


def test_a_key_needs_a_form_and_a_place_for_points(
    form: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, out = form.with_name("key.csv"), write_pages(form, RIGHT)
    key.write_text("field,answer\nq9,A\n")
    classify = [
        "classify",
        form.parent,
        "--form",
        form,
        "-o",
        form.with_name("o.csv"),
        "--key",
        key,
    ]
    for command, message in (
        (["report", out, "--key", key, "-o", form.with_name("o.xlsx")], "are parts of a page"),
        (classify, "--key gives points in --wide or a page of --report"),
        ([*classify, "--wide"], f"{form}: line 2 of {key}: the form has no field 'q9'"),
    ):
        assert run(*command) == 2
        assert message in capsys.readouterr().err
    form.unlink()
    for name in ("wide", "report"):
        assert run(name, out, "--key", key) == 2
        assert "has no form on record that can be read" in capsys.readouterr().err
