"""Result rows of whole numbers: their columns in each format, and what is counted of them."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from digitq.producer.counts import Counts
from digitq.producer.sinks.encoders import ENCODERS, encode_lines
from digitq.producer.sinks.resumable import FileSink
from digitq.producer.sinks.sink import StreamSink
from digitq.producer.sources.in_memory import image_source
from digitq.producer.sources.opening import open_sources
from digitq.producer.sources.source import Entry
from digitq.producer.sources.truth import read_truths
from digitq.protocol.asked.known import Known
from digitq.protocol.chunk import NUMBER_SCHEMA, NUMBER_TRUTH, name_rows
from digitq.protocol.errors import BrokerError, UsageError
from digitq.protocol.prediction import Alternative, FoundDigit, NumberPrediction, to_predictions
from digitq.worker import classify
from digitq.worker.classify import classify_chunk
from digitq.worker.sight.numbers.recognition import NumberReading
from tests.cutting import cut_items
from tests.drawing import random_digits
from tests.reading_numbers import read_text, reader_of_texts

IMAGES = [b"007", b"text", b"19", b"42"]
TRUTHS = ["007", "1", "18", None]


@pytest.fixture(autouse=True)
def texts_are_read() -> Iterator[None]:
    with reader_of_texts():
        yield


def read_images(known: Known = Known()) -> pa.RecordBatch:  # noqa: B008 (frozen)
    entries = [
        Entry(f"{place}.png", lambda image=image: image, truth)  # type: ignore[misc]
        for place, (image, truth) in enumerate(zip(IMAGES, TRUTHS, strict=True))
    ]
    (chunk,) = cut_items(entries, has_truth=True, model="number")
    return name_rows(classify_chunk(chunk, "number", known=known), chunk.truth)


def test_a_label_that_is_no_number_is_no_truth() -> None:
    labels = ["007", "cat", "1" * 21, None]
    entries = [Entry(f"{n}.png", lambda: b"1", label) for n, label in enumerate(labels)]
    (chunk,) = cut_items(entries, has_truth=True, model="number")
    assert pa.array(chunk.truth).to_pylist() == ["007", None, None, None]


def test_a_row_has_the_number_as_text_and_its_digits() -> None:
    result = read_images()
    assert result.schema.equals(NUMBER_SCHEMA.append(NUMBER_TRUTH))
    first, bad, unsure, last = result.to_pylist()
    assert first["number"] == first["truth"] == "007" and not first["review"]
    assert first["digits"][2] == {
        **{"digit": 7, "confidence": pytest.approx(0.9), "left": 20, "top": 0},
        **{"right": 28.5, "bottom": 20},
    }
    assert first["alternatives"] == [{"number": "700", "probability": pytest.approx(0.2)}]
    assert bad["error"] == "no number is in the image" and bad["number"] is bad["digits"] is None
    assert [row["reason"] for row in (first, bad, unsure, last)] == [None, "error", "unsure", None]
    assert [row["review"] for row in (first, bad, unsure, last)] == [False, True, True, False]


def test_what_is_known_reaches_the_reader() -> None:
    result = read_images(Known.check(None, ["007"]))
    assert result.column("reason").to_pylist() == [None, "error", "not allowed", "not allowed"]


def test_an_error_of_the_producer_passes_through() -> None:
    batch = pa.record_batch(
        {"id": ["a"], "image": pa.array([None], pa.binary()), "error": ["gone"]}
    )
    (row,) = classify_chunk(classify.Chunk(0, batch), "number").to_pylist()
    assert (row["error"], row["reason"], row["number"]) == ("gone", "error", None)


def test_a_lost_redis_is_no_error_of_the_images() -> None:
    def lose(row: int, content: bytes, reader: classify.Reader[classify.T]) -> Iterator[classify.T]:
        raise BrokerError("gone")

    (chunk,) = cut_items([Entry("a.png", lambda: b"7")], model="number")
    with pytest.raises(BrokerError, match="gone"):
        classify_chunk(chunk, "number", lose)


@pytest.mark.parametrize("as_files", [False, True])
def test_pixels_are_a_picture_too(as_files: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def look(content: bytes, known: Known) -> Iterator[NumberReading]:
        seen.append(np.array(PIL.Image.open(io.BytesIO(content))))
        yield read_text(b"7", known)

    digits = random_digits(2)
    source = image_source([*digits] if as_files else digits)
    (chunk,) = cut_items(source.items, model="number")
    with monkeypatch.context() as patch:  # undone before `texts_are_read`, which restores the rest
        patch.setattr(classify, "trace_number", look)
        assert classify_chunk(chunk, "number").column("number").to_pylist() == ["7", "7"]
    assert np.array_equal(seen, digits)


def test_csv_has_the_number_and_no_lists() -> None:
    rows = list(csv.DictReader(io.StringIO(ENCODERS[".csv"](read_images(), True).decode())))
    columns = ["id", "number", "confidence", "error", "review", "reason", "truth"]
    assert list(rows[0]) == columns
    assert rows[0]["number"] == "007" and rows[1]["error"] == "no number is in the image"


def test_json_lines_have_short_numbers_in_lists_too() -> None:
    lines = ENCODERS[".jsonl"](read_images(), True).decode().splitlines()
    first, bad = json.loads(lines[0]), json.loads(lines[1])
    assert first["digits"][0]["confidence"] == 0.9 and first["confidence"] == 0.7
    assert first["alternatives"] == [{"number": "700", "probability": 0.2}]
    assert bad["digits"] is bad["alternatives"] is None and list(bad) == [
        *NUMBER_SCHEMA.names,
        "truth",
    ]


@pytest.mark.parametrize("suffix", sorted(ENCODERS))
def test_the_bytes_do_not_depend_on_how_the_rows_were_cut(suffix: str, tmp_path: Path) -> None:
    whole = read_images()
    files = []
    for rows in (4, 1):
        sink = FileSink(tmp_path / f"{rows}{suffix}", {})
        for start in range(0, 4, rows):
            sink.write(whole.slice(start, rows))
        sink.finish()
        files.append((tmp_path / f"{rows}{suffix}").read_bytes())
    assert files[0] == files[1]
    if suffix == ".parquet":
        assert pq.read_table(tmp_path / "4.parquet").to_pylist() == whole.to_pylist()


@pytest.mark.parametrize("suffix", sorted(ENCODERS))
def test_no_rows_are_a_file_too(suffix: str, tmp_path: Path) -> None:
    FileSink(tmp_path / f"out{suffix}", {}).finish("number")
    content = (tmp_path / f"out{suffix}").read_bytes()
    if suffix == ".parquet":
        assert pq.read_schema(tmp_path / "out.parquet").names == NUMBER_SCHEMA.names
    else:
        assert content.startswith(b"id,number,confidence,error") == (suffix == ".csv")


def test_lines_for_a_terminal() -> None:
    stream = io.BytesIO()
    StreamSink(stream, encode_lines).write(read_images())
    assert stream.getvalue().decode().splitlines() == [
        "007          70.00%                  0.png",
        "-                    error           1.png: no number is in the image",
        "19           70.00%  not 18          2.png",
        "42           70.00%                  3.png",
    ]


def test_the_counts_are_of_whole_numbers() -> None:
    found = Counts().add(read_images())
    assert (found.images, found.failed, found.labelled, found.correct) == (4, 1, 2, 1)
    assert found.review == 1


def test_predictions_of_numbers() -> None:
    first, bad, *_ = to_predictions(read_images())
    assert isinstance(first, NumberPrediction) and first.number == "007" and first.digits
    assert first.digits[0] == FoundDigit(0, pytest.approx(0.9), 0.0, 0.0, 8.5, 20.0)
    assert first.alternatives == (Alternative("700", pytest.approx(0.2)),)
    assert bad == NumberPrediction(
        None, None, None, None, "no number is in the image", True, "error"
    )
    assert {first: "it"}[first] == "it"


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")


def truths_of(source: object, model: str) -> list[object]:
    (chunk,) = cut_items(source.items, True, model=model)  # type: ignore[attr-defined]
    found: list[object] = pa.array(chunk.truth).to_pylist()
    return found


def test_a_folder_s_name_is_a_number_or_a_digit(tmp_path: Path) -> None:
    write_images(tmp_path, "007/a.png", "7/b.png", "12/c.png", "x/d.png")
    for model, truths in [("number", ["007", "7", "12", None]), ("mlp", [7, 7, None, None])]:
        source = open_sources([str(tmp_path)], truth_from_parent=True)
        assert truths_of(source, model) == truths


def test_a_table_of_right_answers(tmp_path: Path) -> None:
    write_images(tmp_path / "images", "a.png", "b.png", "c.png")
    table = tmp_path / "truth.csv"
    table.write_text("kind,path,number\nx,b.png,007\nx,a.png,3\nx,gone.png,1\nx,c.png,\n")
    for model, truths in [("number", ["3", "007", ""]), ("mlp", [3, 7, None])]:
        source = open_sources([str(tmp_path / "images")], truth_file=table)
        assert source.has_truth and truths_of(source, model) == truths


def test_right_answers_have_paths_from_the_folder_of_their_table(tmp_path: Path) -> None:
    """If they have none from the images' folder; a table with neither is refused at once."""
    write_images(tmp_path / "set" / "images", "sub/a.png", "b.png")
    table = tmp_path / "set" / "truth.csv"
    table.write_text("path,number\nimages/sub/a.png,3\nimages/b.png,007\n")
    for folder in ("set/images", "set"):
        source = open_sources([str(tmp_path / folder)], truth_file=table)
        assert sorted(map(str, truths_of(source, "number"))) == ["007", "3"]
    table.write_text("path,number\nscans/a.png,3\n")
    with pytest.raises(UsageError, match=r"no path in .*such as scans/a.png: paths begin in "):
        open_sources([str(tmp_path / "set" / "images")], truth_file=table)


def test_right_answers_in_a_parquet_file(tmp_path: Path) -> None:
    rows = [{"id": "a.png", "number": "3,5", "digits": [1]}, {"id": "b.png", "number": "007"}]
    path = tmp_path / "final.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert read_truths(path) == {"a.png": "3,5", "b.png": "007"}
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UsageError, match="can't read .*final.parquet"):
        read_truths(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,kind\na,b\n", "has none of these names of columns: truth, number"),
        ("page,c1,name,review\na,1,2,\n", "the columns page, field, row and number"),
        ("page,row,c1\na,1,7\n", "all fields of a page in one row"),
        ("id,label\na,\n", "has no right answers"),
        ("id,label\na,1\nb,seven\n", "line 3 of .* has the right answer 'seven'"),
        ("id,label\na,1\na,2\n", "has two right answers for a"),
    ],
)
def test_a_table_that_has_no_right_answers(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_truths(tmp_path / "truth.csv")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("note,note,id,label,truth2\nx,y,a,1,2\n", {"a": "1"}),
        (",,id,label\nx,y,a,1\n\nx,y,b\n", {"a": "1"}),
        ("id,label\n a , 1 \n", {" a ": "1"}),
        ("id,label\n'=a,1\n'b,2\n", {"=a": "1", "'b": "2"}),
        ("\ufeffid;label\na,b;1\n", {"a,b": "1"}),  # as spreadsheets in some countries write it
        ("id\tlabel\na;b\t1\n", {"a;b": "1"}),
    ],
)
def test_cells_of_right_answers_are_taken_by_their_place(
    text: str, found: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "truth.csv").write_text(text)
    assert read_truths(tmp_path / "truth.csv") == found
