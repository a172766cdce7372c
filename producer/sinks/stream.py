"""A sink that writes rows to stdout."""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from producer.checkpoint import Checkpoint
from producer.sinks.encoders import NO_ROWS, Encode, encode_csv
from protocol.errors import OutputError


class Sink(Protocol):
    """Takes result batches. `checkpoint` counts all rows, with those of an interrupted run."""

    checkpoint: Checkpoint

    def write(self, batch: pa.RecordBatch) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class StreamSink:
    """Writes rows to an open binary stream such as stdout, by default as CSV."""

    def __init__(self, stream: BinaryIO, encode: Encode = encode_csv) -> None:
        self._raw: Any = getattr(stream, "raw", stream)  # unbuffered
        self._encode = encode
        self.checkpoint = Checkpoint()

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows. Raises `OutputError`, or `BrokenPipeError` if the reader has gone."""
        self._write(self._encode(batch, self.checkpoint.rows == 0))
        self.checkpoint = self.checkpoint.add(batch)

    def finish(self) -> None:
        """Write the header if there were no rows."""
        if self.checkpoint.rows == 0:
            self._write(self._encode(NO_ROWS, True))

    def _write(self, content: bytes) -> None:
        with output_errors("the rows"):
            write_all(self._raw, content)

    def close(self) -> None:
        """Do nothing: whoever opened the stream closes it."""


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
