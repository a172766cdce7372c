"""What a person reads about jobs, workers and Redis: lines and tables, printed once or live."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from digitq.protocol.settings import read_by
from digitq.protocol.text import in_one_line, plural
from digitq.summary import describe_flaws, describe_mixture

if TYPE_CHECKING:
    from digitq.protocol.heartbeat import WorkerState
    from digitq.protocol.overview import Overview
    from digitq.protocol.records import JobRecord

WIDE_COLUMNS = 100  # a narrower terminal has no room for a table of jobs
ROOMY_COLUMNS = 80  # a narrower terminal shows less of each worker
PLAIN_COLUMNS = 10_000  # a file has room for everything
BAR_COLUMNS = 10
UNKNOWN = "? is unknown: not all images are stored yet, or none was done lately"
COUNTED, FLAWS = ("DONE", "IMAGES", "%"), ("ERRORS", "REVIEW", "AGAIN")
STYLES = {
    "done": "green",
    "collected": "green",
    "cancelled": "red",
    "failed": "red",
    "abandoned": "red",
}

Rates = Mapping[str, float]  # images per second of the jobs under way, by their ids


def render(*parts: RenderableType) -> str:
    """The text of what a terminal would show, without colours, and as wide as it needs to be."""
    console = Console(width=PLAIN_COLUMNS, color_system=None, force_terminal=False)
    with console.capture() as captured:
        for part in parts:  # rich takes long if it has to fill up lines of 10,000 characters
            console.print(part, width=max(1, console.measure(part).maximum))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def describe_job(record: "JobRecord", rate: float | None = None) -> str:
    """Three lines about one job, one more if workers of several kinds answered, and one more if it
    is known why the job stopped. `rate` is in images per second."""
    reading = "whole numbers" if read_by(record.model) == "number" else f"model {record.model}"
    lines = [
        f"job {record.id}: {record.state}, {reading}, {record.source}",
        f"  {describe_progress(record, rate)}",
        f"  {record.seconds:,.1f} s since {record.created:%Y-%m-%d %H:%M:%S} UTC",
        *([f"  {mixture}"] if (mixture := describe_mixture(record.fingerprints)) else []),
        *([f"  {record.state}: {record.reason}"] if record.reason else []),
    ]
    return "\n".join(map(in_one_line, lines))


def describe_progress(record: "JobRecord", rate: float | None = None) -> str:
    """How far a job is, what went wrong, and when it will be done."""
    more = f" ({share(record)})" if record.is_fed else " stored so far"
    parts = [f"{record.done_images:,} of {plural(record.images, 'image')}{more}"]
    if record.is_active and rate is not None:
        parts.append(f"{per_second(rate)} images/s")
        if (left := seconds_left(record, rate)) is not None:
            parts.append(f"{clock(left)} left")
    parts += describe_flaws(record)
    if record.sent_again:
        parts.append(f"{plural(record.sent_again, 'chunk')} sent again")
    return ", ".join(parts)


def describe_shortage(records: "Iterable[JobRecord]") -> list[str]:
    """A line for each job whose submitter waits for room in Redis."""
    lines = []
    for record in (record for record in records if record.held_images):
        own = "" if record.attached else f"`digitq collect {record.id} -o OUT` makes room; or "
        others = "collect or cancel other jobs, or raise maxmemory"
        lines.append(f"job {record.id} waits for room in Redis: {own}{others}")
    return lines


def list_jobs(records: "Iterable[JobRecord]") -> list[str]:
    """The lines of a table with its header and one line per job. rich would take a millisecond for
    each."""
    header = ["JOB", "STATE", *COUNTED, *FLAWS, "CREATED (UTC)", "SOURCE"]
    rows = [header]
    for record in records:
        created = f"{record.created:%Y-%m-%d %H:%M}"
        rows.append([record.id, record.state, *count(record), created, in_one_line(record.source)])
    places = list[str]()
    for name, *cells in zip(*rows, strict=True):
        side = ">" if name in (*COUNTED, *FLAWS) else "<"
        places.append(f"{{:{side}{max(map(len, (name, *cells)))}}}")
    line = " ".join([*places[:-1], "{}"])
    return [line.format(*row) for row in rows]


def tabulate_jobs(records: "Iterable[JobRecord]", rates: Rates) -> Table:
    """A table with one line per job, for a terminal."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for name in ("JOB", "STATE", "PROGRESS"):
        table.add_column(name, no_wrap=True)
    for name in (*COUNTED, "IMAGES/S", "LEFT", *FLAWS):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("SOURCE", overflow="ellipsis")
    for record in records:
        rate, ends = rates.get(record.id, 0), ""
        if record.is_active:
            left = seconds_left(record, rate)
            ends = "?" if left is None else clock(left)
        counts, flaws = count(record)[: len(COUNTED)], count(record)[len(COUNTED) :]
        speed = [per_second(rate) if record.is_active else "", ends]
        source = Text(in_one_line(record.source), no_wrap=True, overflow="ellipsis")
        cells = [record.id, state(record), bar(record), *counts, *speed, *flaws, source]
        table.add_row(*cells)
    return table


def count(record: "JobRecord") -> list[str]:
    """The cells of the columns `COUNTED` and `FLAWS`."""
    flaws = record.failed, record.review, record.sent_again
    done = f"{record.done_images:,}", f"{record.images:,}", share(record)
    return [*done, *(f"{number:,}" for number in flaws)]


def stack_jobs(records: "Iterable[JobRecord]", rates: Rates) -> Group:
    """The same for a narrow terminal: for each job a line with a bar, and its progress below."""
    blocks: list[RenderableType] = []
    for record in records:
        line = Table.grid(padding=(0, 1, 0, 0), expand=True)
        for ratio in (None, None, 1, None):
            line.add_column(ratio=ratio, no_wrap=True)
        line.add_row(record.id, state(record), bar(record, columns=None), share(record))
        blocks += [line, Padding(describe_progress(record, rates.get(record.id, 0)), (0, 0, 0, 2))]
    return Group(*blocks)


def show_job(record: "JobRecord", rate: float) -> Group:
    """One job with its bar, if it is known how many images there are."""
    first, *rest = describe_job(record, rate).splitlines()
    below: list[RenderableType] = [Text(line.strip()) for line in rest]
    if record.is_fed:
        below.append(bar(record, 4 * BAR_COLUMNS))
    return Group(Text(first), *(Padding(line, (0, 0, 0, 2)) for line in below))


def tabulate_workers(workers: "Iterable[WorkerState]", columns: int) -> Table:
    """A table with one line per worker that lives."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("WORKER", overflow="ellipsis")
    table.add_column("IMAGES/S", justify="right", no_wrap=True)
    is_roomy = columns >= ROOMY_COLUMNS
    for name in ("PROCESSES", "DONE") if is_roomy else ():
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("VERSION", *(["FINGERPRINT"] if is_roomy else []), "HEARD"):
        table.add_column(name, no_wrap=True)
    for worker in workers:
        more = [f"{worker.processes}", f"{worker.images:,}"] if is_roomy else []
        table.add_row(
            Text(in_one_line(worker.name), no_wrap=True, overflow="ellipsis"),
            per_second(worker.images_per_second),
            *more,
            worker.version,
            *([worker.fingerprint] if is_roomy else []),
            f"{max(0, worker.silent_seconds):.0f} s ago",
        )
    return table


def describe_work(overview: "Overview") -> str:
    """A line about all that waits, who works on it, and how long it takes them."""
    processes = f" ({overview.processes} process{'es' * (overview.processes != 1)})"
    who = f"{plural(len(overview.workers), 'worker')}{processes if overview.workers else ''}"
    rate = f", {per_second(overview.images_per_second)} images/s" if overview.workers else ""
    waiting = "nothing waits"
    if overview.backlog_images:
        waiting = f"{plural(overview.backlog_images, 'stored image')} to do"
        if overview.images_per_second:
            waiting += f": {clock(overview.backlog_seconds)}"
    return f"{who}{rate}; {waiting}"


def describe_memory(overview: "Overview") -> str:
    """A line about the memory of Redis."""
    used = f"Redis uses {decimal(overview.memory_bytes)}"
    if not (limit := overview.memory_limit_bytes):
        return f"{used}; it has no maxmemory"
    return f"{used} of {decimal(limit)} ({overview.memory_bytes / limit:.0%})"


def in_watching_order(records: "Sequence[JobRecord]") -> "list[JobRecord]":
    """Jobs under way, the oldest first; then those that have ended, the latest first."""
    ended = [record for record in records if not record.is_active]
    return [record for record in records if record.is_active] + ended[::-1]


def bar(record: "JobRecord", columns: int | None = BAR_COLUMNS) -> RenderableType:
    """A bar, or nothing if it is not known how many images will follow. If `columns` is None, it
    is as wide as there is room."""
    if not record.is_fed:
        return ""
    total = max(1, record.images)
    return ProgressBar(total, record.done_images, width=columns, complete_style="cyan")


def state(record: "JobRecord") -> Text:
    """A job's state in its colour."""
    return Text(record.state, STYLES.get(record.state, "cyan"))


def share(record: "JobRecord") -> str:
    """The share of a job that is done, rounded down; `?` if its size is not known."""
    if not record.is_fed:
        return "?"
    return f"{100 * record.done_images // max(1, record.images)}%"


def seconds_left(record: "JobRecord", rate: float) -> float | None:
    """How long a job still takes at this rate; None if that is not known."""
    return record.waiting_images / rate if record.is_fed and rate else None


def clock(seconds: float) -> str:
    """A duration, for example `0:04:10` or `2 days, 1:00:00`."""
    return str(timedelta(seconds=round(seconds)))


def per_second(rate: float) -> str:
    """A rate as precise as a person needs it."""
    return f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}"
