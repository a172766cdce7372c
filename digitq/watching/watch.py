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

from digitq.summary import describe_mixture
from digitq.watching import tables
from protocol.broker.address import url_in_command, without_password
from protocol.brokers import Brokers
from protocol.errors import BrokerError
from protocol.heartbeat import Meter
from protocol.overview import MAX_READ_SECONDS, Overview, look_around
from protocol.records import JobRecord
from protocol.text import plural

LOOK_SECONDS = 1.0  # time between two looks


class LiveView:
    """The state of one Redis or several with all jobs, or with one."""

    def __init__(self, urls: str, job_id: str | None = None) -> None:
        """Raises `BrokerError`."""
        self._brokers = Brokers(urls, MAX_READ_SECONDS)
        self._job_id = job_id
        self._meters: dict[str, Meter] = {}
        self._lost: dict[str, str] = {}  # why a Redis can't be read, by its URL
        self._seen: dict[str, Overview] = {}  # of a Redis that is lost, what was seen last
        self._look()
        if not self._seen:
            self._brokers.raise_if_lost()

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
                self._look()
        console.print(self._fit(console))

    def _look(self) -> None:
        """Look, and note which Redis are lost. Raises `BrokerError` if the one job is gone."""
        seen, now = self._brokers.ask(look_around), time.monotonic()
        self._seen |= seen
        active = [job.id for job in self._jobs if job.is_active]
        self._meters = {id: self._meters.get(id) or Meter() for id in active}
        for job in (job for one in seen.values() for job in one.active_jobs):
            self._meters[job.id].read(job.done_images, now)
        since = f"Redis is lost since {datetime.now(UTC):%H:%M:%S} UTC"
        lost = self._brokers.lost.items()
        self._lost = {url: self._lost.get(url, f"{since}: {error}") for url, error in lost}
        if self._seen and self._job_id is not None and not self._record:
            raise BrokerError(f"Redis no longer has job {self._job_id}")

    @property
    def _jobs(self) -> list[JobRecord]:
        return [job for overview in self._seen.values() for job in overview.jobs]

    @property
    def _record(self) -> JobRecord | None:
        """The record of the one job that is watched."""
        return next((job for job in self._jobs if job.id == self._job_id), None)

    @property
    def _rates(self) -> dict[str, float]:
        """Images per second of the jobs under way: at present, or at first the mean so far."""
        rates = {}
        for overview in self._seen.values():
            for job in overview.active_jobs:
                works = overview.images_per_second
                mean = job.done_images / max(job.seconds, 1) if works else 0
                rates[job.id] = self._meters[job.id].rate or mean
        return rates

    def _parts(
        self, columns: int, max_jobs: int | None = None, max_workers: int | None = None
    ) -> list[RenderableType]:
        """What is shown, from top to bottom; all jobs and workers, unless there is a maximum."""
        rates = self._rates
        parts: list[RenderableType] = [Text(line, "red") for line in self._lost.values()]
        if record := self._record:
            parts.append(tables.show_job(record, rates.get(record.id, 0)))
        else:
            records = tables.in_watching_order([job for job in self._jobs if not job.is_call])
            show = tables.tabulate_jobs if columns >= tables.WIDE_COLUMNS else tables.stack_jobs
            parts.append(show(records[:max_jobs], rates) if records else Text("no jobs"))
            parts += more(records, max_jobs, "job")
            if any(job.is_active and not (job.is_fed and rates[job.id]) for job in records):
                parts.append(Text(tables.UNKNOWN, "dim"))
        watched = [record] if record else [job for job in self._jobs if job.is_active]
        parts += [Text(line, "yellow") for line in tables.describe_shortage(watched)]
        for url, overview in self._seen.items():
            parts.append("")
            if len(self._brokers.urls) > 1:
                parts.append(Text(without_password(url), "bold"))
            parts.append(tables.describe_work(overview))
            if overview.workers:
                parts.append(tables.tabulate_workers(overview.workers[:max_workers], columns))
                parts += more(overview.workers, max_workers, "worker")
                kinds = sorted({worker.fingerprint for worker in overview.workers})
                if mixture := describe_mixture(kinds, "live"):
                    parts.append(Text(mixture, "yellow"))
            else:
                broker = url_in_command(url)
                parts.append(Text(f"no worker lives: `digitq worker --broker {broker}` starts one"))
            parts += ["", tables.describe_memory(overview)]
        return parts

    def _fit(self, console: Console) -> Group:
        """As many jobs and workers as the terminal has room for."""
        jobs, workers = console.height, max(3, console.height // 3 // len(self._brokers.urls))
        while True:
            parts = Group(*self._parts(console.width, jobs, workers))
            excess = len(console.render_lines(parts)) - console.height + 1
            if excess <= 0 or jobs == 1:
                return parts
            jobs = max(1, min(jobs, len(self._jobs)) - max(1, excess // 4))


def more(shown: Sequence[object], maximum: int | None, noun: str) -> list[RenderableType]:
    """A line that says how many are not shown, if any."""
    hidden = len(shown) - (len(shown) if maximum is None else maximum)
    return [f"… and {plural(hidden, f'more {noun}')}"] if hidden > 0 else []
