"""Pages with a form become chunks: the rows of a page travel together, and the page once."""

from pathlib import Path

import pyarrow as pa
import pytest

from digitq.producer.counts import Counts, add_ids
from digitq.producer.sources.in_memory import image_source
from digitq.producer.sources.opening import open_sources
from digitq.producer.sources.source import Entry, unreadable
from digitq.producer.sources.truth import read_truths
from digitq.protocol.asked.form import Field, Form, Table
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.reading import choose_reading, digits, form
from digitq.protocol.chunk import Chunk, name_fields
from digitq.protocol.errors import UsageError
from tests.cutting import cut_items
from tests.drawing import random_digits

ANY = Known()
FORM = Form(
    None,
    "page",
    (Field("student", (0, 0, 9, 9), ANY), Field("total", (0, 9, 9, 18), ANY)),
    (Table("marks", None, 2, ("", "c1", "c2"), ANY),),
    (),
)
CELLS = [cell.id for cell in FORM.cells]


def make_pages(*pages: bytes) -> list[Entry]:
    return [Entry(f"{n}.png", lambda page=page: page) for n, page in enumerate(pages)]  # type: ignore[misc]


def mark_done(pages: int) -> Counts:
    """The counts of results with all rows of the first pages."""
    return Counts(pages * len(CELLS), add_ids(0, pa.array([f"{n}.png" for n in range(pages)])))


def test_the_rows_of_a_page_travel_together_and_the_page_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "13")  # two pages and a row
    entries = [*make_pages(b"0", b"11", b"2"), Entry("gone.png", unreadable("gone"))]
    first, last = cut_items(entries, form=FORM)
    assert name_fields(first.batch).to_pylist() == [f"{n}.png/{c}" for n in (0, 1) for c in CELLS]
    cell = {"page": "1.png", "table": "marks", "row": 2, "field": "c2"}
    field = {"page": "0.png", "table": None, "row": None, "field": "student"}
    rows = first.batch.to_pylist()
    assert rows[0] == {**field, "image": b"0", "error": None}
    assert rows[-1] == {**cell, "image": None, "error": None}
    none = [None] * (len(CELLS) - 1)
    assert first.batch.column("image").to_pylist() == [b"0", *none, b"11", *none]
    assert last.first_row == 2 * len(CELLS)
    assert last.batch.column("image").to_pylist() == [b"2", *none, None, *none]
    assert last.batch.column("error").to_pylist() == [None] * len(CELLS) + ["gone"] * len(CELLS)


def test_an_array_can_be_a_page() -> None:
    digits = random_digits(2)
    (chunk,) = cut_items(image_source(digits).items, form=FORM)
    assert chunk.rows == 2 * len(CELLS)
    assert chunk.batch.column("pixels")[len(CELLS)].as_py() == digits[1].tobytes()


@pytest.mark.parametrize("as_array", [False, True])
def test_a_job_goes_on_after_whole_pages(as_array: bool) -> None:
    source = random_digits(3) if as_array else None

    def cut(resume: Counts = Counts()) -> list[Chunk]:  # noqa: B008 (frozen)
        items = make_pages(b"0", b"1", b"2") if source is None else image_source(source).items
        return [*cut_items(items, resume=resume, form=FORM)]

    (whole,) = cut()
    ids = whole.batch.column("page").to_pylist()[:: len(CELLS)]
    done = Counts(2 * len(CELLS), add_ids(0, pa.array(ids[:2])))
    (rest,) = cut(done)
    assert rest.first_row == 2 * len(CELLS)
    assert rest.batch.equals(whole.batch.slice(2 * len(CELLS)))
    with pytest.raises(UsageError, match="the source has changed"):
        [*cut_items(make_pages(b"0"), resume=done, form=FORM)]


TRUTHS = {
    "by id": "id,number\n0.png/total,40\n0.png/marks/2/c1,3\n0.png/marks/2/c2,\n9.png/total,5\n",
    "by place": "page,field,row,number\n"
    "0.png,total,,40\n0.png,c1,2,3\n0.png,c2,2,\n9.png,total,,5\n",
}


@pytest.mark.parametrize("kind", TRUTHS)
@pytest.mark.parametrize("done", [0, 1])
def test_right_answers_are_those_of_fields(kind: str, done: int, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(TRUTHS[kind])
    (tmp_path / "0.png").write_bytes(b"0")
    (tmp_path / "1.png").write_bytes(b"0")
    source = open_sources(tmp_path, truth_file=tmp_path / "truth.csv")
    (chunk,) = cut_items(
        *(source.items, True, mark_done(1) if done else Counts()),
        **{"gaps": source.gaps, "form": FORM, "truths": source.truths},
    )
    found = dict(zip(CELLS, pa.array(chunk.truth).to_pylist(), strict=False))
    if not done:
        assert found["total"] == "40" and found["marks/2/c1"] == "3" and found["marks/2/c2"] == ""
        assert found["student"] is None and found["marks/1/c1"] is None
    assert [*source.gaps.unused] == ["9.png/total"]
    assert source.gaps.missing == 2 * len(CELLS) - 3 if not done else len(CELLS)


def test_results_are_compared_by_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("page,field,row,number\n=1.png#2,c1,4,06\n")
    assert read_truths(tmp_path / "truth.csv") == {"=1.png#2//4/c1": "06"}
    (tmp_path / "truth.csv").write_text(
        "page,table,field,row,number\na,m,c1,4,6\na,n,c1,4,7\na,,x,,8\n"
    )
    truths = read_truths(tmp_path / "truth.csv")
    assert truths == {"a/m/4/c1": "6", "a/n/4/c1": "7", "a/x": "8"}


def test_a_form_says_what_is_known_itself() -> None:
    reading = form(FORM)
    assert reading.what == "number" and [cell.id for cell in reading.cells] == CELLS
    assert reading.count_rows(2) == 2 * len(CELLS) and digits().count_rows(2) == 2
    with pytest.raises(UsageError, match="leave out length, pattern"):
        choose_reading(page_form=FORM, length=3)
    with pytest.raises(UsageError, match="leave out the model 'cnn'"):
        choose_reading(model="cnn", page_form=FORM)
