"""`--adapt`: a run in three phases, which one bar shows."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from digitq.backend import Bar, open_bar, take_results
from digitq.phases import adapt_network
from digitq.producer.adapted import MAX_SEEN, MAX_SEEN_NUMBERS, Adapted
from digitq.producer.client import Client
from digitq.producer.job import Job
from digitq.producer.sinks.journal import Identity
from digitq.producer.sinks.resumable import FileSink
from digitq.producer.sinks.sink import Sink
from digitq.producer.sources.source import Source
from digitq.protocol.asked.reading import AnswerT, Reading
from digitq.protocol.prediction import Answer
from digitq.protocol.text import plural
from digitq.terminal import echo_err

# A network is adapted in about so many seconds, and as many more for each row, up to so many
TRAINING_SECONDS = {"digit": (30, 0.01, MAX_SEEN), "number": (75, 0.06, MAX_SEEN_NUMBERS)}
OpenSource = Callable[[], Source]


class AdaptingBar:
    """Shows how far a network is adapted: the first two of three phases of a bar."""

    def __init__(self, bar: Bar, reading: Reading[Answer]) -> None:
        self.bar, self.reading, self.read_seconds = bar, reading, 0.0
        self.fixed, self.each, self.most = TRAINING_SECONDS[reading.what]

    def take(self, client: Client, job: Job, sink: Sink, source: Source) -> None:
        """Write the results of the first job."""

        def later(seconds: float) -> float:
            self.read_seconds = seconds
            return self.fixed + self.each * min(self.bar.rows, self.most) + seconds

        self.bar.begin(0, later)
        count = lambda: self.reading.count_rows(source.count())  # noqa: E731
        take_results(client, job, sink, count, shown=self.bar)

    def learn(self, share: float) -> None:
        """So much of the training is done."""
        if self.bar.phase != 1:
            self.bar.begin(1, lambda seconds: self.read_seconds)
        seconds = time.monotonic() - self.bar.begun
        self.bar.show(
            share, seconds / share * (1 - share) if share else self.fixed, done="learning"
        )


@contextmanager
def open_each_time(sources: Sequence[str], open_source: OpenSource) -> Iterator[OpenSource]:
    """A function that opens the sources each time it is called, also if one is the paths on stdin:
    these are kept in a file that has no name."""
    if "-" not in sources or not sys.stdin:
        yield open_source
        return
    before = sys.stdin
    with TemporaryFile() as paths:
        shutil.copyfileobj(before.buffer, paths)

        def open_again() -> Source:
            paths.seek(0)
            sys.stdin = open(paths.fileno(), closefd=False)  # noqa: SIM115 (the source reads it)
            return open_source()

        try:
            yield open_again
        finally:
            sys.stdin = before


def adapt_before(
    client: Client, open_source: OpenSource, reading: Reading[AnswerT]
) -> Adapted[AnswerT]:
    """Adapt the network to the images for a job that follows. Raises as `adapt_network`."""
    with open_bar(None, phases=2) as bar, TemporaryDirectory() as folder:
        phases = AdaptingBar(bar, reading)
        adapted = adapt_network(client, open_source, reading, Path(folder), {}, phases=phases)
    if adapted.why:
        echo_err(f"not adapted: {adapted.why}")
    return adapted


def take_adapted(
    client: Client,
    open_source: OpenSource,
    reading: Reading[AnswerT],
    sink: Sink,
    run: Identity,
    workers: int | None = None,
    overwrite: bool = False,
) -> Adapted[AnswerT]:
    """Adapt the network to the images, and write what it then reads to a sink; or the first
    answers, if nothing was gained. Raises as `adapt_network` and `Client.write_results`."""
    with open_bar(sink, phases=3) as bar, open_folder(sink, overwrite) as folder:
        phases = AdaptingBar(bar, reading)
        adapted = adapt_network(client, open_source, reading, folder, run, workers, phases)
        if adapted.why:
            keep_first(adapted, sink)
        else:
            bar.begin(2)
            source = open_source()
            job = client.submit_source(source, resume=sink.counts, adapted=adapted)
            count = lambda: reading.count_rows(source.count())  # noqa: E731
            take_results(client, job, sink, count, shown=bar)
    return adapted


@contextmanager
def open_folder(sink: Sink, overwrite: bool) -> Iterator[Path]:
    """Where the phases of a run leave what they have made. It is beside a file, so that the same
    run goes on with it, and is removed once the file is whole."""
    if not isinstance(sink, FileSink):
        with TemporaryDirectory() as folder:
            yield Path(folder)
        return
    path = sink.path.with_name(f"{sink.path.name}.adapting")
    if overwrite:
        shutil.rmtree(path, ignore_errors=True)
    try:
        yield path
    except BaseException:
        if path.exists() and not sink.counts.images:
            echo_err(f"what is done is in {path}: the same command goes on from there")
        raise
    shutil.rmtree(path, ignore_errors=True)


def keep_first(adapted: Adapted[Answer], sink: Sink) -> None:
    """Write the rows of the first job to a sink, if nothing was gained. Raises `OutputError`."""
    for batch in adapted.rows(sink.counts.images):
        sink.write(batch)
    sink.begin("")  # if the file has no rows
    sink.parts = adapted.record.parts or sink.parts
    sink.finish(adapted.reading.what, adapted.record)


def report_adapted(adapted: Adapted[Answer], to_review: int) -> None:
    """Tell what was gained, or why nothing was."""
    if adapted.why:
        echo_err(f"not adapted: {adapted.why}")
        return
    counts = adapted.record.counts
    rows = plural(counts.images, adapted.reading.row)
    echo_err(f"adapted to {rows}: {counts.review:,} to review became {to_review:,}")
