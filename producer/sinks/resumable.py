"""A result file of any format that can be continued after an interruption.

Its rows go to `OUT.partial`, and what is written is noted in a journal. The same run started again
truncates the file after the last complete batch and continues there. When all rows are written, the
file is renamed. Parquet and Excel files can't be truncated, so their partial file is an Arrow
stream.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from digitq.producer.counts import Counts
from digitq.producer.provenance import (
    Names,
    Record,
    all_weights,
    find_record,
    named_in,
    record_path,
)
from digitq.producer.sinks.encoders import ENCODERS, encode_arrow
from digitq.producer.sinks.journal import Identity, Journal, Note
from digitq.producer.sinks.sink import Sink, give_name, no_rows, output_errors, write_all
from digitq.producer.sinks.workbook import write_workbook
from digitq.protocol.chunk import WEIGHTS_KEY
from digitq.protocol.errors import OutputError, UsageError
from digitq.protocol.formats.xlsx_rows import XLSX, import_openpyxl
from digitq.protocol.host.folders import check_folder
from digitq.protocol.settings import What
from digitq.protocol.text import plural

ROW_GROUP_ROWS = 1 << 16  # a row group of Parquet has this many rows
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk is full, not the path wrong
REPEATED = ["label", "error", "reason", "truth"]  # columns of few values: each is stored once


class FileSink(Sink):
    """A result file that is being written."""

    _file: FileIO

    def __init__(
        self, path: Path, run: Identity, overwrite: bool = False, name: str | None = None
    ) -> None:
        """Open or resume the file, whose `name` for people is its path by default. Raises
        `UsageError` if its format is unknown, or if it belongs to another run, is complete, is
        being written by another process, or can't be written; `OutputError` if the disk is full."""
        if path.is_symlink():  # the file that it points to is written
            path = Path(os.path.realpath(path))
        suffix = path.suffix.lower()
        if suffix not in ENCODERS:
            raise UsageError(f"{path} must end in {' or '.join(ENCODERS)}, or be -")
        if suffix == XLSX:
            import_openpyxl()
        check_folder(path)
        for one in (path, record_path(path)):
            if one.is_dir():
                raise UsageError(f"can't write {one}: it is a folder")
        if not overwrite:
            find_record(path)  # another file of that name would be replaced
        self.path, self.name = path, name or str(path)
        self.partial = path.with_name(path.name + ".partial")
        self._overwrite = overwrite
        self._encode = ENCODERS[suffix]
        try:
            self._open(run, overwrite)
        except OSError as error:
            kind = OutputError if error.errno in NO_ROOM else UsageError
            raise kind(f"can't write {path}: {error.strerror or error}") from None

    def exists(self) -> bool:
        """Whether there is a complete file already."""
        return self.path.exists()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows and note them in the journal. Raises `OutputError`, and `UsageError` if other
        networks answered the job that continues the rows than those before."""
        self._refuse_other_weights(named_in(batch, WEIGHTS_KEY))
        self._check_partial()
        with output_errors(self.name):
            write_all(self._file, self._encode(batch, self.counts.images == 0))
            self.count(batch)
            self._journal.add(Note(self._file.tell(), self.counts, self.parts))

    def sync(self) -> None:
        """Bring all rows and the journal to the disk, so that they outlive a power cut. Raises
        `OutputError`."""
        with output_errors(self.name), ExitStack() as stack:
            folder = os.open(self.path.parent, os.O_RDONLY)
            stack.callback(os.close, folder)
            for descriptor in (self._file.fileno(), self._journal.fileno(), folder):
                os.fsync(descriptor)

    def finish(self, read: What = "digit", record: Record | None = None) -> None:
        """Complete the file and its record, and rename both. Raises `OutputError`; then an
        older file may have lost its record, and a new one may lack it."""
        self._check_partial()
        if self.exists() and not self._overwrite:
            raise self._refuse_replacing()
        with output_errors(self.name):
            if self.counts.images == 0:
                write_all(self._file, self._encode(no_rows(read), True))
            os.fsync(self._file.fileno())
            if self._encode is encode_arrow:
                self._replace_by_converted(record)
            else:
                self._replace(self.partial, record)
            self._journal.path.unlink()
        self.close()

    def close(self) -> None:
        """Close the file, which can be resumed; remove it if it has no rows."""
        if self.counts.images == 0 and not self._file.closed:
            if self._has_partial():
                self.partial.unlink()
            self._journal.path.unlink(missing_ok=True)
        self._file.close()
        self._journal.close()

    def _has_partial(self) -> bool:
        """Whether the partial file is still the one that is being written."""
        with suppress(OSError):
            return os.path.samestat(os.stat(self.partial), os.fstat(self._file.fileno()))
        return False

    def _check_partial(self) -> None:
        """Raises `OutputError` if somebody has removed or replaced the partial file."""
        if not self._has_partial():
            lost, self.counts = self.counts.images, Counts()
            rows = f"{plural(lost, 'row')} that it had are lost: " if lost else ""
            raise OutputError(
                f"{self.partial} was removed or replaced during the run: {rows}"
                "the same command with --overwrite starts again"
            )

    def _refuse_replacing(self) -> OutputError:
        return OutputError(
            f"{self.name} was made by another program during the run, and is not replaced: move it "
            "away, and the same command puts the rows there"
        )

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
        with ExitStack() as stack:  # undoes everything if an exception is raised
            journal = self._journal = stack.enter_context(Journal(self.partial))
            if not journal.lock():
                raise UsageError(f"{self.path} is being written by another run")
            if journal.is_new:
                stack.callback(journal.path.unlink, missing_ok=True)
            # This is checked under the lock, because another run may just have ended
            if self.exists() and not overwrite:
                raise UsageError(f"{self.name} exists: --overwrite replaces it")
            if journal.is_new and not overwrite and os.path.lexists(self.partial):
                raise UsageError(
                    f"{self.partial} exists without a journal: --overwrite replaces it"
                )
            if overwrite:
                journal.truncate(0)
            note = journal.open_run(run)
            self.counts, self.parts = note.counts, note.parts
            if not note.size:
                stack.callback(journal.path.unlink, missing_ok=True)
            self._file = stack.enter_context(FileIO(self.partial, "r+" if note.size else "w"))
            self._file.truncate(note.size)
            self._file.seek(note.size)
            stack.pop_all()

    def _replace(self, written: Path, record: Record | None) -> None:
        """Rename the file that is written, and its record. No record may ever be beside rows of
        another run; rows without one do no harm."""
        beside = self._journal.path.with_suffix(".rec")
        try:
            if record:
                self._write_record(beside, record)
            if self._overwrite:
                record_path(self.path).unlink(missing_ok=True)
                os.replace(written, self.path)
            else:
                give_name(written, self.path)
                record_path(self.path).unlink(missing_ok=True)
            if record:
                os.replace(beside, record_path(self.path))
        except FileExistsError:
            raise self._refuse_replacing() from None
        finally:
            beside.unlink(missing_ok=True)

    def _write_record(self, path: Path, record: Record) -> None:
        with open(path, "wb") as file:
            file.write(record.encode())
            file.flush()
            os.fsync(file.fileno())

    def _replace_by_converted(self, record: Record | None) -> None:
        converted = self._journal.path.with_suffix(".new")  # not longer than the journal's name
        convert = write_workbook if self.path.suffix.lower() == XLSX else write_parquet
        try:
            with pa.OSFile(str(self.partial)) as file, pa.ipc.open_stream(file) as reader:
                convert(reader, str(converted))
            with open(converted, "rb") as file:
                os.fsync(file.fileno())
            self._replace(converted, record)
            self.partial.unlink(missing_ok=True)
        finally:
            converted.unlink(missing_ok=True)


def write_parquet(reader: pa.RecordBatchReader, path: str) -> None:
    """Write all rows in row groups of `ROW_GROUP_ROWS`."""
    schema = reader.schema.remove_metadata()
    with pq.ParquetWriter(path, schema, use_dictionary=REPEATED) as writer:
        for table in regroup(reader, ROW_GROUP_ROWS):
            writer.write_table(table)


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
