"""Result files: CSV, JSON lines and Parquet, written in source order and resumable.

Rows go to `OUT.partial`, beside a journal `OUT.partial.run`: its first line says what the run
is, each further one how many rows and bytes were whole after a batch, and a checksum of the ids.
The same run again cuts the file after the last whole batch and goes on there. When all rows are
there the file gets its name. Parquet can't be cut, so its partial file is an Arrow stream.
"""

import fcntl
import io
import json
import os
import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, fields
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from producer.written import Written
from protocol.chunk import CLASSES, RESULT_SCHEMA
from protocol.errors import OutputError, UsageError
from protocol.text import in_one_line

ROW_GROUP_ROWS = 1 << 16
CSV_ROWS = 1 << 13  # at a time
FEW_VALUES = ["label", "error", "truth"]  # columns that a dictionary makes smaller, in Parquet
NO_ROWS = pa.RecordBatch.from_pylist([], RESULT_SCHEMA)
Run = dict[str, str | int | bool | list[str] | None]


class Sink(Protocol):
    """Where result batches go. `written` counts them, with those of an earlier, broken run."""

    written: Written

    def write(self, batch: pa.RecordBatch) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


def flatten(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with ten columns `p0` … `p9` in the place of `probabilities`."""
    lists = batch.column("probabilities")
    start, stop = CLASSES * lists.offset, CLASSES * (lists.offset + len(lists))
    values = lists.values[start:stop].to_numpy(zero_copy_only=False).reshape(-1, CLASSES)
    none = lists.is_null().to_numpy(zero_copy_only=False)
    # a tenth of the time of Arrow's list_element
    digits = {f"p{digit}": pa.array(values[:, digit], mask=none) for digit in range(CLASSES)}
    columns: dict[str, pa.Array] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        columns |= digits if name == "probabilities" else {name: column}
    return pa.record_batch(columns)


def encode_csv(batch: pa.RecordBatch, header: bool) -> bytes:
    """The batch's rows as CSV, quoted as RFC 4180 has it, each ending in a line feed."""
    rows = flatten(batch)
    file = io.BytesIO()
    if header:
        file.write(",".join(rows.schema.names).encode() + b"\n")
    options = pyarrow.csv.WriteOptions(include_header=False, batch_size=CSV_ROWS)
    pyarrow.csv.write_csv(rows, file, options)
    return file.getvalue()


def encode_jsonl(batch: pa.RecordBatch, header: bool) -> bytes:
    """One JSON object a line; numbers as short as a float32 needs."""
    rows = flatten_floats(batch).to_pylist()
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def flatten_floats(batch: pa.RecordBatch) -> pa.RecordBatch:
    """float32 columns as the doubles that print as short: 0.1, not 0.10000000149."""

    def shortest(values: pa.Array) -> pa.Array:
        return pc.cast(pc.cast(values, pa.string()), pa.float64())

    lists = batch.column("probabilities")
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["confidence"] = shortest(columns["confidence"])
    columns["probabilities"] = pa.FixedSizeListArray.from_arrays(
        shortest(lists.values.slice(lists.offset * CLASSES, len(lists) * CLASSES)),
        CLASSES,
        mask=lists.is_null(),
    )
    return pa.record_batch(columns)


def encode_arrow(batch: pa.RecordBatch, header: bool) -> bytes:
    """The batch as messages of an Arrow stream."""
    return bytes(batch.schema.serialize() if header else b"") + bytes(batch.serialize())


def encode_lines(batch: pa.RecordBatch, header: bool) -> bytes:
    """A line for each row, for a person: the answer, how sure the network is, the id."""
    lines = []
    for row in batch.drop_columns(["probabilities"]).to_pylist():
        label, truth = row["label"], row.get("truth")
        if label is None:
            error = f"{row['id']}: {row['error']}"
            lines.append(f"-           error   {in_one_line(error)}\n")
            continue
        mark = "review" if row["review"] else ""
        if truth not in (None, label):
            mark = f"not {truth}"
        lines.append(f"{label}  {row['confidence']:7.2%}  {mark:6}  {in_one_line(row['id'])}\n")
    return "".join(lines).encode()


Encode = Callable[[pa.RecordBatch, bool], bytes]
ENCODERS: dict[str, Encode] = {
    ".csv": encode_csv,
    ".jsonl": encode_jsonl,
    ".parquet": encode_arrow,
}


class StreamSink:
    """Rows onto an open binary stream, such as stdout; by default as CSV."""

    def __init__(self, stream: BinaryIO, encode: Encode = encode_csv) -> None:
        self._raw: Any = getattr(stream, "raw", stream)  # past any buffer
        self._encode = encode
        self.written = Written()

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows. Raises `OutputError`, and `BrokenPipeError` where nobody reads them."""
        self._write(self._encode(batch, self.written.rows == 0))
        self.written = self.written.add(batch)

    def finish(self) -> None:
        """All rows are written; where there was none, the header is."""
        if self.written.rows == 0:
            self._write(self._encode(NO_ROWS, True))

    def _write(self, content: bytes) -> None:
        try:
            _write_all(self._raw, content)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"can't write the rows: {error.strerror or error}") from None

    def close(self) -> None:
        """The stream is its owner's to close."""


class FileSink:
    """A result file while it grows; `written` begins with what an earlier try wrote."""

    def __init__(self, path: Path, run: Run, overwrite: bool = False) -> None:
        """Raises `UsageError` for another format, another run's file, one that is finished or being
        written by somebody else, and a place where nothing can be written."""
        if path.is_symlink():  # the file that it leads to is written
            path = Path(os.path.realpath(path))
        suffix = path.suffix.lower()
        if suffix not in ENCODERS:
            raise UsageError(f"{path} must end in {' or '.join(ENCODERS)}, or be -")
        if path.is_dir():
            raise UsageError(f"can't write {path}: it is a folder")
        self.path = path
        self.written: Written
        self._journal: FileIO
        self._file: FileIO
        self.partial = path.with_name(path.name + ".partial")
        self._journal_path = path.with_name(path.name + ".partial.run")
        self._encode = ENCODERS[suffix]
        try:
            self._open(run, overwrite)
        except OSError as error:
            raise UsageError(f"can't write {path}: {error.strerror or error}") from None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows and note them as whole. Raises `OutputError`, as for a full disk."""
        with _output_errors(self.path):
            _write_all(self._file, self._encode(batch, self.written.rows == 0))
            self.written = self.written.add(batch)
            self._note([self._file.tell(), *astuple(self.written)])

    def finish(self) -> None:
        """Give the file its name. Raises `OutputError`."""
        with _output_errors(self.path):
            if self.written.rows == 0:
                _write_all(self._file, self._encode(NO_ROWS, True))
            os.fsync(self._file.fileno())
            if self._encode is encode_arrow:
                self._convert_to_parquet()
                os.unlink(self.partial)
            else:
                os.replace(self.partial, self.path)
            os.unlink(self._journal_path)
        self.close()

    def close(self) -> None:
        """Leave what is written, to be resumed; leave nothing where no row is."""
        if self.written.rows == 0 and not self._file.closed:
            for path in (self.partial, self._journal_path):
                path.unlink(missing_ok=True)
        self._file.close()
        self._journal.close()

    def _open(self, run: Run, overwrite: bool) -> None:
        is_new = not self._journal_path.exists()
        with ExitStack() as stack:  # undoes all should anything be wrong
            self._journal = stack.enter_context(open(self._journal_path, "a+b", buffering=0))
            self._lock()
            if os.path.exists(self.path) and not overwrite:  # perhaps by a run that has just ended
                if is_new:
                    self._journal_path.unlink()
                raise UsageError(f"{self.path} is there already: --overwrite replaces it")
            if overwrite:
                self._journal.truncate(0)
            self.written, size = self._read_journal(run)
            if not size:
                stack.callback(self._journal_path.unlink)
            if is_new and not overwrite and os.path.lexists(self.partial):
                raise UsageError(f"{self.partial} is there, and of no run: --overwrite replaces it")
            self._file = stack.enter_context(
                open(self.partial, "r+b" if size else "wb", buffering=0)
            )
            self._file.truncate(size)
            self._file.seek(size)
            stack.pop_all()

    def _lock(self) -> None:
        """Raises `UsageError` where another run has the journal, or had it just now."""
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = os.fstat(self._journal.fileno()).st_nlink > 0
        except BlockingIOError:
            is_free = False
        except OSError:  # a file system without locks
            return
        if not is_free:
            raise UsageError(f"{self.path} is being written by another run")

    def _read_journal(self, run: Run) -> tuple[Written, int]:
        """What is written already, and its size in bytes. Begins a new journal where none is."""
        self._journal.seek(0)
        lines = self._journal.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        if not whole:
            self._journal.truncate(0)
            self._note(run)
            return Written(), 0
        try:
            old, notes = _parse_journal(whole)
        except ValueError:
            raise UsageError(f"{self._journal_path} is damaged: --overwrite starts again") from None
        if old != run:
            raise UsageError(
                f"{self.partial} is of another run ({_difference(old, run)}): "
                "--overwrite starts again"
            )
        on_disk = self.partial.stat().st_size if self.partial.exists() else 0
        while notes and notes[-1][0] > on_disk:
            notes.pop()  # else it might be taken for true when as much is written again
        self._journal.truncate(sum(map(len, whole[: 1 + len(notes)])))
        return notes[-1][::-1] if notes else (Written(), 0)

    def _note(self, fact: object) -> None:
        _write_all(self._journal, json.dumps(fact).encode() + b"\n")

    def _convert_to_parquet(self) -> None:
        """From the partial file's Arrow stream to Parquet with row groups of one size."""
        converted = self._journal_path.with_suffix(".new")  # a name no longer than that
        try:
            with (
                pa.ipc.open_stream(pa.OSFile(str(self.partial))) as reader,
                pq.ParquetWriter(converted, reader.schema, use_dictionary=FEW_VALUES) as writer,
            ):
                for table in regroup(reader, ROW_GROUP_ROWS):
                    writer.write_table(table)
            with open(converted, "rb") as file:
                os.fsync(file.fileno())
            os.replace(converted, self.path)
        finally:
            converted.unlink(missing_ok=True)  # as on a full disk


def regroup(reader: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """The batches' rows in tables of so many; the last has the rest."""
    pending: list[pa.RecordBatch] = []
    missing = rows
    for batch in reader:
        while batch.num_rows >= missing:
            yield pa.Table.from_batches([*pending, batch.slice(0, missing)]).combine_chunks()
            batch, pending, missing = batch.slice(missing), [], rows
        pending.append(batch)
        missing -= batch.num_rows
    if missing < rows:
        yield pa.Table.from_batches(pending).combine_chunks()


def _write_all(file: FileIO, content: bytes) -> None:
    """Past any buffer, so that nothing is left to fail when the file is closed."""
    view = memoryview(content)
    while view:
        written = file.write(view)
        if written is None:  # a terminal or a pipe that another program has set not to wait
            select.select([], [file], [])
        view = view[written or 0 :]


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"can't write {path}: {reason}") from None


def _parse_journal(lines: list[bytes]) -> tuple[Run, list[tuple[int, Written]]]:
    """Which run it is, and what was written after each batch, with its size in bytes. Raises
    `ValueError` where this is no journal."""
    run, *notes = map(json.loads, lines)
    if not isinstance(run, dict):
        raise ValueError("no run")
    for note in notes:
        counts = note if isinstance(note, list) else []
        if len(counts) != 1 + len(fields(Written)) or not all(
            isinstance(count, int) and count >= 0 for count in counts
        ):
            raise ValueError("no counts")
    return run, [(size, Written(*written)) for size, *written in notes]


def _difference(old: Run, new: Run) -> str:
    if set(old) != set(new):
        return "begun by another command, or by an older version"
    changed = [name for name in new if old[name] != new[name]]
    if changed == ["modified"]:
        return "a table or a set was written anew"
    return ", ".join(f"{name} was {_show(old[name])}" for name in changed if name != "modified")


def _show(value: str | int | bool | list[str] | None) -> str:
    return "none" if value is None else " ".join(value) if isinstance(value, list) else str(value)
