"""The result file of a command, and what people are told about it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitq.terminal import echo_err
from protocol.errors import BrokerError, DigitqError, OutputError, UnknownJobError, UsageError
from protocol.text import plural

if TYPE_CHECKING:
    from producer.sinks.files import Sink


def open_sink(out: str | None, run: dict[str, Any], overwrite: bool) -> "Sink":
    """The sink for `--out`; `run` identifies the run that an interrupted file belongs to."""
    from producer.sinks.encoders import encode_csv, encode_lines
    from producer.sinks.files import FileSink, StreamSink

    if out is not None and out != "-":
        return FileSink(Path(out), run, overwrite)
    if not sys.stdout:  # closed by the shell's `>&-`
        raise UsageError("stdout is closed: name a file with -o")
    for_people = out is None and sys.stdout.isatty()
    return StreamSink(sys.stdout.buffer, encode_lines if for_people else encode_csv)


def report_path(sink: "Sink") -> None:
    """Tell where the rows are, if they are in a file."""
    from producer.sinks.files import FileSink

    if isinstance(sink, FileSink):
        echo_err(f"the rows are in {sink.path}")


@contextmanager
def report_interruption(
    sink: "Sink", overwrite: bool, collected: str | None = None
) -> Iterator[None]:
    """If the run in this context is interrupted, tell which rows are written and how to go on.

    `collected` is the id of the job whose results are collected; without it, the run has a job of
    its own. Raises `BrokerError` in place of `UnknownJobError` for a collected job, because Redis
    knew that job when the run started.
    """
    from producer.sinks.files import FileSink

    try:
        yield
    except BaseException as error:
        lost = collected and isinstance(error, UnknownJobError)
        failed = isinstance(error, DigitqError) and not isinstance(error, BrokerError | OutputError)
        worth_telling = lost or not isinstance(error, UsageError)
        rows = sink.checkpoint.rows if worth_telling else 0
        if isinstance(sink, FileSink) and rows and sink.partial.exists():
            # An existing result is replaced only with --overwrite, which starts from the beginning
            can_continue = not (collected and failed or sink.path.exists())
            same = "the same command without --overwrite" if overwrite else "the same command"
            advice = f": {same} continues from there" if can_continue else ""
            echo_err(f"{plural(rows, 'row')} in {sink.partial}{advice}")
        elif collected and isinstance(error, KeyboardInterrupt):
            echo_err(f"job {collected} is unchanged: the same command collects it")
        if lost:
            raise BrokerError(f"Redis no longer has job {collected}") from None
        raise
