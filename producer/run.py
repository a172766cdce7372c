"""Running a job for a person at a terminal: private or shared workers, progress, result file."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import Thread

import pyarrow as pa
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from producer.client import Client
from producer.job import Job
from producer.local import Local
from producer.options import say
from producer.sinks import Sink
from protocol.cores import usable_cores
from protocol.errors import BrokerError, DigitqError, UsageError
from protocol.ledger import Ledger
from protocol.settings import settings

FILES_OF_A_WORKER = 64  # fewer are done before another worker would have started
SILENT_SECONDS = 10  # without a progress bar, until it is said that nothing comes


@dataclass(frozen=True)
class Service:
    """A client, and the private processes behind it where there are any."""

    client: Client
    local: Local | None


@contextmanager
def service(
    broker: str | None, workers: int | None, images: int | None = None
) -> Iterator[Service]:
    """The broker that is named, or a private Redis with workers: one for each core, or fewer for
    few `images`, where their number is known. Raises as `Client` does."""
    if url := broker or settings().broker_url:
        if workers:
            of = "--broker" if broker else "DIGITQ_BROKER_URL"
            raise UsageError(f"--workers starts private ones: it does not go with {of}")
        client = Client(url)
        client.ledger.redis.on_loss = say
        yield Service(client, None)
        return
    if not workers:
        workers = usable_cores()
        if images is not None:
            workers = min(workers, -(-images // FILES_OF_A_WORKER))
    with Local(workers) as local, private_service(local) as running:
        yield running


@contextmanager
def private_service(local: Local) -> Iterator[Service]:
    """Private processes as a service, once the first worker is ready. A private Redis that is gone
    does not come back: nobody waits for it."""
    local.wait_until_ready(workers=1)
    try:
        yield Service(Client(local.url, patience_seconds=0), local)
    except BrokerError:
        local.check_after_loss()
        raise


def take_results(service: Service, job: Job, sink: Sink, count: Callable[[], int | None]) -> float:
    """Write a job's results, showing how far it is; gives images a second.

    Whatever goes wrong, Ctrl-C too, drops an attached job from Redis; what is written stays.
    """
    before, started = sink.written.rows, time.monotonic()
    try:
        with _progress_bar() as progress:
            bar = progress.add_task("classifying", total=None, rate="", waiting="")
            if not progress.disable:
                Thread(target=_show_total, args=(progress, bar, count), daemon=True).start()
            job.on_idle = _look_after(service, job, progress, bar)
            service.client.ledger.redis.on_loss = partial(_note, progress)
            for batch in _after(before, job):
                sink.write(batch)
                done = sink.written.rows
                rate = (done - before) / (time.monotonic() - started)
                progress.update(bar, completed=done, rate=f"{rate:,.0f} images/s", waiting="")
        sink.finish()
    except BaseException:
        if job.attached:
            service.client.abandon(job)
        raise
    finally:
        sink.close()
    return (sink.written.rows - before) / (time.monotonic() - started)


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


def _look_after(service: Service, job: Job, progress: Progress, bar: TaskID) -> Callable[[], None]:
    """While nothing comes: see to the private processes, and say what is waited for."""
    idle_since, seen = time.monotonic(), 0.0
    said = False

    def look() -> None:
        nonlocal idle_since, seen, said
        if service.local:
            service.local.check()
        if seen != progress.tasks[bar].completed:
            idle_since, seen = time.monotonic(), progress.tasks[bar].completed
        what = job.lacks
        if what == "a worker" and _is_any_worker_busy(service.client.ledger):
            progress.update(bar, waiting="the workers are busy")
            idle_since = time.monotonic()
            return
        if what == "a worker" and not service.local:
            what += ": `digitq worker` starts one, with the same Redis"
        progress.update(bar, waiting=f"waiting for {what}")
        if progress.disable and not said and time.monotonic() - idle_since > SILENT_SECONDS:
            _note(progress, f"waiting for {what}")
            said = True

    return look


def _note(progress: Progress, text: str) -> None:
    """A line above the progress bar, whole in a log."""
    progress.console.print(Text(text, "yellow"), soft_wrap=True)


def _is_any_worker_busy(ledger: Ledger) -> bool:
    """Whether one is at a chunk of any job, and not overdue with it: dead ones are swept first."""
    ledger.sweep(settings().deadline_seconds)
    return ledger.is_any_running()


def _progress_bar() -> Progress:
    """On a terminal's stderr; elsewhere nothing is shown."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[waiting]}", style="yellow"),
        console=console,
        disable=not console.is_terminal,
    )
