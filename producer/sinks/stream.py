"""A sink that writes rows to stdout."""

import select
from io import FileIO
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from producer.checkpoint import Checkpoint
from producer.sinks.encoders import NO_ROWS, Encode, encode_csv
from protocol.errors import OutputError


class Sink(Protocol):
    """Where result batches go. `written` counts them, with those of an earlier, broken run."""

    checkpoint: Checkpoint

    def write(self, batch: pa.RecordBatch) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class StreamSink:
    """Rows onto an open binary stream, such as stdout; by default as CSV."""

    def __init__(self, stream: BinaryIO, encode: Encode = encode_csv) -> None:
        self._raw: Any = getattr(stream, "raw", stream)  # past any buffer
        self._encode = encode
        self.checkpoint = Checkpoint()

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows. Raises `OutputError`, and `BrokenPipeError` where nobody reads them."""
        self._write(self._encode(batch, self.checkpoint.rows == 0))
        self.checkpoint = self.checkpoint.add(batch)

    def finish(self) -> None:
        """All rows are written; where there was none, the header is."""
        if self.checkpoint.rows == 0:
            self._write(self._encode(NO_ROWS, True))

    def _write(self, content: bytes) -> None:
        try:
            write_all(self._raw, content)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"can't write the rows: {error.strerror or error}") from None

    def close(self) -> None:
        """The stream is its owner's to close."""


def write_all(file: FileIO, content: bytes) -> None:
    """Past any buffer, so that nothing is left to fail when the file is closed."""
    view = memoryview(content)
    while view:
        written = file.write(view)
        if written is None:  # a terminal or a pipe that another program has set not to wait
            select.select([], [file], [])
        view = view[written or 0 :]
