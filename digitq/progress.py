"""Running a job for a person at a terminal: private or shared workers, progress, result file."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread

import pyarrow as pa
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from digitq.backend import Backend
from producer.job import Job
from producer.sinks.stream import Sink, StreamSink
from protocol.broker.address import without_password
from protocol.errors import DigitqError
from protocol.ledger import Ledger
from protocol.settings import settings

SILENT_SECONDS = 5  # until it is said that nothing comes, and why
FEW = 100  # images: of fewer, how long they took says more than how many that is in a second
NARROW = 60  # columns of a terminal that has no room for all of the progress bar


def take_results(
    backend: Backend, job: Job, sink: Sink, count: Callable[[], int | None]
) -> tuple[int, float]:
    """Write a job's results, showing how far it is; gives how many, and the seconds it took.

    Whatever goes wrong, Ctrl-C too, drops an attached job from Redis; what is written stays.
    """
    before, started = sink.checkpoint.rows, time.monotonic()
    is_seen = isinstance(sink, StreamSink) and sys.stdout.isatty()  # a bar would come between
    try:
        with _progress_bar(hidden=is_seen) as progress:
            bar = progress.add_task("", total=None, completed=before, rate="", waiting="")
            if not progress.disable:
                Thread(target=_show_total, args=(progress, bar, count), daemon=True).start()
            job.on_idle = _look_after(backend, job, progress, bar)

            def tell_of_loss(text: str) -> None:
                progress.update(bar, rate="", waiting="no Redis")
                _note(progress, text)

            backend.client.ledger.redis.on_disconnect = tell_of_loss
            for batch in _after(before, job):
                sink.write(batch)
                done = sink.checkpoint.rows
                rate = (done - before) / (time.monotonic() - started)
                progress.update(bar, completed=done, rate=f"{rate:,.0f} images/s", waiting="")
        sink.finish()
    except BaseException:
        if job.attached:
            backend.client.abandon(job)
        raise
    finally:
        sink.close()
    return sink.checkpoint.rows - before, time.monotonic() - started


def describe_speed(images: int, seconds: float) -> str:
    """How fast that was, in words."""
    if images < FEW:
        return f"{seconds:,.1f} s"
    return f"{images / seconds:,.0f} images/s"


def _show_total(progress: Progress, bar: TaskID, count: Callable[[], int | None]) -> None:
    with suppress(DigitqError, OSError):  # the bar does without
        progress.update(bar, total=count())


def _after(rows: int, job: Job) -> Iterator[pa.RecordBatch]:
    """A job's results; where it is collected again, those after the rows already written."""
    left = 0 if job.attached else rows
    for batch in job.results():
        if left < batch.num_rows:
            yield batch.slice(left)
        left = max(0, left - batch.num_rows)


def _look_after(backend: Backend, job: Job, progress: Progress, bar: TaskID) -> Callable[[], None]:
    """While nothing comes: see to the private processes, and say what is waited for."""
    idle_since, seen = time.monotonic(), 0.0
    said = False

    def look() -> None:
        nonlocal idle_since, seen, said
        if backend.local:
            backend.local.check()
        if seen != progress.tasks[bar].completed:
            idle_since, seen = time.monotonic(), progress.tasks[bar].completed
        what = job.lacks
        if what == "a worker" and (busy := _find_busy(backend.client.ledger)):
            progress.update(bar, waiting="" if job.id in busy else "behind other jobs")
            idle_since = time.monotonic()
            return
        progress.update(bar, waiting=f"waiting for {what}")
        if not said and time.monotonic() - idle_since > SILENT_SECONDS:
            if what == "a worker" and not backend.local:
                broker = shlex.quote(without_password(backend.client.ledger.redis.url))
                what += f": `digitq worker --broker {broker}` starts one"
            _note(progress, f"waiting for {what}")
            said = True

    return look


def _note(progress: Progress, text: str) -> None:
    """A line above the progress bar, whole in a log."""
    progress.console.print(Text(text, "yellow"), soft_wrap=True)


def _find_busy(ledger: Ledger) -> list[str]:
    """The jobs at a chunk of which a worker is, not overdue with it: dead ones are swept first."""
    ledger.sweep(settings().deadline_seconds)
    return ledger.running()


class _Count(ProgressColumn):
    """How many images are done, of how many where that is known."""

    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f"/{task.total:,.0f}"
        return Text(f"{task.completed:,.0f}{total}", "progress.download")


def _progress_bar(hidden: bool = False) -> Progress:
    """On a terminal's stderr, until all is done; elsewhere nothing is shown."""
    console = Console(stderr=True)
    whole = Column(no_wrap=True)
    columns: list[ProgressColumn] = [
        BarColumn(complete_style="cyan", finished_style="green"),
        TaskProgressColumn(table_column=whole),
        _Count(whole),
        TextColumn("{task.fields[rate]}", table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("{task.fields[waiting]}", style="yellow", table_column=whole),
    ]
    return Progress(
        *(columns[:3] if console.width < NARROW else columns),
        console=console,
        disable=hidden or not sys.stderr.isatty(),
        transient=True,
    )
