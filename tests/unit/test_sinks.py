"""Result files: their columns, and that a broken run goes on without a seam."""

import csv
import fcntl
import io
import json
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from digitq.producer.counts import Counts
from digitq.producer.provenance import Record, find_record
from digitq.producer.sinks import resumable
from digitq.producer.sinks.encoders import ENCODERS, encode_csv, encode_lines
from digitq.producer.sinks.resumable import FileSink
from digitq.producer.sinks.sink import StreamSink
from digitq.producer.sources.arrays import number_ids
from digitq.protocol.chunk import (
    FINGERPRINT_KEY,
    RESULT_SCHEMA,
    WEIGHTS_KEY,
    Chunk,
    name_rows,
    pixels_batch,
)
from digitq.protocol.errors import OutputError, UsageError
from digitq.protocol.formats.xlsx_rows import read_sheet
from digitq.protocol.origin import Origin
from digitq.worker.classify import classify_chunk
from tests.drawing import random_digits

RUN = {"sources": ["x"], "model": "mlp", "known": None, "weights": None, "digitq": "0.1"}


def result_batches(rows: int = 10, count: int = 3) -> list[pa.RecordBatch]:
    truth = pa.array(np.arange(rows) % 10, pa.int8())
    return [
        name_rows(classify_chunk(Chunk(n * rows, pixels_batch(ids, digits)), "mlp"), truth)
        for n in range(count)
        if (digits := random_digits(rows, seed=n).reshape(rows, 784)).any()
        and (ids := number_ids('a "b",', n * rows, rows))
    ]


def failed_batch() -> pa.RecordBatch:
    row = {"id": "x", "label": None, "confidence": None, "probabilities": None, "error": "gone"}
    row |= {"review": True, "reason": "error"}
    return pa.RecordBatch.from_pylist([row], RESULT_SCHEMA)


def write_all(path: Path, batches: list[pa.RecordBatch]) -> Counts:
    sink = FileSink(path, RUN)
    for batch in batches:
        sink.write(batch)
    sink.finish()
    return sink.counts


def test_csv_has_a_column_for_each_probability(tmp_path: Path) -> None:
    batches = result_batches()
    write_all(tmp_path / "out.csv", batches)
    header, *rows = csv.reader(io.StringIO((tmp_path / "out.csv").read_text()))
    probabilities = [f"p{digit}" for digit in range(10)]
    assert header == [
        "id",
        "label",
        "confidence",
        *probabilities,
        "error",
        "review",
        "reason",
        "truth",
    ]
    assert len(rows) == 30 and rows[7][0] == 'a "b",7'
    values = [[float(value) for value in row[3:13]] for row in rows]
    expected = [p for batch in batches for p in batch.column("probabilities").to_pylist()]
    assert np.array_equal(np.array(values, np.float32), np.array(expected, np.float32))


def test_a_row_with_an_error_is_empty_but_for_it() -> None:
    stream = io.BytesIO()
    StreamSink(stream).write(failed_batch())
    assert stream.getvalue().decode().splitlines()[1] == '"x",' + "," * 11 + ',"gone",true,"error"'


def test_json_lines_are_the_result_s_columns(tmp_path: Path) -> None:
    write_all(tmp_path / "out.jsonl", [*result_batches(), failed_batch()][-1:])
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        failed_batch().to_pylist()[0]
    ]


def test_json_numbers_are_exact_and_short(tmp_path: Path) -> None:
    (batch,) = result_batches(count=1)
    write_all(tmp_path / "out.jsonl", [batch])
    text = (tmp_path / "out.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    found = np.array([row["probabilities"] for row in rows], np.float32)
    assert np.array_equal(found, np.array(batch.column("probabilities").to_pylist(), np.float32))
    assert max(len(repr(row["confidence"])) for row in rows) <= 14


def test_a_name_that_is_as_long_as_names_may_be(tmp_path: Path) -> None:
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") - len(".parquet.partial.run")
    write_all(tmp_path / f"{'x' * longest}.parquet", result_batches())
    with pytest.raises(UsageError, match="File name too long"):
        FileSink(tmp_path / f"{'x' * (longest + 1)}.parquet", RUN)


def test_parquet_has_the_result_s_schema(tmp_path: Path) -> None:
    batches = result_batches()
    write_all(tmp_path / "out.parquet", batches)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.to_pylist() == pa.Table.from_batches(batches).to_pylist()


@pytest.mark.parametrize(
    ("rows", "count", "groups"), [(10, 3, [16, 14]), (16, 2, [16, 16]), (40, 1, [16, 16, 8])]
)
def test_row_groups_have_one_size_and_all_rows(
    rows: int, count: int, groups: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "ROW_GROUP_ROWS", 16)
    batches = result_batches(rows, count)
    write_all(tmp_path / "out.parquet", batches)
    with pq.ParquetFile(tmp_path / "out.parquet") as file:
        found = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        assert found == groups
        assert file.read().to_pylist() == pa.Table.from_batches(batches).to_pylist()


@pytest.mark.parametrize("suffix", sorted(ENCODERS))
def test_the_bytes_do_not_depend_on_how_the_rows_were_cut(suffix: str, tmp_path: Path) -> None:
    total = 100 if suffix == ".xlsx" else 5000  # Excel's take the longest
    (whole,) = result_batches(rows=total, count=1)
    files = []
    for rows in (total, total // 4, total // 5 - 1):
        path = tmp_path / f"{rows}{suffix}"
        write_all(path, [whole.slice(start, rows) for start in range(0, total, rows)])
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("suffix", sorted(ENCODERS))
@pytest.mark.parametrize("lost", [0, 1, 40, 3000])
def test_a_broken_run_goes_on_without_a_seam(suffix: str, lost: int, tmp_path: Path) -> None:
    """Whatever reached the disk after the last noted batch is cut off, and more may be missing."""
    batches = result_batches()
    write_all(tmp_path / f"whole{suffix}", batches)
    broken = FileSink(tmp_path / f"broken{suffix}", RUN)
    for batch in batches[:2]:
        broken.write(batch)
    broken.close()
    content = broken.partial.read_bytes()
    longer = content + b"half a row" * 9999  # than what is yet to come
    broken.partial.write_bytes(content[: len(content) - lost] if lost else longer)
    again = FileSink(tmp_path / f"broken{suffix}", RUN)
    rows = again.counts.images
    assert rows == {0: 20, 1: 10, 40: 10}.get(lost, rows) and rows % 10 == 0
    for batch in batches[rows // 10 :]:
        again.write(batch)
    again.finish()
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    assert (tmp_path / f"broken{suffix}").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"broken{suffix}", f"whole{suffix}"]


@pytest.mark.parametrize(("left", "rows"), [(-3, 10), (10, 0)])
def test_a_journal_that_breaks_off_can_be_written_on(left: int, rows: int, tmp_path: Path) -> None:
    """Within its last note, and within its first line: what was torn is no part of the next."""
    batches = result_batches()
    first = FileSink(tmp_path / "out.csv", RUN)
    for batch in batches[:2]:
        first.write(batch)
    first.close()
    journal = tmp_path / "out.csv.partial.run"
    journal.write_bytes(journal.read_bytes()[:left])
    second = FileSink(tmp_path / "out.csv", RUN)
    assert second.counts.images == rows
    second.write(batches[rows // 10])
    second.close()
    with closing(FileSink(tmp_path / "out.csv", RUN)) as third:
        assert third.counts.images == rows + 10


def test_a_journal_whose_rows_are_gone_begins_anew(tmp_path: Path) -> None:
    first = FileSink(tmp_path / "out.csv", RUN)
    first.write(result_batches()[0])
    first.close()
    first.partial.unlink()
    with closing(FileSink(tmp_path / "out.csv", RUN)) as again:
        assert again.counts == Counts()


def test_the_counts_of_a_broken_run_are_kept(tmp_path: Path) -> None:
    first = FileSink(tmp_path / "out.csv", RUN)
    first.write(result_batches()[0])
    first.close()
    with closing(FileSink(tmp_path / "out.csv", RUN)) as again:
        assert again.counts == first.counts
        assert again.counts.labelled == 10 and again.counts.ids


def test_another_run_s_file_is_left_alone(tmp_path: Path) -> None:
    first = FileSink(tmp_path / "out.csv", RUN)
    first.write(result_batches()[0])
    first.close()
    other = {**RUN, "model": "random"}
    for wrong, message in [
        (other, "(model was mlp)"),
        ({**RUN, "sources": ["y"]}, "(sources was x)"),
        (
            {**RUN, "known": "2ce9"},
            "(the form, the risk, or what is known of the numbers was different)",
        ),
        ({**RUN, "digitq": "0.2"}, "(digitq was 0.1)"),
        (
            {**RUN, "weights": "2ce9"},
            "(its weights were built in, not 2ce9): --overwrite starts again, and the old weights",
        ),
        ({"job": "x"}, "(it was started by another command or an older version)"),
    ]:
        with pytest.raises(UsageError, match=re.escape(message)):
            FileSink(tmp_path / "out.csv", wrong)
    with closing(FileSink(tmp_path / "out.csv", other, overwrite=True)) as again:
        assert again.counts.images == 0


@pytest.mark.parametrize(
    "damaged",
    [
        b"{\n",
        b"\xff\n",
        b"[1]\n",
        b"\0\0\n",
        b"RUN\0\0\n",
        b"RUN3\n",
        b"RUN[9,1,2,3,4,5,6,7]\n",
        b'RUN{"size":-1,"counts":{},"parts":[]}\n',
        b'RUN{"size":9,"counts":3,"parts":[]}\n',
        b'RUN{"a":1}\n',
    ],
)
def test_a_damaged_journal_is_left_alone(damaged: bytes, tmp_path: Path) -> None:
    first = FileSink(tmp_path / "out.csv", RUN)
    first.write(result_batches()[0])
    first.close()
    journal = tmp_path / "out.csv.partial.run"
    damaged = damaged.replace(b"RUN", json.dumps(RUN).encode() + b"\n")
    journal.write_bytes(damaged)
    with pytest.raises(
        UsageError, match="out.csv.partial.run is damaged, or of another version: --over"
    ):
        FileSink(tmp_path / "out.csv", RUN)
    assert journal.read_bytes() == damaged and first.partial.stat().st_size
    with closing(FileSink(tmp_path / "out.csv", RUN, overwrite=True)) as again:
        assert again.counts.images == 0


def made_by(batch: pa.RecordBatch, weights: str, fingerprint: str = "f1") -> pa.RecordBatch:
    """The rows, as workers with these weights answer them."""
    return batch.replace_schema_metadata({WEIGHTS_KEY: weights, FINGERPRINT_KEY: fingerprint})


def write_part(out: Path, job: str, *batches: pa.RecordBatch) -> FileSink:
    """Write a part of a result file and stop."""
    with closing(FileSink(out, RUN)) as sink:
        sink.begin(job)
        for batch in batches:
            sink.write(batch)
    return sink


def test_other_weights_do_not_continue_a_run(tmp_path: Path) -> None:
    first, second, third = result_batches()
    out = tmp_path / "out.csv"
    write_part(out, "a", made_by(first, "old"))
    before = (tmp_path / "out.csv.partial").read_bytes()
    message = "other weights (new) than those that wrote"
    with pytest.raises(
        UsageError, match=rf"{re.escape(message)} .*out\.csv\.partial \(old\): --over"
    ):
        write_part(out, "b", made_by(second, "new"))
    assert (tmp_path / "out.csv.partial").read_bytes() == before
    sink = write_part(out, "b", made_by(second, "old", "f2"), made_by(third, "new", "f3"))
    parts = [(part.job, part.images, part.weights, part.fingerprints) for part in sink.parts]
    assert parts == [("a", 10, ("old",), ("f1",)), ("b", 20, ("old", "new"), ("f2", "f3"))]


def test_collecting_a_job_goes_on_whatever_networks_answered_it(tmp_path: Path) -> None:
    first, second, _ = result_batches()
    write_part(tmp_path / "out.csv", "a", made_by(first, "old"))
    sink = write_part(tmp_path / "out.csv", "a", made_by(second, "new"))
    assert [part.weights for part in sink.parts] == [("old",), ("new",)]


def test_parquet_does_not_tell_who_made_its_rows(tmp_path: Path) -> None:
    """Equal rows are equal bytes; what differs is in the record beside them."""
    batches, contents, jobs = result_batches(), [], []
    for job in ("a", "b"):
        out = tmp_path / f"{job}.parquet"
        with closing(FileSink(out, RUN)) as sink:
            sink.begin(job)
            for batch in batches:
                sink.write(made_by(batch, f"weights of {job}"))
            sink.finish("digit", Record.build("mlp", Origin(), sink.counts, sink.parts))
        contents.append(out.read_bytes())
        record = find_record(out)
        jobs += [part.job for part in record.parts] if record else []
    assert contents[0] == contents[1] and jobs == ["a", "b"]


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    with closing(FileSink(tmp_path / "out.csv", RUN)):
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="another run"):
                FileSink(tmp_path / "out.csv", RUN, overwrite)


def test_a_finished_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    write_all(tmp_path / "out.csv", result_batches())
    with pytest.raises(UsageError, match="--overwrite replaces it"):
        FileSink(tmp_path / "out.csv", RUN)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("name", ["out.xls", "out", "nowhere/out.csv"])
def test_a_file_that_can_t_be_written_is_said_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        FileSink(tmp_path / name, RUN)
    assert not list(tmp_path.iterdir())


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow over 4,000 bytes: none of this process's, the tests' own log neither."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_keeps_what_is_written(tmp_path: Path) -> None:
    batches = result_batches(count=10)
    with (
        small_disk(),
        closing(FileSink(tmp_path / "out.csv", RUN)) as sink,
        pytest.raises(OutputError, match=r"can't write .*out\.csv: File too large$"),
    ):
        for batch in batches:
            sink.write(batch)
    again = FileSink(tmp_path / "out.csv", RUN)
    assert again.counts.images == sink.counts.images > 0
    for batch in batches[again.counts.images // 10 :]:
        again.write(batch)
    again.finish()
    write_all(tmp_path / "whole.csv", batches)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("suffix", sorted(ENCODERS))
def test_no_rows_are_a_file_too(suffix: str, tmp_path: Path) -> None:
    write_all(tmp_path / f"out{suffix}", [])
    content = (tmp_path / f"out{suffix}").read_bytes()
    if suffix == ".xlsx":
        assert read_sheet(tmp_path / "out.xlsx").read().startswith('"id","label","confidence","p0"')
    elif suffix == ".parquet":
        assert pq.read_table(tmp_path / "out.parquet").schema.names == RESULT_SCHEMA.names
    else:
        assert content.startswith(b"id,label,confidence,p0") == (suffix == ".csv")


def test_a_stream_has_its_header_at_the_latest_at_the_end() -> None:
    stream = io.BytesIO()
    StreamSink(stream).finish()
    assert stream.getvalue().startswith(b"id,label,") and stream.getvalue().count(b"\n") == 1


def test_rows_are_in_a_stream_as_soon_as_they_are_written() -> None:
    raw = io.BytesIO()
    stream = io.BufferedWriter(cast(io.RawIOBase, raw), 1 << 20)
    StreamSink(stream).write(failed_batch())
    assert raw.getvalue().count(b"\n") == 2


def test_rows_that_can_t_be_written_to_a_stream() -> None:
    with open("/dev/full", "wb") as full, pytest.raises(OutputError, match="No space left"):
        StreamSink(full.raw).write(result_batches()[0])  # type: ignore[attr-defined]


@pytest.mark.parametrize("buffering", [-1, 0])  # without a buffer, as by PYTHONUNBUFFERED
def test_a_stream_that_takes_a_part_and_does_not_wait_gets_all(buffering: int) -> None:
    batch = pa.concat_batches([failed_batch()] * 5000)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    taken: list[bytes] = []

    def take() -> None:
        time.sleep(0.1)  # the pipe is full by then
        with open(reading, "rb") as file:
            taken.append(file.read())

    reader = threading.Thread(target=take)
    reader.start()
    with open(writing, "wb", buffering) as stream:
        StreamSink(cast(BinaryIO, stream)).write(batch)
    reader.join()
    assert taken == [encode_csv(batch, header=True)]


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    with closing(FileSink(tmp_path / "out.csv", RUN)):
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_has_just_ended_has_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal was opened before it ended, and locked after."""
    out, lock = tmp_path / "out.csv", fcntl.flock
    sink = FileSink(out, RUN)

    def end(*args: Any) -> None:
        sink.finish()
        lock(*args)

    monkeypatch.setattr(fcntl, "flock", end)
    with pytest.raises(UsageError, match="being written by another run"):
        FileSink(out, RUN)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_where_rows_can_t_be_written_there_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "out.csv.partial").mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        FileSink(tmp_path / "out.csv", RUN, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv.partial"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_somebody_else_s_partial_file_is_left_alone(kind: str, tmp_path: Path) -> None:
    precious = tmp_path / ("out.csv.partial" if kind == "file" else "precious.txt")
    precious.write_text("precious")
    if kind == "link":
        (tmp_path / "out.csv.partial").symlink_to(precious)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UsageError, match="partial exists without a journal: --overwrite replaces"):
        FileSink(tmp_path / "out.csv", RUN)
    assert precious.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_where_files_can_t_be_locked_they_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(38, "Function not implemented")))
    write_all(tmp_path / "out.csv", result_batches())
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_note_of_rows_that_were_lost_is_never_taken_for_true(tmp_path: Path) -> None:
    """Rows that were noted as written, and lost with the power: what follows has other sizes."""
    out, batches = tmp_path / "out.csv", result_batches()
    with closing(FileSink(out, RUN)) as sink:
        for batch in batches:
            sink.write(batch)
    size = json.loads((tmp_path / "out.csv.partial.run").read_text().splitlines()[1])["size"]
    os.truncate(sink.partial, size)
    with closing(FileSink(out, RUN)) as sink:
        rows = sink.counts.images
        assert rows == batches[0].num_rows
    with open(sink.partial, "ab") as file:  # killed between a row and its note
        file.write(bytes(1 << 20))
    with closing(FileSink(out, RUN)) as sink:
        assert sink.counts.images == rows


def test_lines_for_a_terminal() -> None:
    stream = io.BytesIO()
    (batch,) = result_batches(count=1)
    sink = StreamSink(stream, encode_lines)
    sink.write(batch.slice(0, 1))
    sink.write(failed_batch())
    row = batch.slice(0, 1).to_pylist()[0]
    sink.write(pa.RecordBatch.from_pylist([row | {"truth": None, "reason": "pages"}], batch.schema))
    first, second, third = stream.getvalue().decode().splitlines()
    assert (f"  not {row['truth']}   " in first) == (row["truth"] not in (None, row["label"]))
    assert first.startswith(f"{row['label']}  {row['confidence']:7.2%}  ")
    assert first.endswith(f"  {row['id']}")
    assert second == "-           error           x: gone"
    assert third == f"{row['label']}  {row['confidence']:7.2%}  pages           {row['id']}"
    StreamSink(empty := io.BytesIO(), encode_lines).finish()
    assert empty.getvalue() == b""


def test_a_disk_that_fills_up_at_the_end_keeps_no_half_of_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    with closing(FileSink(out, RUN)) as sink:
        sink.write(result_batches()[0])
        for name in ("link", "replace"):
            full = OSError(28, "No space left on device")
            monkeypatch.setattr(os, name, Mock(side_effect=full))
        with pytest.raises(OutputError, match="No space left"):
            sink.finish()
    kept = {"out.parquet.partial", "out.parquet.partial.run"}
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_that_appears_during_the_run_is_not_replaced(
    suffix: str, has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError(1, "not permitted")))
    out = tmp_path / f"out{suffix}"
    record = tmp_path / f"out{suffix}.json"
    with closing(FileSink(out, RUN)) as sink:
        sink.write(result_batches()[0])
        out.write_text("mine")
        record.write_text("{}")
        with pytest.raises(
            OutputError, match="is not replaced: move it away, and the same command"
        ):
            sink.finish()
    assert out.read_text() == "mine" and record.read_text() == "{}"
    out.unlink(), record.unlink()
    with closing(FileSink(out, RUN)) as sink:
        assert sink.counts.images == 10
        sink.finish()
    assert out.stat().st_size > 100 and [*tmp_path.iterdir()] == [out]


@pytest.mark.parametrize("kind", ["removed", "replaced"])
def test_a_partial_file_that_is_gone_is_noticed_at_the_next_batch(
    kind: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    first, second, _ = result_batches()
    with closing(FileSink(out, RUN)) as sink:
        sink.write(first)
        sink.partial.unlink()
        if kind == "replaced":
            sink.partial.write_text("another's")
        with pytest.raises(
            OutputError, match="10 rows that it had are lost: the same command with --overwrite"
        ):
            sink.write(second)
        assert sink.counts.images == 0
    assert sink.partial.exists() == (kind == "replaced")
    if kind == "replaced":
        assert sink.partial.read_text() == "another's"
        sink.partial.unlink()
    with closing(FileSink(out, RUN)) as sink:
        assert sink.counts.images == 0


@pytest.mark.parametrize("suffix", sorted(ENCODERS))
def test_a_file_is_on_disk_before_it_gets_its_name(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: list[int] = []
    name = os.replace

    def name_file(old: Path, new: Path) -> None:
        assert os.stat(old).st_ino in on_disk
        name(old, new)

    monkeypatch.setattr(os, "fsync", lambda file: on_disk.append(os.fstat(file).st_ino))
    monkeypatch.setattr(os, "replace", name_file)
    write_all(tmp_path / f"out{suffix}", result_batches())


def test_rows_that_were_damaged_on_disk_are_told_as_parquet_is_made(tmp_path: Path) -> None:
    first = FileSink(tmp_path / "out.parquet", RUN)
    first.write(result_batches()[0])
    first.close()
    with first.partial.open("r+b") as file:
        file.write(b"damaged" * 20)
    with (
        closing(FileSink(tmp_path / "out.parquet", RUN)) as again,
        pytest.raises(OutputError, match=r"can't write .*out\.parquet: "),
    ):
        again.finish()
    kept = {"out.parquet.partial", "out.parquet.partial.run"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_an_ending_in_capitals_and_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("OUT.CSV")
    write_all(tmp_path / "link.csv", result_batches())
    assert (tmp_path / "OUT.CSV").read_bytes().startswith(b"id,label,")
    assert {path.name for path in tmp_path.iterdir()} == {"link.csv", "OUT.CSV"}
    assert (tmp_path / "link.csv").is_symlink()


def test_a_link_to_itself_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.csv").symlink_to("out.csv")
    write_all(tmp_path / "out.csv", result_batches())
    assert (tmp_path / "out.csv").read_bytes().startswith(b"id,label,")
