"""Rows of pages: a row for each field, which travel together; a page's error, and a field's."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from digitq.commands.evaluate import read_results
from digitq.notebook import Results
from digitq.producer.counts import Counts
from digitq.producer.provenance import Record
from digitq.producer.results import READERS, open_results
from digitq.producer.sinks.encoders import ENCODERS, describe_rows
from digitq.producer.sinks.resumable import FileSink
from digitq.producer.sources.source import Entry, unreadable
from digitq.protocol.asked.form import Cell, Check, Form, read_form
from digitq.protocol.asked.reading import Reading
from digitq.protocol.chunk import FORM_SCHEMA, NO_SUCH_ROW, Chunk, name_rows
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import open_rows
from digitq.protocol.origin import Origin
from digitq.protocol.prediction import to_answers
from digitq.review.page_fields import find_broken_rules
from digitq.review.survey import Survey
from digitq.review.wide import name_wide, write_wide
from digitq.worker import classify
from digitq.worker.classify import classify_chunk
from digitq.worker.picture import ImageError
from digitq.worker.sight.limits import Watch
from digitq.worker.sight.numbers.recognition import SURE_EMPTY, NumberReading
from tests.cutting import cut_items
from tests.reading_numbers import read_text
from tests.unit.test_page_chunks import ANY, CELLS, FORM, make_pages

PAGE = b"1234,40,1,2,3,39"  # what the fields of a page show, in their order
NUMBERS = PAGE.decode().split(",")


def trace_page(content: bytes, form: Form) -> Iterator[list[bytes] | None]:
    yield None
    if not content.lstrip(b"-")[:1].isdigit():
        raise ImageError("page not aligned: another form")
    yield content.split(b",")


def trace_cell(cut: bytes, cell: Cell, content: bytes) -> Iterator[NumberReading]:
    empty = {b"-": 0.9, b"--": 0.6}
    if cut == b"-4":
        yield NumberReading("-4", 0.9, [], [], "")
    elif cut in empty:
        is_fine = cell.optional and empty[cut] > SURE_EMPTY
        yield NumberReading("", empty[cut], [], [], "" if is_fine else "empty")
    else:
        yield read_text(cut, ANY)


@pytest.fixture(autouse=True)
def texts_are_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page says in its bytes what its fields show."""
    monkeypatch.setattr(classify, "trace_page", trace_page)
    monkeypatch.setattr(classify, "trace_cell", trace_cell)
    monkeypatch.setattr(classify, "decide_page", lambda form, cuts, outcomes: outcomes)


def read_pages(*pages: bytes, **others: Any) -> pa.RecordBatch:
    (chunk,) = cut_items(make_pages(*pages), form=FORM)
    return name_rows(classify_chunk(chunk, "number", known=FORM, **others))


def test_a_row_names_its_page_and_field() -> None:
    result = read_pages(PAGE, PAGE)
    assert result.schema.equals(FORM_SCHEMA, check_metadata=False)
    rows = result.to_pylist()
    assert [row["id"] for row in rows] == [f"{n}.png/{cell}" for n in (0, 1) for cell in CELLS]
    assert [row["number"] for row in rows] == NUMBERS * 2
    assert rows[1] | {"page": "0.png", "field": "total", "row": None} == rows[1]
    assert rows[-1] | {"page": "1.png", "field": "c2", "row": 2} == rows[-1]
    assert rows[-1]["reason"] == "unsure"  # 39


def test_a_page_that_cant_be_read_is_an_error_in_each_of_its_rows() -> None:
    result = read_pages(b"a desk", PAGE).to_pylist()
    bad, good = result[: len(CELLS)], result[len(CELLS) :]
    assert {row["error"] for row in bad} == {"page not aligned: another form"}
    assert [row["field"] for row in bad] == [row["field"] for row in good]
    assert [row["number"] for row in good] == NUMBERS


def test_a_field_that_cant_be_read_is_an_error_in_its_row_only() -> None:
    rows = read_pages(PAGE.replace(b",2,", b",two,")).to_pylist()
    errors = [row["error"] for row in rows]
    assert errors == [None] * 3 + ["no number is in the image"] + [None] * 2
    assert rows[3]["reason"] == "error"


def test_what_the_producer_could_not_read_is_told_for_each_field() -> None:
    (chunk,) = cut_items([Entry("a.png", unreadable("gone"))], form=FORM)
    rows = classify_chunk(chunk, "number", known=FORM).to_pylist()
    assert [row["error"] for row in rows] == ["gone"] * len(CELLS)


@pytest.fixture
def pages_lack_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that says less than the form has fields does not have the last ones."""

    def cut(content: bytes, form: Form) -> Iterator[list[bytes | None]]:
        cuts = content.split(b",")
        yield [*cuts, *[None] * (len(form.cells) - len(cuts))]

    def read(cut: bytes | None, cell: object, content: bytes) -> Iterator[NumberReading | None]:
        yield None if cut is None else read_text(cut, ANY)

    monkeypatch.setattr(classify, "trace_page", cut)
    monkeypatch.setattr(classify, "trace_cell", read)


SHORT = b"1234,40,1,2"  # a page without the second row of the table


def test_a_row_that_a_page_does_not_have_is_in_no_result(
    pages_lack_rows: None, tmp_path: Path
) -> None:
    batch = read_pages(SHORT, PAGE)
    ids = [f"0.png/{cell}" for cell in CELLS[:4]] + [f"1.png/{cell}" for cell in CELLS]
    assert batch.column("id").to_pylist() == ids
    first, second = to_answers(batch)
    assert isinstance(first, dict) and isinstance(second, dict)
    assert ([*first], [*second]) == (CELLS[:4], CELLS) and first["marks/1/c2"].number == "2"
    results = Results(pa.Table.from_batches([batch, batch]), Reading("number", FORM.encode()), "")
    assert len(results) == 4 and [*map(len, results)] == [4, 6, 4, 6]
    assert results[2] == first and results[-1] == second
    counts = Counts().add(batch)
    assert (counts.images, counts.failed, counts.absent, counts.done) == (10, 0, 2, 12)
    assert len([*describe_rows(batch)]) == 10
    for suffix in ENCODERS:
        path = tmp_path / f"marks{suffix}"
        sink = FileSink(path, {})
        sink.write(batch)
        sink.finish("number")
        if suffix == ".xlsx":
            assert openpyxl.load_workbook(path).active.max_row == 11
            continue
        results_of = open_results(path)
        (found,) = results_of.batches()
        assert found["id"].to_pylist() == ids
        assert not Survey("number", [found]).groups()["failed"]
        assert write_wide(results_of, tmp_path / f"wide-{suffix[1:]}.csv", False) == 3


@pytest.mark.parametrize("right", ["5", ""])
def test_a_right_answer_says_that_a_page_has_a_row_that_was_not_found(
    pages_lack_rows: None, right: str, tmp_path: Path
) -> None:
    (chunk,) = cut_items(make_pages(SHORT), form=FORM)
    truth = pa.array(["1234", None, "1", "2", right, None], pa.string())
    batch = name_rows(classify_chunk(chunk, "number", known=FORM), truth)
    counts = Counts().add(batch)
    if not right:
        assert (batch.num_rows, counts.failed, counts.absent, counts.labelled) == (4, 0, 2, 3)
        return
    assert batch.column("id").to_pylist() == [f"0.png/{cell}" for cell in CELLS[:5]]
    row = batch.to_pylist()[-1]
    assert (row["error"], row["reason"], row["review"], row["truth"]) == (
        *(NO_SUCH_ROW, "error", True),
        "5",
    )
    assert (counts.failed, counts.absent, counts.labelled) == (1, 1, 3)
    # The rules of the page are looked at without a row that is there in part
    checks = Check("c1 == c2", 0), Check("student == total", 0)
    form = replace(FORM, tables=(replace(FORM.tables[0], fewest=1),), checks=checks)
    places = [row | {"table": "marks" if row["row"] else None} for row in batch.to_pylist()]
    assert [one.rule for one in find_broken_rules(form, places)] == ["c1 == c2", "student == total"]


def test_right_answers_of_absent_rows_are_told_when_a_file_is_evaluated(
    pages_lack_rows: None, tmp_path: Path
) -> None:
    write_results(tmp_path / "marks.csv", SHORT)
    truth = tmp_path / "truth.csv"
    truth.write_text("page,field,row,number\n0.png,c1,1,1\n0.png,c1,2,5\n")
    _, gaps, compared = read_results([str(tmp_path / "marks.csv")], str(truth), None)
    assert (compared.counts.labelled, compared.counts.unlabelled) == (1, 3)
    assert gaps.unused == {"0.png//2/c1": "5"}


@pytest.mark.parametrize("done", [1, 2])
def test_a_run_goes_on_after_pages_that_lack_rows(
    pages_lack_rows: None, done: int, tmp_path: Path
) -> None:
    """What was written counts the rows that are left out, of pages of one name too."""
    pages = [Entry("a.png", lambda page=page: page) for page in (SHORT, SHORT, PAGE)]  # type: ignore[misc]
    (whole,) = cut_items(pages, form=FORM)
    counts = Counts()
    for page in range(done):
        part = Chunk(0, whole.batch.slice(page * len(CELLS), len(CELLS)))
        counts = counts.add(name_rows(classify_chunk(part, "number", known=FORM)))
    (rest,) = cut_items(pages, resume=counts, form=FORM)
    assert rest.batch.equals(whole.batch.slice(done * len(CELLS)))
    with pytest.raises(UsageError, match="the source has changed"):
        [*cut_items(make_pages(SHORT, SHORT, PAGE), resume=counts, form=FORM)]


def test_each_field_has_a_time_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def spin(cut: bytes, *others: object) -> Iterator[NumberReading]:
        end = time.process_time() + (9 if cut == b"39" else 0.1)
        while time.process_time() < end:
            yield read_text(b"1", ANY)

    monkeypatch.setattr(classify, "trace_cell", spin)
    monkeypatch.setattr(classify, "watch", Watch(seconds=0.3))  # all fields together take longer
    errors = read_pages(PAGE).column("error").to_pylist()
    assert errors == [None] * 5 + ["takes longer than 0.3 s"]


def test_a_page_and_its_first_field_are_noted_apart() -> None:
    """Both may end a process, and only the page's death is one of all of its fields."""
    noted = []

    def read(row: int, content: bytes, reader: classify.Reader[classify.T]) -> Iterator[classify.T]:
        noted.append(row)
        return reader(content)

    read_pages(PAGE, PAGE, read=read)
    assert len(noted) == len({*noted}) == 2 * (1 + len(CELLS))


# Files


@pytest.mark.parametrize("suffix", READERS)
def test_a_result_file_has_pages_and_fields(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"a{suffix}"
    sink = FileSink(out, {})
    batch = read_pages(PAGE, b"=desk")
    sink.write(batch)
    sink.finish("number")
    (read,) = open_results(out).batches()
    names = ["id", "page", "field", "row", "number", "error", "review"]
    assert read.select(names).to_pylist() == batch.select(names).to_pylist()


def write_results(path: Path, *pages: bytes) -> None:
    sink = FileSink(path, {})
    sink.write(read_pages(*pages))
    sink.finish("number")


def test_results_are_compared_with_answers_by_place(tmp_path: Path) -> None:
    write_results(tmp_path / "marks.csv", PAGE)
    truth = tmp_path / "truth.csv"
    truth.write_text("page,field,row,number\n0.png,total,,40\n0.png,c1,2,5\n0.png,c9,2,5\n")
    _, gaps, sink = read_results([str(tmp_path / "marks.csv")], str(truth), None)
    assert (sink.counts.labelled, sink.counts.correct) == (2, 1)
    assert gaps.unused == {"0.png//2/c9": "5"}


@pytest.mark.parametrize("suffix", ENCODERS)
def test_a_wide_table_has_a_row_for_each_row_of_a_table(suffix: str, tmp_path: Path) -> None:
    results = tmp_path / "marks.csv"
    write_results(results, PAGE, PAGE.replace(b"40", b"?"))
    out = name_wide(results).with_suffix(suffix)
    assert out.stem == "marks-wide" and write_wide(open_results(results), out, False) == 4
    if suffix in (".csv", ".xlsx"):
        with open_rows(out) as found:
            rows: list[dict[str, Any]] = [*found]
    elif suffix == ".jsonl":
        rows = [*map(json.loads, out.read_text().splitlines())]
    else:
        rows = pq.read_table(out).to_pylist()
    assert [*rows[0]] == ["page", "row", "student", "total", "c1", "c2", "review"]
    shown = [[str(value or "") for value in row.values()] for row in rows]
    assert shown == [
        ["0.png", "1", "1234", "40", "1", "2", ""],
        ["0.png", "2", "1234", "40", "3", "39", "c2"],
        ["1.png", "1", "1234", "", "1", "2", "total"],
        ["1.png", "2", "1234", "", "3", "39", "total, c2"],
    ]
    if suffix == ".xlsx":
        table = [*openpyxl.load_workbook(out).active]
        yellow = [cell.coordinate for row in table for cell in row if cell.fill.fill_type]
        assert yellow == ["F3", "D4", "D5", "F5"]  # as the column `review` names them
    with pytest.raises(UsageError, match="exists: --overwrite replaces it"):
        write_wide(open_results(results), out, False)


@pytest.mark.parametrize("optional", [False, True])
def test_without_a_table_a_page_is_a_row(
    optional: bool, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "form.toml"
    field = f"box = [0, 0, 9, 9]\noptional = {optional}\n".lower()
    path.write_text(f"blank = 'blank.png'\n[fields.id]\n{field}[fields.total]\n{field}")
    Image.new("L", (9, 9)).save(tmp_path / "blank.png")
    form = read_form(path)
    items = make_pages(b"12,9", b"?", b"3,-", b"-4,--")
    (chunk,) = cut_items(items, form=form)
    sink = FileSink(tmp_path / "a.jsonl", {})
    sink.write(name_rows(classify_chunk(chunk, "number", known=form)))
    sink.finish("number", Record.build("number", Origin(form=str(path)), sink.counts, ()))
    assert write_wide(open_results(tmp_path / "a.jsonl"), Path("-"), False) == 4
    assert capfdbinary.readouterr().out.decode().splitlines() == [
        "page,id,total,review",
        '"0.png","12","9","total"',
        '"1.png",,,"id, total"',
        # Nothing is written, which shows itself if the field may be empty
        '"2.png","3","",' + '"total"' * (not optional),
        '"3.png","-4","","total"',  # something may be written
    ]


def test_a_page_with_an_error_has_no_more_rows_than_any_page() -> None:
    table = replace(FORM.tables[0], rows=40, fewest=2)
    form = replace(FORM, tables=(table,))
    (chunk,) = cut_items(make_pages(b"a desk"), form=form)
    rows = classify_chunk(chunk, "number", known=form).to_pylist()
    assert len(rows) == 82 and [row["reason"] for row in rows].count("error") == len(CELLS) == 6
    assert {row["reason"] for row in rows[6:]} == {"absent"}


def test_results_without_pages_have_no_wide_table(tmp_path: Path) -> None:
    FileSink(tmp_path / "a.csv", {}).finish("number")
    with pytest.raises(UsageError, match="has no fields of pages"):
        write_wide(open_results(tmp_path / "a.csv"), Path("-"), False)
