"""`--watch`: the state of a deployment, read anew each second, until Ctrl-C."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from digitq.operate import tables
from digitq.protocol.broker.address import url_in_command
from digitq.protocol.broker.connection import connect
from digitq.protocol.errors import BrokerError
from digitq.protocol.heartbeat import Meter
from digitq.protocol.ledger import Ledger
from digitq.protocol.overview import MAX_READ_SECONDS, Overview, look_around
from digitq.protocol.records import JobRecord
from digitq.protocol.text import plural
from digitq.summary import describe_mixture

LOOK_SECONDS = 1.0  # time between two looks


class LiveView:
    """The state of a Redis with all jobs, or with one."""

    def __init__(self, url: str, job_id: str | None = None) -> None:
        """Raises `BrokerError`, and `UnknownJobError` if there is no such job."""
        self._ledger = Ledger(connect(url, timeout_seconds=MAX_READ_SECONDS))
        self._job_id = job_id
        if job_id is not None:
            self._ledger.record(job_id)
        self._meters: dict[str, Meter] = {}
        self._lost = ""  # why Redis can't be read, if it can't
        self._overview = self._look()

    def run(self) -> None:
        """Show it until Ctrl-C, or until the one job has ended; once if there is no terminal.

        Raises `BrokerError` if Redis no longer has the job.
        """
        console = Console()
        if not sys.stdout.isatty() or console.is_dumb_terminal:
            click.echo(tables.render(*self._parts(tables.PLAIN_COLUMNS)))
            return
        # On the alternate screen, a change of the terminal's size leaves no debris
        live = Live(console=console, screen=True, auto_refresh=False)
        with suppress(KeyboardInterrupt), live:
            while True:
                live.update(self._fit(console), refresh=True)
                if (record := self._record) and not record.is_active:
                    break
                time.sleep(LOOK_SECONDS)
                self._look_again()
        console.print(self._fit(console))

    def _look(self) -> Overview:
        overview, now = look_around(self._ledger), time.monotonic()
        jobs = overview.active_jobs
        self._meters = {job.id: self._meters.get(job.id) or Meter() for job in jobs}
        for job in jobs:
            self._meters[job.id].read(job.done_images, now)
        return overview

    def _look_again(self) -> None:
        """Look, or note that Redis is lost."""
        try:
            self._overview, self._lost = self._look(), ""
        except BrokerError as error:
            since = f"{datetime.now(UTC):%H:%M:%S} UTC"
            self._lost = self._lost or f"Redis is lost since {since}: {error}"
        if self._job_id is not None and not self._record:
            raise BrokerError(f"Redis no longer has job {self._job_id}")

    @property
    def _record(self) -> JobRecord | None:
        """The record of the one job that is watched."""
        return next((job for job in self._overview.jobs if job.id == self._job_id), None)

    @property
    def _rates(self) -> dict[str, float]:
        """Images per second of the jobs under way: at present, or at first the mean so far."""
        rates = {}
        for job in self._overview.active_jobs:
            works = self._overview.images_per_second
            mean = job.done_images / max(job.seconds, 1) if works else 0
            rates[job.id] = self._meters[job.id].rate or mean
        return rates

    def _parts(
        self, columns: int, max_jobs: int | None = None, max_workers: int | None = None
    ) -> list[RenderableType]:
        """What is shown, from top to bottom; all jobs and workers, unless there is a maximum."""
        overview, rates = self._overview, self._rates
        parts: list[RenderableType] = [Text(self._lost, "red")] if self._lost else []
        if record := self._record:
            parts.append(tables.show_job(record, rates.get(record.id, 0)))
        else:
            records = tables.in_watching_order(overview.listed_jobs)
            show = tables.tabulate_jobs if columns >= tables.WIDE_COLUMNS else tables.stack_jobs
            parts.append(show(records[:max_jobs], rates) if records else Text("no jobs"))
            parts += more(records, max_jobs, "job")
            if any(job.is_active and not (job.is_fed and rates[job.id]) for job in records):
                parts.append(Text(tables.UNKNOWN, "dim"))
        watched = [record] if record else overview.active_jobs
        parts += [Text(line, "yellow") for line in tables.describe_shortage(watched)]
        parts += ["", tables.describe_work(overview)]
        if overview.workers:
            parts.append(tables.tabulate_workers(overview.workers[:max_workers], columns))
            parts += more(overview.workers, max_workers, "worker")
            kinds = sorted({worker.fingerprint for worker in overview.workers})
            if mixture := describe_mixture(kinds, "live"):
                parts.append(Text(mixture, "yellow"))
        else:
            broker = url_in_command(self._ledger.redis.url)
            parts.append(Text(f"no worker lives: `digitq worker --broker {broker}` starts one"))
        return [*parts, "", tables.describe_memory(overview)]

    def _fit(self, console: Console) -> Group:
        """As many jobs and workers as the terminal has room for."""
        jobs, workers = console.height, max(3, console.height // 3)
        while True:
            parts = Group(*self._parts(console.width, jobs, workers))
            excess = len(console.render_lines(parts)) - console.height + 1
            if excess <= 0 or jobs == 1:
                return parts
            jobs = max(1, min(jobs, len(self._overview.listed_jobs)) - max(1, excess // 4))


def more(shown: Sequence[object], maximum: int | None, noun: str) -> list[RenderableType]:
    """A line that says how many are not shown, if any."""
    hidden = len(shown) - (len(shown) if maximum is None else maximum)
    return [f"… and {plural(hidden, f'more {noun}')}"] if hidden > 0 else []
