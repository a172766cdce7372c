"""The workers that a command uses, and the run of a job on them with its progress bar."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from threading import Thread
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.text import Text

from digitq.options import MAX_WORKERS_PER_CORE
from digitq.private.processes import Local
from digitq.producer.client import Client
from digitq.producer.job import Job
from digitq.producer.provenance import Record
from digitq.producer.sinks.sink import Sink, StreamSink
from digitq.progress import Pace, progress_bar
from digitq.protocol.broker.address import url_in_command
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.host.cores import usable_cores
from digitq.protocol.settings import read_by, settings
from digitq.protocol.text import plural
from digitq.summary import describe_flaws
from digitq.terminal import echo_err

FILES_PER_WORKER = 64  # while one more worker starts, the others classify this many files
MAX_SILENT_SECONDS = 5  # after that time without a result, a line says what is waited for


class LocalClient(Client):
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
        with Client(url) as client:
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


def take_results(
    client: Client,
    job: Job,
    sink: Sink,
    count: Callable[[], int | None],
    sync: Callable[[], None] | None = None,
) -> None:
    """Write a job's results and show the progress.

    `count` gives the number of images, which may take a while; `sync` is that of `Job.results`.
    After an error or Ctrl-C an attached job is removed from Redis; the rows that are written stay.
    """
    before = sink.counts.done
    sink.begin(job.id)
    rows_are_shown = isinstance(sink, StreamSink) and sys.stdout.isatty()
    try:
        with progress_bar(hidden=rows_are_shown) as progress, ExitStack() as stack:
            bar = progress.add_task(
                "", total=None, completed=before, of="", rate="", waiting="", flaws=[]
            )

            def show_total() -> None:
                with suppress(DigitqError, OSError):  # the bar then shows no total
                    if total := count():
                        progress.update(bar, total=total, of=f"/{total:,}")

            def report_disconnect(text: str) -> None:
                progress.update(bar, rate="", waiting="no Redis")
                _print_above(progress, text)

            if not progress.disable:
                Thread(target=show_total, daemon=True).start()
            job.on_idle = watch_idle(job, progress, bar)
            watchers = job.ledger.redis.watchers  # other jobs may run at the same time
            watchers.append(report_disconnect)
            stack.callback(watchers.remove, report_disconnect)
            pace = Pace()
            for batch in job.results(before, sync):
                sink.write(batch)
                part = sink.parts[-1]
                left = (progress.tasks[bar].total or 0) - sink.counts.done
                progress.update(
                    bar,
                    completed=sink.counts.done,
                    rate=f"{part.images_per_second:,.0f} images/s",
                    waiting="",
                    ends=pace.end_of(int(left), batch.num_rows),
                    flaws=describe_flaws(sink.counts),
                )
        record = Record.build(job.model, job.origin, sink.counts, sink.parts)
        sink.finish(read_by(job.model), record)
    except BaseException:
        if job.attached:
            client.abandon(job)
        raise
    finally:
        job.on_idle = None  # it has the job, which would live until a collection
        sink.close()


def watch_idle(job: Job, progress: Progress, bar: TaskID) -> Callable[[], None]:
    """A function that restarts dead private processes and shows what the job waits for."""
    idle_since, seen, is_reported = time.monotonic(), 0.0, False
    ledger = job.ledger

    def look() -> None:
        nonlocal idle_since, seen, is_reported
        if ledger.on_idle:
            ledger.on_idle()
        if seen != progress.tasks[bar].completed:
            idle_since, seen = time.monotonic(), progress.tasks[bar].completed
        what = job.lacks
        is_running = what == "a worker" and bool(ledger.running_chunks([job.id]))
        if is_running or what == "a worker" and ledger.has_worker():
            progress.update(bar, waiting="" if is_running else "behind other jobs")
            idle_since = time.monotonic()
            return
        progress.update(bar, waiting=f"waiting for {what}")
        if not is_reported and time.monotonic() - idle_since > MAX_SILENT_SECONDS:
            if what == "a worker" and not ledger.on_idle:
                broker = url_in_command(ledger.redis.url)
                what += f": `digitq worker --broker {broker}` starts one"
            _print_above(progress, f"waiting for {what}")
            is_reported = True

    return look


def _print_above(progress: Progress, text: str) -> None:
    """Print a line above the progress bar, without line breaks where stderr is a file."""
    progress.console.print(Text(text, "yellow"), soft_wrap=True)
