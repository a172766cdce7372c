"""What takes result rows, and the one that writes them to a stream such as stdout."""

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from digitq.producer.counts import Counts
from digitq.producer.provenance import Parts, Record, RunPart
from digitq.producer.sinks.encoders import Encode, encode_csv
from digitq.protocol.chunk import result_schema
from digitq.protocol.errors import OutputError
from digitq.protocol.settings import What


class Sink:
    """Takes result batches. `counts` and `parts` include the rows before an interruption."""

    counts = Counts()
    parts: Parts = ()
    _begun = 0.0  # the start of the last part, by `time.monotonic`

    def begin(self, job_id: str) -> None:
        """Begin a part: the rows that follow are this job's."""
        self._begun = time.monotonic()
        self.parts = (*self.parts, RunPart(job_id))

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows, and count them."""
        raise NotImplementedError

    def count(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch that is written."""
        self.counts = self.counts.add(batch)
        if self.parts:
            *before, last = self.parts
            self.parts = (*before, last.add(batch, time.monotonic() - self._begun))

    def finish(self, read: What = "digit", record: Record | None = None) -> None:
        """End the output. Without rows, it gets the columns of a job that reads this. A file gets
        the `record` of what made its rows."""

    def upload(self) -> bool:
        """Finish the output if all of its rows are there, and only an upload failed; else False."""
        return False

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


def no_rows(read: What) -> pa.RecordBatch:
    """An empty result batch."""
    return pa.RecordBatch.from_pylist([], result_schema(read))


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


def give_name(written: Path, path: Path) -> None:
    """Rename a file that is written. Raises `FileExistsError` if `path` is there already."""
    try:
        os.link(written, path)
    except FileExistsError:
        if path.exists():
            raise
        os.replace(written, path)  # a link that leads nowhere
    except OSError:  # the file system has no hard links
        open(path, "x").close()
        try:
            os.replace(written, path)
        except OSError:
            path.unlink()
            raise
    else:
        written.unlink()


@contextmanager
def replacing(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Where to write a file as a whole. It then takes the place of `path`; if anything is raised,
    or if `path` appears meanwhile without `overwrite`, the one that is there stays. Raises as
    `output_errors`."""
    target = Path(os.path.realpath(path))  # if it is a link, its target is replaced
    partial = target.with_name(f"{target.name}.partial")
    with output_errors(path):
        try:
            yield partial
            if overwrite:
                partial.replace(target)
            else:
                give_name(partial, target)
        finally:  # after Ctrl-C too
            partial.unlink(missing_ok=True)


def write_all(file: FileIO, content: bytes) -> None:
    """Write everything to an unbuffered file, so that closing it can't fail."""
    view = memoryview(content)
    while view:
        written = file.write(view)
        if written is None:  # another program has made the terminal or pipe non-blocking
            select.select([], [file], [])
        view = view[written or 0 :]
