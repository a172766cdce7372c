"""Where result rows go: stdout, or a resumable file of CSV, JSON lines or Parquet.

A file's rows go to `OUT.partial`. The first line of the journal `OUT.partial.run` identifies the
run; each further line is a `Note` of what is written. The same run started again truncates the file
after the last complete batch and continues there. When all rows are written, the file is renamed.
Parquet can't be truncated, so its partial file is an Arrow stream.
"""

import errno
import fcntl
import json
import os
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import NonNegativeInt, TypeAdapter

from producer.counts import Counts
from producer.record import (
    Names,
    Part,
    Parts,
    Record,
    all_weights,
    find_record,
    named_in,
    record_path,
)
from producer.sinks.encoders import ENCODERS, Encode, encode_arrow, encode_csv
from protocol.chunk import WEIGHTS_KEY, result_schema
from protocol.errors import OutputError, UsageError
from protocol.settings import What, read_by

ROW_GROUP_ROWS = 1 << 16  # a row group of Parquet has this many rows
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk is full, not the path wrong
REPEATED = ["label", "error", "reason", "truth"]  # columns of few values: each is stored once
Identity = dict[str, str | int | bool | list[str] | None]  # what must be equal to continue a run


@dataclass(frozen=True)
class Note:
    """What the journal of a result file says after each batch."""

    size: NonNegativeInt  # of the file, in bytes
    counts: Counts
    parts: Parts


NOTES = TypeAdapter(Note)


class Sink:
    """Takes result batches. `counts` and `parts` include the rows before an interruption."""

    counts = Counts()
    parts: Parts = ()
    _begun = 0.0  # the start of the last part, by `time.monotonic`

    def begin(self, job_id: str) -> None:
        """Begin a part: the rows that follow are this job's."""
        self._begun = time.monotonic()
        self.parts = (*self.parts, Part.begin(job_id))

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows, and count them."""
        raise NotImplementedError

    def count(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch that is written."""
        self.counts = self.counts.add(batch)
        if self.parts:
            self.parts = (
                *self.parts[:-1],
                self.parts[-1].add(batch, time.monotonic() - self._begun),
            )

    def finish(self, read: What = "digit", record: Record | None = None) -> None:
        """End the output. Without rows, it gets the columns of a job that reads this. A file gets
        the `record` of what made its rows."""

    def close(self) -> None: ...


class StreamSink(Sink):
    """Writes rows to a binary stream such as stdout, by default as CSV, and leaves it open."""

    def __init__(self, stream: BinaryIO, encode: Encode = encode_csv) -> None:
        self._raw: Any = getattr(stream, "raw", stream)  # unbuffered
        self._encode = encode

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows. Raises `OutputError`, or `BrokenPipeError` if the reader has gone."""
        self._write(self._encode(batch, self.counts.images == 0))
        self.count(batch)

    def finish(self, read: What = "digit", record: Record | None = None) -> None:
        """Write the header if there were no rows."""
        if self.counts.images == 0:
            self._write(self._encode(no_rows(read), True))

    def _write(self, content: bytes) -> None:
        with output_errors("the rows"):
            write_all(self._raw, content)


class FileSink(Sink):
    """A result file that is being written."""

    _file: FileIO

    def __init__(self, path: Path, run: Identity, overwrite: bool = False) -> None:
        """Open or resume the file. Raises `UsageError` if its format is unknown, or if it belongs
        to another run, is complete, is being written by another process, or can't be written;
        `OutputError` if the disk is full."""
        if path.is_symlink():  # the file that it points to is written
            path = Path(os.path.realpath(path))
        suffix = path.suffix.lower()
        if suffix not in ENCODERS:
            raise UsageError(f"{path} must end in {' or '.join(ENCODERS)}, or be -")
        if path.is_dir():
            raise UsageError(f"can't write {path}: it is a folder")
        beside = record_path(path)
        if beside.is_dir():
            raise UsageError(f"can't write {beside}: it is a folder")
        if not overwrite:
            find_record(path)  # another file of that name would be replaced
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self._journal_path = path.with_name(path.name + ".partial.run")
        self._encode = ENCODERS[suffix]
        try:
            self._open(run, overwrite)
        except OSError as error:
            kind = OutputError if error.errno in NO_ROOM else UsageError
            raise kind(f"can't write {path}: {error.strerror or error}") from None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows and note them in the journal. Raises `OutputError`, and `UsageError` if other
        networks answered the job that continues the rows than those before."""
        self._refuse_other_weights(named_in(batch, WEIGHTS_KEY))
        with output_errors(self.path):
            write_all(self._file, self._encode(batch, self.counts.images == 0))
            self.count(batch)
            note = Note(self._file.tell(), self.counts, self.parts)
            write_all(self._journal, NOTES.dump_json(note) + b"\n")

    def sync(self) -> None:
        """Bring all rows and the journal to the disk, so that they outlive a power cut. Raises
        `OutputError`."""
        with output_errors(self.path), open_folder(self.path.parent) as folder:
            for descriptor in (self._file.fileno(), self._journal.fileno(), folder):
                os.fsync(descriptor)

    def finish(self, read: What = "digit", record: Record | None = None) -> None:
        """Complete the file and its record, and rename both. Raises `OutputError`; then an
        older file may have lost its record, and a new one may lack it."""
        with output_errors(self.path):
            if self.counts.images == 0:
                write_all(self._file, self._encode(no_rows(read), True))
            os.fsync(self._file.fileno())
            if self._encode is encode_arrow:
                self._replace_by_parquet(record)
            else:
                self._replace(self.partial, record)
            os.unlink(self._journal_path)
        self.close()

    def close(self) -> None:
        """Close the file, which can be resumed; remove it if it has no rows."""
        if self.counts.images == 0 and not self._file.closed:
            self.partial.unlink(missing_ok=True)
            self._journal_path.unlink(missing_ok=True)
        self._file.close()
        self._journal.close()

    def _refuse_other_weights(self, new: Names) -> None:
        """Raises `UsageError` if another job's rows are continued by other networks. Later on in a
        job, workers that differ are only noted: its rows can't be taken back."""
        earlier, last = self.parts[:-1], self.parts[-1:]
        if any(part.images or part.job in {other.job for other in earlier} for part in last):
            return
        old = all_weights(earlier)
        if old and new and new[0] not in old:
            raise UsageError(
                f"the workers have other weights ({new[0]}) than those that wrote "
                f"{self.partial} ({', '.join(old)}): --overwrite starts again, and workers with "
                "the old weights continue it"
            )

    def _open(self, run: Identity, overwrite: bool) -> None:
        is_new = not self._journal_path.exists()
        with ExitStack() as stack:  # undoes everything if an exception is raised
            self._journal = stack.enter_context(FileIO(self._journal_path, "a+"))
            self._lock()
            if is_new:
                stack.callback(self._journal_path.unlink, missing_ok=True)
            # This is checked under the lock, because another run may just have ended
            if os.path.exists(self.path) and not overwrite:
                raise UsageError(f"{self.path} exists: --overwrite replaces it")
            if overwrite:
                self._journal.truncate(0)
            size = self._read_journal(run)
            if not size:
                stack.callback(self._journal_path.unlink, missing_ok=True)
            if is_new and not overwrite and os.path.lexists(self.partial):
                raise UsageError(
                    f"{self.partial} exists without a journal: --overwrite replaces it"
                )
            self._file = stack.enter_context(FileIO(self.partial, "r+" if size else "w"))
            self._file.truncate(size)
            self._file.seek(size)
            stack.pop_all()

    def _lock(self) -> None:
        """Lock the journal. Raises `UsageError` if another run has it or has just removed it."""
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = os.fstat(self._journal.fileno()).st_nlink > 0
        except BlockingIOError:
            is_free = False
        except OSError:  # the file system has no locks
            return
        if not is_free:
            raise UsageError(f"{self.path} is being written by another run")

    def _read_journal(self, run: Identity) -> int:
        """Take the last noted counts and parts; gives the size of their rows in bytes. Begins a
        journal if there is none."""
        self._journal.seek(0)
        lines = self._journal.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        if not whole:
            self._journal.truncate(0)
            write_all(self._journal, json.dumps(run).encode() + b"\n")
            return 0
        try:
            old, notes = parse_journal(whole)
        except ValueError:
            reason = "damaged, or of another version"
            raise UsageError(
                f"{self._journal_path} is {reason}: --overwrite starts again"
            ) from None
        if old != run:
            kept = ", and the old weights continue it" * (old.get("weights") != run.get("weights"))
            raise UsageError(
                f"{self.partial} belongs to another run ({difference(old, run)}): "
                f"--overwrite starts again{kept}"
            )
        on_disk = self.partial.stat().st_size if self.partial.exists() else 0
        while notes and notes[-1].size > on_disk:
            notes.pop()  # if it stayed, it would seem valid once the file is as long again
        self._journal.truncate(sum(map(len, whole[: 1 + len(notes)])))
        if not notes:
            return 0
        self.counts, self.parts = notes[-1].counts, notes[-1].parts
        return notes[-1].size

    def _replace(self, written: Path, record: Record | None) -> None:
        """Rename the file that is written, and its record. No record may ever be beside rows of
        another run; rows without one do no harm."""
        beside = self._journal_path.with_suffix(".rec")
        try:
            if record:
                with open(beside, "wb") as file:
                    file.write(record.encode())
                    file.flush()
                    os.fsync(file.fileno())
            record_path(self.path).unlink(missing_ok=True)
            os.replace(written, self.path)
            if record:
                os.replace(beside, record_path(self.path))
        finally:
            beside.unlink(missing_ok=True)

    def _replace_by_parquet(self, record: Record | None) -> None:
        converted = self._journal_path.with_suffix(".new")  # not longer than the journal's name
        try:
            with (
                pa.OSFile(str(self.partial)) as file,
                pa.ipc.open_stream(file) as reader,
                pq.ParquetWriter(
                    converted, reader.schema.remove_metadata(), use_dictionary=REPEATED
                ) as writer,
            ):
                for table in regroup(reader, ROW_GROUP_ROWS):
                    writer.write_table(table)
            with open(converted, "rb") as file:
                os.fsync(file.fileno())
            self._replace(converted, record)
            os.unlink(self.partial)
        finally:
            converted.unlink(missing_ok=True)


@contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """A descriptor of the folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def no_rows(read: What) -> pa.RecordBatch:
    """An empty result batch."""
    return pa.RecordBatch.from_pylist([], result_schema(read))


def regroup(reader: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """The rows of all batches in tables of `rows` rows; the last table has the rest."""
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


def parse_journal(lines: list[bytes]) -> tuple[Identity, list[Note]]:
    """The run, and the note after each batch. Raises `ValueError`."""
    run = json.loads(lines[0])
    if not isinstance(run, dict):
        raise ValueError("this is not a journal")
    return run, [NOTES.validate_json(line) for line in lines[1:]]


def difference(old: Identity, new: Identity) -> str:
    """A description of how two runs differ."""
    if set(old) != set(new):
        return "it was started by another command or an older version"
    changed = [name for name in new if old[name] != new[name]]
    if changed == ["modified"]:
        return "a table, a set or the right answers have changed since"
    differences = []
    for name in changed:
        value = old[name]
        if name == "weights":
            was, now = value or "built in", new[name] or "those built in"
            differences.append(f"its weights were {was}, not {now}")
        elif name == "known":  # only the hash is in the journal
            differences.append("the length or the allowed numbers were different")
        elif name == "model" and read_by(str(value)) == "number":
            differences.append("it read whole numbers")
        elif name != "modified":
            shown = " ".join(map(str, value)) if isinstance(value, list) else value or "none"
            differences.append(f"{name} was {shown}")
    return ", ".join(differences)


@contextmanager
def output_errors(what: object) -> Iterator[None]:
    """Raises `OutputError` if `what` can't be written, or `BrokenPipeError`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"can't write {what}: {reason}") from None


def write_all(file: FileIO, content: bytes) -> None:
    """Write everything to an unbuffered file, so that closing it can't fail."""
    view = memoryview(content)
    while view:
        written = file.write(view)
        if written is None:  # another program has made the terminal or pipe non-blocking
            select.select([], [file], [])
        view = view[written or 0 :]
