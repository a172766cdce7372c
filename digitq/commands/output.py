"""The result file of a command, and what is said of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitq.terminal import echo_err
from protocol.errors import (
    BrokerError,
    JobAbandonedError,
    JobCancelledError,
    JobFailedError,
    UnknownJobError,
    UsageError,
)
from protocol.text import plural

if TYPE_CHECKING:
    from producer.sinks.stream import Sink


def open_sink(out: str | None, run: dict[str, Any], overwrite: bool) -> "Sink":
    from producer.sinks.encoders import encode_csv, encode_lines
    from producer.sinks.files import FileSink
    from producer.sinks.stream import StreamSink

    if out is not None and out != "-":
        return FileSink(Path(out), run, overwrite)
    if not sys.stdout:  # `>&-`
        raise UsageError("stdout is closed: -o names a file")
    reads = out is None and sys.stdout.isatty()
    return StreamSink(sys.stdout.buffer, encode_lines if reads else encode_csv)


def say_where(sink: "Sink") -> None:
    from producer.sinks.files import FileSink

    if isinstance(sink, FileSink):
        echo_err(f"the rows are in {sink.path}")


@contextmanager
def told_what_is_left(
    sink: "Sink", overwrite: bool, collected: str | None = None
) -> Iterator[None]:
    """Broken off, say what there is of a result file, and how it goes on; and what becomes of the
    job that was `collected`."""
    from producer.sinks.files import FileSink

    try:
        yield
    except BaseException as error:
        is_lost = collected and isinstance(error, UnknownJobError)  # it was there just now
        if (
            isinstance(sink, FileSink)
            and (is_lost or not isinstance(error, UsageError))
            and sink.checkpoint.rows
            and sink.partial.exists()
        ):
            ended = isinstance(error, JobCancelledError | JobFailedError | JobAbandonedError)
            gone = is_lost or collected and ended
            gone = gone or sink.path.exists()  # only --overwrite replaces it, and begins anew
            same = "the same command without --overwrite" if overwrite else "the same command"
            goes_on = "" if gone else f": {same} goes on from there"
            echo_err(f"{plural(sink.checkpoint.rows, 'row')} in {sink.partial}{goes_on}")
        elif collected and isinstance(error, KeyboardInterrupt):
            echo_err(f"job {collected} is left as it is: the same command collects it")
        if is_lost:
            raise BrokerError(f"Redis no longer has job {collected}, or its results") from None
        raise
