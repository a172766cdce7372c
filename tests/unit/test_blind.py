"""What people read blind: which rows the page has, what it keeps to itself, and their files."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from digitq.producer.results import blind_path, open_results
from digitq.protocol.chunk import CORRECTED, FORM_SCHEMA, NUMBER_TRUTH
from digitq.protocol.errors import UsageError
from digitq.protocol.origin import Origin
from digitq.review.page import make_blind_page
from digitq.review.survey import choose_rows
from tests.unit.test_compare import marks_of, write_numbers
from tests.unit.test_people import CLASS
from tests.unit.test_reports import run, write_corrections
from tests.unit.test_results import write

FORM = """
blank = "blank.png"
[fields.id]
box = [0, 0, 90, 30]
allowed = "class.csv:ID"
show = ["name"]
[fields.total]
box = [0, 30, 90, 60]
length = "3-6"
[tables.marks]
box = [0, 60, 90, 99]
rows = 1
columns = ["points"]
[[checks]]
rule = "points == total"
"""
NUMBERS = ["1007", "84372619", "55192837"]


def write_page(folder: Path, *, review: bool = True) -> Path:
    """Results of two pages with all that a person who reads blind must not see."""
    Image.new("L", (100, 100), 255).save(folder / "blank.png")
    (folder / "class.csv").write_text(CLASS)
    (folder / "form.toml").write_text(FORM)
    rows = [
        {"id": f"{page}/{id}", "page": page, "field": field, "row": row, "number": number}
        | {"confidence": 0.4242, "review": review, "reason": "check failed", "truth": "66201938"}
        | {"alternatives": [{"number": "77312049", "probability": 0.31}], "corrected": False}
        | {"readings": '{"digitq": "1007", "Eve": "99423150"}'}
        for page in ("secret1007.png", "secret84372619.png")
        for (id, field, row), number in zip(
            [("id", "id", None), ("total", "total", None), ("marks/1/points", "points", 1)],
            NUMBERS,
            strict=True,
        )
    ]
    schema = FORM_SCHEMA.append(NUMBER_TRUTH).append(CORRECTED)
    schema = schema.append(pa.field("readings", pa.string()))
    origin = Origin(form=str(folder / "form.toml"))
    write(folder / "results.parquet", pa.RecordBatch.from_pylist(rows, schema), origin)
    return folder / "results.parquet"


def test_the_page_has_nothing_of_an_answer(tmp_path: Path) -> None:
    page = make_blind_page(open_results(write_page(tmp_path)), (), 0, False)
    assert page.lines[0] == "6 of 6 fields to read"
    shown = re.sub(r"<(style|script)>.*?</\1>", "", page.text, flags=re.DOTALL)
    secrets = [*NUMBERS, "66201938", "77312049", "99423150", "Eve", "42.42", "31", "Ada", "secret"]
    assert not [secret for secret in secrets if secret in shown]
    assert not re.search('data-(answer|rules)|check failed|==|occurs|truth=.[^"]', shown)
    assert [image.id for image in page.images] == [*"123456"]
    assert "page 1" in shown and "page 2" in shown and "3 to 6 digits" in shown
    assert "one of 4 in a list" in shown and "marks/1" in shown
    twice = make_blind_page(open_results(write_page(tmp_path, review=False)), (), 0, False)
    assert twice.lines[0] == "2 of 2 fields to read"  # both pages are of the same person


def test_a_sample_is_of_all_rows_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "results.csv", **{f"n{at}": str(at) for at in range(200)})
    (rows,) = open_results(path).batches()
    drawn, count = choose_rows([rows], 50, False)
    numbers = [number for number, _ in drawn]
    assert count == 200 and len({*numbers}) == 50 and numbers == sorted(numbers)
    assert max(numbers) > 150 and drawn[0][1] == {"id": f"n{numbers[0]}.png"}
    assert choose_rows([rows.slice(at, 7) for at in range(0, 200, 7)], 50, False) == (drawn, 200)
    assert choose_rows([rows], 0, False) == ([(0, {"id": "n0.png"})], 1)
    assert len(choose_rows([rows], 0, True)[0]) == 200


def test_what_people_read_is_laid_over_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_numbers(tmp_path / "out[1].csv", a="17", b="18", c="19")
    write_numbers(tmp_path / "out1.csv", a="1")  # other results
    blind_path(results, "AB").write_text('id,number,sample\r\n"a.png","17.0",\r\nb.png,,\n')
    blind_path(results, "ç_1").write_text("id,number\na.png,17\n")
    blind_path(tmp_path / "out1.csv", "CD").write_text("id,number\na.png,5\n")
    readers = {"digitq": "17", "AB": "17.0", "ç_1": "17"}
    assert marks_of(results) == {
        "a": (False, None, readers),
        "b": (True, "two readings", {"digitq": "18", "AB": ""}),
        "c": (False, None, None),
    }
    other = tmp_path / "other.csv"
    other.write_text("id,number\na.png,17\nc.png,20\n")
    assert run("compare", results, other, "-o", tmp_path / "both.csv") == 0
    both = marks_of(tmp_path / "both.csv")
    assert both["a"] == (False, None, readers | {"other.csv": "17"})
    assert [both[id][0] for id in "bc"] == [True, True]
    # A file beside it that has the same stem has the same readers: nothing is laid twice
    answers = write_corrections(tmp_path / "c.csv", [("b.png", "18")], "number")
    assert run("correct", results, answers, "-o", tmp_path / "out[1].jsonl") == 0
    assert marks_of(tmp_path / "out[1].jsonl")["b"][:2] == (False, None)


def test_files_of_readers_that_do_not_go_with_the_results_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_numbers(tmp_path / "results.csv", a="17", b="18")
    path = blind_path(results, "AB")
    path.write_text("id,number\na.png,one\n")
    with pytest.raises(UsageError, match="line 2 of .*blind-AB.csv has the number 'one' for a.png"):
        open_results(results)
    path.write_text("id,number\na.png,1\n")
    os.utime(path, (0, 0))
    with pytest.raises(UsageError, match="blind-AB.csv is older than the results"):
        open_results(results)
    os.utime(path)
    drawn = tmp_path / "c.csv"
    drawn.write_text("id,number,sample\nb.png,18,1\n")
    os.utime(drawn, (0, 0))
    assert run("correct", results, drawn, "-o", tmp_path / "final.csv") == 2
    assert "was drawn before others read the rows" in capsys.readouterr().err
    assert run("review", results, "--all") == run("review", results, "--blind", "--all",
        "--sample", "3") == 2  # fmt: skip
    assert capsys.readouterr().err.count("--all goes with --blind, and without --sample") == 2


def test_a_form_that_is_gone_leaves_only_equal_texts_alike(tmp_path: Path) -> None:
    results = write_page(tmp_path)
    assert open_results(results).is_text("p.png/id") and not open_results(results).is_text(
        "p.png/marks/7/points"
    )
    (tmp_path / "form.toml").unlink()
    assert open_results(results).is_text("p.png/marks/1/points")
    numbers = open_results(write_numbers(tmp_path / "n.csv", a="1"))
    assert numbers.record and not numbers.is_text("a.png")
    assert replace(numbers, record=replace(numbers.record, pattern="date")).is_text("a.png")
