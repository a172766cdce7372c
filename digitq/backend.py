"""The workers that a command uses, and the run of a job on them with its progress bar."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from threading import Thread
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from digitq import phases
from digitq.options import MAX_WORKERS_PER_CORE
from digitq.private.processes import Local
from digitq.producer.client import Client
from digitq.producer.job import Job
from digitq.producer.sinks.sink import Sink, StreamSink
from digitq.progress import Pace, progress_bar
from digitq.protocol.broker.address import url_in_command
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.host.cores import usable_cores
from digitq.protocol.settings import settings
from digitq.protocol.text import plural
from digitq.summary import describe_flaws
from digitq.terminal import echo_err

FILES_PER_WORKER = 64  # while one more worker starts, the others classify this many files
MAX_SILENT_SECONDS = 5  # after that time without a result, a line says what is waited for


class LocalClient(phases.Client):
    """A `Client` of a private Redis and workers. They end when it is closed, once it and its jobs
    are deleted, and with this process. Workers that die are started again."""

    def __init__(self, processes: Local) -> None:
        """Wait for the first worker."""
        processes.wait_until_ready(workers=1)
        # A private Redis that died does not come back, so it is not waited for
        super().__init__(processes.url, retry_seconds=0)
        self.ledger.on_idle = processes.check
        self.ledger.redis.on_loss = processes.check_redis
        self.processes = processes

    def close(self) -> None:
        """End the workers and Redis."""
        self.__exit__()

    def __exit__(self, *exception: Any) -> None:
        super().close()
        self.processes.__exit__(*exception)


def local(workers: int | None = None) -> LocalClient:
    """Start a private Redis and workers, by default one for each core; any thread may do so.

    The client that it gives ends them: it is a context manager, and has `close`. Raises
    `UsageError` if a program or a package is missing, and `DigitqError` if a worker can't start.
    """
    most = MAX_WORKERS_PER_CORE * usable_cores()
    if workers is not None and not (isinstance(workers, int) and 1 <= workers <= most):
        raise UsageError(f"there can't be {workers!r} workers: there can be 1 to {most}")
    with ExitStack() as stack:
        client = LocalClient(stack.enter_context(Local(workers or usable_cores())))
        stack.pop_all()
    return client


@contextmanager
def open_client(
    broker: str | None, workers: int | None, images: int | None = None
) -> Iterator[Client]:
    """A client of the named broker, or of a private Redis with a worker for each core, or fewer for
    few `images`.

    Raises `UsageError` for `workers` with a broker, and whatever `Client` and `Local` raise.
    """
    if url := broker or settings().broker_url:
        if workers:
            named = "--broker" if broker else "DIGITQ_BROKER_URL"
            raise UsageError(f"--workers starts private workers: it does not go with {named}")
        if settings().weights:
            echo_err("DIGITQ_WEIGHTS has no effect here: running workers keep their own weights")
        with phases.Client(url) as client:
            yield client
        return
    if not workers:
        workers = usable_cores()
        if images is not None:
            workers = min(workers, max(1, -(-images // FILES_PER_WORKER)))
    starting = f"starting Redis and {plural(workers, 'worker')} …"
    with Console(stderr=True).status(starting) if sys.stderr.isatty() else nullcontext():
        private = local(workers)
    with private:
        yield private


class Bar:
    """The progress bar of a run, which may have several phases: then one share of the bar is that
    of each, and the time left is that of all."""

    def __init__(self, progress: Progress, phases: int = 1) -> None:
        self.progress, self.phases = progress, phases
        self.task = progress.add_task("", total=None, done="", rate="", waiting="", flaws=[])
        self.phase, self.begun = 0, time.monotonic()
        self.later: Callable[[float], float] = lambda seconds: 0.0
        self.done, self.rows = 0, 0  # rows of this phase, and how many it has; 0 if unknown

    def begin(self, phase: int, later: Callable[[float], float] = lambda seconds: 0.0) -> None:
        """Begin a phase, from 0 on. `later` gives how many seconds those after it take, by what
        this one takes."""
        self.phase, self.later, self.begun = phase, later, time.monotonic()
        self.done, self.rows = 0, 0
        self.update(done="", rate="", waiting="", flaws=[])

    def show(self, share: float, left: float, **fields: Any) -> None:
        """So much of the phase is done, and so many seconds of it are left."""
        left += self.later(time.monotonic() - self.begun + left)
        completed, ends = self.phase + share, time.monotonic() + left
        self.update(completed=completed, total=self.phases, ends=ends, **fields)

    def update(self, **fields: Any) -> None:
        self.progress.update(self.task, **fields)


@contextmanager
def open_bar(sink: Sink | None, phases: int = 1) -> Iterator[Bar]:
    """A bar for what is written to a sink; it is hidden if the rows are shown."""
    rows_are_shown = isinstance(sink, StreamSink) and sys.stdout.isatty()
    with progress_bar(hidden=rows_are_shown) as progress:
        yield Bar(progress, phases)


def take_results(
    client: Client,
    job: Job,
    sink: Sink,
    count: Callable[[], int | None],
    sync: Callable[[], None] | None = None,
    shown: Bar | None = None,
) -> None:
    """Write a job's results and show the progress, as a phase of a bar if one is `shown`.

    `count` gives the number of images, which may take a while; `sync` and the rest are those of
    `Client.write_results`.
    """
    with ExitStack() as stack:
        bar = shown or stack.enter_context(open_bar(sink))
        bar.done, pace = sink.counts.done, Pace()

        def show_total() -> None:
            with suppress(DigitqError, OSError):  # the bar then shows no total
                bar.rows = count() or 0

        def report_disconnect(text: str) -> None:
            bar.update(rate="", waiting="no Redis")
            _print_above(bar.progress, text)

        def show(batch: pa.RecordBatch) -> None:
            bar.done, rows, part = sink.counts.done, bar.rows, sink.parts[-1]
            left = pace.end_of(max(0, rows - bar.done), batch.num_rows) - time.monotonic()
            fields = {
                "done": f"{bar.done:,}/{rows:,}" if rows else f"{bar.done:,}",
                "rate": f"{part.images_per_second:,.0f} images/s",
                "waiting": "",
                "flaws": describe_flaws(sink.counts),
            }
            if rows:
                bar.show(bar.done / rows, left, **fields)
            else:
                bar.update(**fields)

        if not bar.progress.disable:
            Thread(target=show_total, daemon=True).start()
        job.on_idle = watch_idle(job, bar)
        stack.callback(setattr, job, "on_idle", None)  # it has the job, which would live on
        watchers = job.ledger.redis.watchers  # other jobs may run at the same time
        watchers.append(report_disconnect)
        stack.callback(watchers.remove, report_disconnect)
        client.write_results(job, sink, sync, show)


def watch_idle(job: Job, bar: Bar) -> Callable[[], None]:
    """A function that restarts dead private processes and shows what the job waits for."""
    idle_since, seen, is_reported = time.monotonic(), 0, False
    ledger = job.ledger

    def look() -> None:
        nonlocal idle_since, seen, is_reported
        if ledger.on_idle:
            ledger.on_idle()
        if seen != bar.done:
            idle_since, seen = time.monotonic(), bar.done
        what = job.lacks
        is_running = what == "a worker" and bool(ledger.running_chunks([job.id]))
        if is_running or what == "a worker" and ledger.has_worker():
            bar.update(waiting="" if is_running else "behind other jobs")
            idle_since = time.monotonic()
            return
        bar.update(waiting=f"waiting for {what}")
        if not is_reported and time.monotonic() - idle_since > MAX_SILENT_SECONDS:
            if what == "a worker" and not ledger.on_idle:
                broker = url_in_command(ledger.redis.url)
                what += f": `digitq worker --broker {broker}` starts one"
            _print_above(bar.progress, f"waiting for {what}")
            is_reported = True

    return look


def _print_above(progress: Progress, text: str) -> None:
    """Print a line above the progress bar, without line breaks where stderr is a file."""
    progress.console.print(Text(text, "yellow"), soft_wrap=True)
