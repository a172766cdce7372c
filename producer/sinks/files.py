"""Result files: CSV, JSON lines and Parquet, written in source order and resumable.

Rows go to `OUT.partial`, beside a journal `OUT.partial.run`: its first line says what the run
is, each further one how many rows and bytes were whole after a batch, and a checksum of the ids.
The same run again cuts the file after the last whole batch and goes on there. When all rows are
there the file gets its name. Parquet can't be cut, so its partial file is an Arrow stream.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from io import FileIO
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from producer.checkpoint import Checkpoint
from producer.sinks.encoders import ENCODERS, NO_ROWS, encode_arrow
from producer.sinks.journal import Run, difference, parse_journal
from producer.sinks.stream import write_all
from protocol.errors import OutputError, UsageError

ROW_GROUP_ROWS = 1 << 16
FEW_VALUES = ["label", "error", "truth"]  # columns that a dictionary makes smaller, in Parquet


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
        self.checkpoint: Checkpoint
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
            write_all(self._file, self._encode(batch, self.checkpoint.rows == 0))
            self.checkpoint = self.checkpoint.add(batch)
            self._note([self._file.tell(), *astuple(self.checkpoint)])

    def finish(self) -> None:
        """Give the file its name. Raises `OutputError`."""
        with _output_errors(self.path):
            if self.checkpoint.rows == 0:
                write_all(self._file, self._encode(NO_ROWS, True))
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
        if self.checkpoint.rows == 0 and not self._file.closed:
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
            self.checkpoint, size = self._read_journal(run)
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

    def _read_journal(self, run: Run) -> tuple[Checkpoint, int]:
        """What is written already, and its size in bytes. Begins a new journal where none is."""
        self._journal.seek(0)
        lines = self._journal.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        if not whole:
            self._journal.truncate(0)
            self._note(run)
            return Checkpoint(), 0
        try:
            old, notes = parse_journal(whole)
        except ValueError:
            raise UsageError(f"{self._journal_path} is damaged: --overwrite starts again") from None
        if old != run:
            raise UsageError(
                f"{self.partial} is of another run ({difference(old, run)}): "
                "--overwrite starts again"
            )
        on_disk = self.partial.stat().st_size if self.partial.exists() else 0
        while notes and notes[-1][0] > on_disk:
            notes.pop()  # else it might be taken for true when as much is written again
        self._journal.truncate(sum(map(len, whole[: 1 + len(notes)])))
        return notes[-1][::-1] if notes else (Checkpoint(), 0)

    def _note(self, fact: object) -> None:
        write_all(self._journal, json.dumps(fact).encode() + b"\n")

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


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"can't write {path}: {reason}") from None
