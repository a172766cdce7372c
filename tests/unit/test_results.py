"""Result files are read back as they were written, and the pictures of their rows are found."""

import csv
import io
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitq.producer.counts import Counts
from digitq.producer.found_images import FoundImage, find_images
from digitq.producer.provenance import Record, RunPart, find_record, record_path
from digitq.producer.read_again import PageAgain, again_path, write_pages_again
from digitq.producer.results import READ_ROWS, open_results
from digitq.producer.sinks.encoders import encode_csv
from digitq.producer.sinks.resumable import FileSink
from digitq.producer.sources.opening import describe_origin, open_sources
from digitq.producer.sources.truth import read_truths
from digitq.protocol.chunk import FORM_SCHEMA, NUMBER_SCHEMA, NUMBER_TRUTH, RESULT_SCHEMA, TRUTH
from digitq.protocol.errors import OutputError, UsageError
from digitq.protocol.formats.csv_text import guard_text, plain_text
from digitq.protocol.origin import Origin
from digitq.protocol.settings import settings
from tests.drawing import draw_one, encode_image

SUFFIXES = (".csv", ".jsonl", ".parquet")
IDS = ["a.png", 'b "quoted", with\na line break.png', "=1+1.png", "ünï.png"]
SHARES = [0.05] * 2 + [0.7] + [0.2 / 7] * 7
NUMBERS = pa.RecordBatch.from_pylist(
    [
        {
            "id": "n.png",
            "number": "007",
            "confidence": 0.75,
            "digits": [
                {"digit": int(sign), "confidence": 0.5}
                | dict.fromkeys(("left", "top", "right", "bottom"), 2.5)
                for sign in "007"
            ],
            "alternatives": [{"number": "001", "probability": 0.25}],
            "review": True,
            "reason": "unsure",
        },
        {"id": "none.png", "error": "no number can be seen", "review": True, "reason": "error"},
    ],
    NUMBER_SCHEMA,
)


PART = RunPart("j", "2026-11-30T10:00:00+00:00", 1.5, 1, ("cd",), ("ab",))


def digit_rows(ids: Sequence[str]) -> pa.RecordBatch:
    """Each third row has an error, and each has a truth but the last."""
    rows = [
        {"id": id, "label": 2, "confidence": 0.7, "probabilities": SHARES, "review": False}
        if place % 3 < 2
        else {"id": id, "error": "the file is empty", "review": True, "reason": "error"}
        for place, id in enumerate(ids)
    ]
    truths = [*([2] * (len(ids) - 1)), None]
    batch = pa.RecordBatch.from_pylist(rows, RESULT_SCHEMA)
    return batch.append_column(TRUTH, pa.array(truths, TRUTH.type))


def write(path: Path, batch: pa.RecordBatch, origin: Origin | None = None, **others: Any) -> Record:
    """Write a result file with a record."""
    model = "number" if "number" in batch.schema.names else "cnn"
    with closing(FileSink(path, {}, overwrite=True)) as sink:
        if batch.num_rows:
            sink.write(batch)
        record = Record.build(model, origin or Origin(), sink.counts, (PART,))
        sink.finish(record.read, record := replace(record, **others))
    return record


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_digits_are_read_back(tmp_path: Path, suffix: str) -> None:
    path, batch = tmp_path / f"out{suffix}", digit_rows(IDS)
    record = write(path, batch)
    results = open_results(path)
    assert results.read == "digit" and results.record == record and "truth" in results.schema.names
    (found,) = results.batches()
    assert found.schema.equals(batch.schema) and found.to_pylist() == batch.to_pylist()


def test_a_csv_with_a_byte_order_mark_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, batch = tmp_path / "out.csv", digit_rows(IDS)
    monkeypatch.setenv("DIGITQ_CSV_BOM", "1")
    settings.cache_clear()
    write(path, batch)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfid,label")
    assert [row for one in open_results(path).batches() for row in one.to_pylist()] == (
        batch.to_pylist()
    )
    assert len(read_truths(path)) == len(IDS) - 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbers_are_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write(path, NUMBERS)
    results = open_results(path)
    assert results.read == "number" and "truth" not in results.schema.names
    expected = NUMBERS.to_pylist()
    if suffix == ".csv":
        expected = [row | {"digits": None, "alternatives": None} for row in expected]
    assert [row for batch in results.batches() for row in batch.to_pylist()] == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write(path, NUMBERS.slice(0, 0))
    results = open_results(path)
    assert results.read == "number"
    assert sum(batch.num_rows for batch in results.batches()) == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_rows_come_in_parts(tmp_path: Path, suffix: str) -> None:
    path, ids = tmp_path / f"out{suffix}", [f"{place}.png" for place in range(20_000)]
    write(path, digit_rows(ids))
    batches = [*open_results(path).batches()]
    assert len(batches) > 1
    assert [id for batch in batches for id in batch.column("id").to_pylist()] == ids


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_cut_off(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write(path, digit_rows(IDS))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UsageError, match=rf"out{suffix}"):
        for _ in open_results(path).batches():
            pass


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_page_that_was_read_again_may_have_more_rows(tmp_path: Path, suffix: str) -> None:
    def rows(page: str, fields: Sequence[str], **answer: Any) -> list[dict[str, Any]]:
        named = {"page": page, "review": False} | answer
        return [{"id": f"{page}/{field}", "field": field} | named for field in fields]

    path, many = tmp_path / f"pages{suffix}", [f"f{n}" for n in range(READ_ROWS)]
    refused = {"error": "page not aligned", "review": True, "reason": "error"}
    found = rows("a", many[1:], number="1") + rows("b", many, **refused) + rows("c", ["f0"])
    found = [row | {"truth": "3"} for row in found]
    batch = pa.RecordBatch.from_pylist(found, FORM_SCHEMA.append(NUMBER_TRUTH))
    record = write(path, batch, Origin(form="form.toml"), model="number")
    again = pa.RecordBatch.from_pylist(rows("b", [*many, "more"], number="2"), FORM_SCHEMA)
    write_pages_again(again_path(path), record, {"b": PageAgain(again, b"picture")})
    results = open_results(path)
    assert record.counts.images == len(found)
    read = [row for part in results.batches() for row in part.to_pylist()]
    ids = [row["id"] for row in found]
    assert [row["id"] for row in read] == [*ids[:-1], "b/more", ids[-1]]
    assert {row["number"] for row in read if row["page"] == "b"} == {"2"}
    assert [row["truth"] for row in read] == [*["3"] * (len(found) - 1), None, "3"]
    assert results.again["b"].picture == b"picture"
    write(path, batch, Origin(form="form.toml"), model="number", parts=(replace(PART, job="k"),))
    assert not open_results(path).again  # they are of earlier results
    again_path(path).write_bytes(b"no table")
    with pytest.raises(UsageError, match="can't read the rows of .*again.parquet"):
        open_results(path)


def test_a_spreadsheet_may_separate_cells_by_semicolons(tmp_path: Path) -> None:
    path, batch = tmp_path / "out.csv", digit_rows(["a,b.png", "b;c.png", "c.png"])
    write(path, batch)
    rows = [*csv.reader(io.StringIO(path.read_text()))]
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows([[*map(spell, row)] for row in rows])
    (found,) = open_results(path).batches()
    assert found.to_pylist() == batch.to_pylist()


def spell(cell: str) -> str:
    """A cell as spreadsheets write it."""
    return cell.upper() if cell in ("true", "false") else cell


def test_rows_that_are_missing_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write(path, digit_rows(["a.png", "b.png", "c.png"]))
    lines = path.read_text().splitlines(keepends=True)
    for content, message in (
        ("".join(lines[:-1]), "has 2 rows, but its record counts 3"),
        ("".join(lines).replace("false", "perhaps"), "can't read the rows of"),
        ("".join(lines).replace("confidence", "sure"), "has no column 'confidence'"),
        ("a,b\n1,2\n", "is no result file of this version of digitq"),
        ("page,row,c1,review\na,1,7,\n", "has all fields of a page in one row: name the results"),
        ("", "can't read the rows of"),
    ):
        path.write_text(content)
        with pytest.raises(UsageError, match=message):
            for _ in open_results(path).batches():
                pass


@pytest.mark.parametrize(
    ("batch", "change", "message"),
    [
        (digit_rows(IDS), {"label": 10**30}, "can't read the rows of"),
        (digit_rows(IDS), {"label": 12}, "row 2 of .*: label 12 must be a digit"),
        (digit_rows(IDS), {"truth": -1}, "row 2 of .*: truth -1 must be a digit"),
        (digit_rows(IDS), {"id": None}, "row 2 of .*: id must not be empty"),
        (digit_rows(IDS), {"review": None}, "row 2 of .*: review must not be empty"),
        (NUMBERS, {"number": "1" * 21}, "row 2 of .*: number 1+ must be 1 to 20 digits"),
        (NUMBERS, {"number": "1x"}, "row 2 of .*: number 1x must be 1 to 20 digits"),
        (NUMBERS, {"number": "-"}, "row 2 of .*: number - must be 1 to 20 digits"),
        (NUMBERS, {"number": "1" + "." * 32}, "row 2 of .* at most 32 characters"),
        (NUMBERS, "[" * 100_000, "can't read the rows of"),
        (NUMBERS, "5", "can't read the rows of"),
        (NUMBERS, "[]", "can't read the rows of"),
    ],
)
def test_rows_that_digitq_did_not_write(
    tmp_path: Path, batch: pa.RecordBatch, change: dict[str, object] | str, message: str
) -> None:
    path = tmp_path / "out.jsonl"
    write(path, batch)
    first, second, *others = path.read_text().splitlines(keepends=True)
    changed = change if isinstance(change, str) else json.dumps(json.loads(second) | change)
    path.write_text("".join([first, changed + "\n", *others]))
    with pytest.raises(UsageError, match=message):
        for _ in open_results(path).batches():
            pass


@pytest.mark.parametrize("line", ['[{"id": "a.png"}]', "[1]", "5"])
def test_json_that_is_no_lines_of_objects(tmp_path: Path, line: str) -> None:
    (tmp_path / "out.jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match="can.t read the rows of .*a line is no JSON object"):
        open_results(tmp_path / "out.jsonl")


def test_json_lines_that_pandas_has_written(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, digit_rows(IDS))
    pandas.read_json(path, lines=True, dtype={"label": float}).to_json(
        path, orient="records", lines=True, double_precision=15
    )
    assert '"label":2.0' in path.read_text()
    labels = [row["label"] for batch in open_results(path).batches() for row in batch.to_pylist()]
    assert labels == digit_rows(IDS).column("label").to_pylist()


def test_texts_that_are_not_utf_8(tmp_path: Path) -> None:
    write(tmp_path / "out.jsonl", NUMBERS)
    content = (tmp_path / "out.jsonl").read_bytes().replace(b"none.png", b"\xff.png")
    (tmp_path / "out.jsonl").write_bytes(content)
    ids = pa.array([b"n.png", b"\xff.png"]).view(pa.string())
    pq.write_table(pa.table(NUMBERS).set_column(0, "id", ids), tmp_path / "out.parquet")
    for name in ("out.jsonl", "out.parquet"):
        with pytest.raises(UsageError, match=f"can't read the rows of .*{name}: .*(UTF8|utf-8)"):
            for _ in open_results(tmp_path / name).batches():
                pass


def test_columns_of_types_that_digitq_did_not_write(tmp_path: Path) -> None:
    rows = digit_rows(IDS)
    ids = pa.array([{"a": id} for id in IDS])
    pq.write_table(pa.table(rows).set_column(0, "id", ids), tmp_path / "out.parquet")
    with pytest.raises(UsageError, match="can't read the rows of"):
        for _ in open_results(tmp_path / "out.parquet").batches():
            pass


def test_a_line_that_is_cut_off_does_not_hide_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write(path, digit_rows(IDS[::2]))
    path.write_text(path.read_text()[:-20])
    assert "truth" in open_results(path).schema.names


@pytest.mark.parametrize("name", ["gone.csv", "gone.jsonl", "gone.parquet"])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="No such file"):
        open_results(tmp_path / name)


def test_a_file_of_another_ending_is_no_result_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no result file: these end in \.csv or"):
        open_results(tmp_path / "photo.png")
    write(tmp_path / "out.xlsx", digit_rows(IDS))  # it is written for people
    message = r"out\.xlsx is an Excel file: results are read from \.csv or \.jsonl or \.parquet"
    with pytest.raises(UsageError, match=message):
        open_results(tmp_path / "out.xlsx")


def test_the_record_never_describes_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    old = write(path, digit_rows(["a.png"]))
    assert find_record(path) == old
    sink = FileSink(path, {}, overwrite=True)
    sink.finish()
    assert find_record(path) is None


def test_a_full_disk_leaves_the_old_file_and_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.csv"
    old = write(path, digit_rows(["a.png"]))
    content = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match="No space left"):
            write(path, digit_rows(["b.png"]))
    assert path.read_bytes() == content and find_record(path) == old


@pytest.mark.parametrize("done", [0, 1])
def test_no_record_of_other_rows_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    path, renamed, replace = tmp_path / "out.csv", [], os.replace
    write(path, digit_rows(["a.png"]))

    def fail(old: Path, new: Path) -> None:
        if len(renamed) == done:
            raise OSError(28, "No space left on device")
        renamed.append(new)
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OutputError, match="No space left"):
            write(path, digit_rows(["b.png"]))
    results = open_results(path)
    (batch,) = results.batches()
    assert results.record is None and batch.column("id").to_pylist() == [["a.png"], ["b.png"]][done]


def test_a_folder_in_the_record_s_place_is_seen_at_once(tmp_path: Path) -> None:
    record_path(tmp_path / "out.csv").mkdir()
    with pytest.raises(UsageError, match=r"can't write .*out\.csv\.json: it is a folder"):
        FileSink(tmp_path / "out.csv", {}, overwrite=True)


def test_a_file_of_somebody_else_is_kept(tmp_path: Path) -> None:
    other = record_path(tmp_path / "out.csv")
    for content in ("{}", "[1]", "no json"):
        other.write_text(content)
        with pytest.raises(UsageError, match="not the record of a result file of this version"):
            FileSink(tmp_path / "out.csv", {})
        assert other.read_text() == content


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: it has a folder of images, an archive and a set of them."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        draw_one(ink=len(name)).save(tmp_path / "photos" / name)
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.writestr("x/c.png", encode_image(draw_one((50, 50))))
    np.save(tmp_path / "set.npy", np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28))
    return tmp_path


def find(record: Record | None, ids: list[str], *sources: str) -> dict[str, FoundImage]:
    return {picture.id: picture for picture in find_images(record, sources, ids)}


def record_of(*sources: str, **others: str) -> Record:
    """The record of rows that these SOURCEs gave, now."""
    record = Record.build("mlp", open_sources(sources).origin, Counts(), (PART,))
    return replace(record, finished="2100-01-01T00:00:00+00:00", **others)


def test_pictures_are_found_in_sources_of_all_kinds(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = record_of("photos", "scans.zip", "set.npy")
    elsewhere = images / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = find(record, ["photos/b.png", "scans.zip/x/c.png", "set.npy/2", "photos/none.png"])
    assert Path.cwd() == elsewhere
    assert found["photos/b.png"].content == (images / "photos/b.png").read_bytes()
    assert PIL.Image.open(io.BytesIO(found["scans.zip/x/c.png"].content or b"")).size == (50, 50)
    pixels = np.asarray(PIL.Image.open(io.BytesIO(found["set.npy/2"].content or b"")))
    assert (pixels == np.load(images / "set.npy")[2]).all()
    assert found["photos/none.png"] == FoundImage("photos/none.png", None, "not found")


def test_single_files_and_paths_on_stdin(images: Path) -> None:
    for record in (record_of("photos/a.png", "photos/b.png"), record_of("photos", folder=".")):
        record = replace(record, sources=record.sources if len(record.sources) > 1 else ("-",))
        os.replace("photos/b.png", "moved.png")
        found = find(record, ["photos/a.png", "photos/b.png"])
        os.replace("moved.png", "photos/b.png")
        assert found["photos/a.png"].content
        assert found["photos/b.png"].problem == "No such file or directory"


def test_one_source_that_is_gone_hides_no_other(images: Path) -> None:
    ids = ["photos/a.png", "scans.zip/x/c.png", "solo.png", "set.npy/1"]
    shutil.copy("photos/a.png", "solo.png")
    record = record_of("photos", "scans.zip", "solo.png", "set.npy")
    for gone in ("photos", "scans.zip", "solo.png", "set.npy"):
        os.rename(gone, "moved")
        problems = {id: picture.problem for id, picture in find(record, ids).items()}
        os.rename("moved", gone)
        (hidden,) = [id for id in ids if id.startswith(gone)]
        assert f"no such file or folder: {gone}" in str(problems.pop(hidden))
        assert [*problems.values()] == [None] * 3
    Path("empty").mkdir()
    assert find(None, ["photos/a.png"], "empty", "photos")["photos/a.png"].content


def test_a_path_that_was_on_stdin_twice(images: Path) -> None:
    record = replace(record_of("photos", folder="."), sources=("-",))
    found = find(record, ["photos/a.png", "photos/a.png#2"])
    assert found["photos/a.png#2"].content == found["photos/a.png"].content is not None


def test_only_images_of_the_set_that_changed_are_odd(images: Path) -> None:
    shutil.copy("set.npy", "set2.npy")
    record = record_of("set.npy", "set2.npy", "photos")
    later = time.time() + 3600
    record = replace(record, finished=datetime.fromtimestamp(later, UTC).isoformat())
    os.utime("set2.npy", (later + 60, later + 60))
    os.utime("photos/b.png", (later + 60, later + 60))
    found = find(record, ["set.npy/0", "set2.npy/0", "photos/a.png", "photos/b.png"])
    odd = [id for id, picture in found.items() if picture.problem]
    assert odd == ["set2.npy/0", "photos/b.png"]


def test_a_picture_that_was_renamed_since_is_odd(images: Path) -> None:
    os.utime("photos/a.png", (0, 0))  # as old as before, but in this place since a moment ago
    record = replace(record_of("photos"), finished="2001-01-01T00:00:00+00:00")
    assert find(record, ["a.png"])["a.png"].problem == "it may have changed since it was read"


def test_the_folder_of_the_record_can_not_be_opened(images: Path) -> None:
    record = record_of("photos", folder=str(images / "set.npy"))
    assert "Not a directory" in str(find(record, ["a.png"])["a.png"].problem)


def test_rows_of_a_table_without_an_image(images: Path) -> None:
    pq.write_table(pa.table({"image": [b"x" * 784, None]}), "a.parquet")
    found = find(record_of("a.parquet"), ["0", "1"])
    assert found["0"] == FoundImage("0", b"x" * 784)  # so long by chance
    assert found["1"] == FoundImage("1", None, "no image in this row")


def test_the_record_of_many_sources_is_short(images: Path) -> None:
    names = [f"photos/{place:040}.png" for place in range(2000)]
    for name in names:
        os.link("photos/a.png", name)
    record = record_of(*names)
    assert len(record.encode()) < 1000
    assert find(record, names[-1:])[names[-1]].content
    for name in names:
        os.rename(name, f"{name}.zip")
    origin = describe_origin([f"{name}.zip" for name in names], None, None)
    assert len(str(origin)) < 20_000 and len(origin.sources) + origin.more_sources == 2000
    record = replace(record, sources=("photos",), more_sources=origin.more_sources)
    assert "name the SOURCEs" in str(find(record, ["x"])["x"].problem)


@pytest.mark.parametrize("finished", ["yesterday", "0001-01-01"])
def test_a_record_without_a_time(tmp_path: Path, finished: str) -> None:
    record = write(tmp_path / "out.csv", digit_rows(IDS))
    record_path(tmp_path / "out.csv").write_bytes(replace(record, finished=finished).encode())
    with pytest.raises(UsageError, match="is not the record of a result file"):
        open_results(tmp_path / "out.csv")


def test_pictures_that_have_moved_or_changed(images: Path) -> None:
    record = replace(record_of("photos"), finished="2001-01-01T00:00:00+00:00")
    assert find(record, ["a.png"])["a.png"].problem == "it may have changed since it was read"
    shutil.move("photos", "moved")
    problem = find(record, ["a.png"])["a.png"].problem
    assert problem and "no such file or folder: photos" in problem
    assert find(record, ["a.png"], "moved")["a.png"].problem is None
    with pytest.raises(UsageError, match="no such file or folder: nowhere"):
        find(record, ["a.png"], "nowhere")
    gone = replace(record, folder=str(images / "gone"))
    assert "gone" in str(find(gone, ["a.png"])["a.png"].problem)


def test_images_from_memory_are_nowhere() -> None:
    record = Record.build("mlp", Origin(), Counts(), (PART,))
    for known in (record, None):
        assert "no SOURCE is known" in str(find(known, ["a.png"])["a.png"].problem)


def test_no_id_is_a_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    ids = ["=1+1.png", "+1.png", "-1.png", "@a.png", "'a.png", "'=a.png", "a=1.png"]
    write(tmp_path / "out.csv", digit_rows(ids))
    with open(tmp_path / "out.csv", newline="") as file:
        cells = [row["id"] for row in csv.DictReader(file)]
    assert cells == [*("'" + id for id in ids[:-1]), ids[-1]]
    (batch,) = open_results(tmp_path / "out.csv").batches()
    assert batch.column("id").to_pylist() == ids


@given(st.lists(st.text("=+-@\t\r\n'\"1a,½./ "), min_size=1, max_size=5))
def test_text_is_the_same_after_a_csv_and_no_formula_in_it(texts: list[str]) -> None:
    batch = pa.record_batch([pa.array(texts)] * 2, ["name, first", f"b{texts[0]}"[1:] or "b"])
    head, *rows = csv.reader(io.StringIO(encode_csv(batch, True).decode(), newline=""))
    assert [plain_text(cell) for cell in head] == batch.schema.names
    assert [[plain_text(cell) for cell in row] for row in rows] == [[one, one] for one in texts]
    for cell in (cell for row in [head, *rows] for cell in row):
        assert not re.match(r"[=@\t\r\n]|[-+](?![0-9])|[-+].*[a=+@-]", cell)


@pytest.mark.parametrize("number", ["-3.5", "+12", "-1.234,5", "-7½", "12", "-12/5"])
def test_a_number_with_a_sign_is_no_formula(number: str) -> None:
    assert guard_text(number) == number


@pytest.mark.parametrize("text", ["=1+1", "-1+cmd|' /C calc'!A0", "+A1", "@SUM(A1)", "-", "'-5"])
def test_what_may_be_a_formula_is_guarded(text: str) -> None:
    assert guard_text(text) == f"'{text}" and plain_text(f"'{text}") == text


def test_the_record_is_json_for_people(tmp_path: Path) -> None:
    write(tmp_path / "out.csv", digit_rows(["a.png"]), Origin(("photos",), "/home/me", "parent"))
    fields = json.loads((tmp_path / "out.csv.json").read_text())
    assert fields["sources"] == ["photos"] and fields["read"] == "digit"
    assert fields["model"] == "cnn" and fields["counts"]["images"] == 1
    assert fields["parts"][0]["weights"] == ["cd"]
