"""What a person reads about jobs: a few lines about one, or a table."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from digitq.protocol.settings import read_by
from digitq.protocol.text import in_one_line, plural
from digitq.summary import describe_flaws, describe_mixture

if TYPE_CHECKING:
    from digitq.protocol.records import JobRecord

COUNTED, FLAWS = ("DONE", "IMAGES", "%"), ("ERRORS", "REVIEW", "AGAIN")


class View(NamedTuple):
    """What a command prints of the present state."""

    lines: Sequence[str]  # for stdout
    notes: Sequence[str] = ()  # for people, on stderr
    is_table: bool = False  # whether the lines are a header and rows, which must not wrap
    has_ended: bool = False  # whether the only job that is shown has ended


def describe_job(record: "JobRecord") -> list[str]:
    """Three lines about one job, one more if workers of several kinds answered, and one more if it
    is known why the job stopped."""
    reading = "whole numbers" if read_by(record.model) == "number" else f"model {record.model}"
    lines = [
        f"job {record.id}: {record.state}, {reading}, {record.source}",
        f"  {describe_progress(record)}",
        f"  {record.seconds:,.1f} s since {record.created:%Y-%m-%d %H:%M:%S} UTC",
        *([f"  {mixture}"] if (mixture := describe_mixture(record.fingerprints)) else []),
        *([f"  {record.state}: {record.reason}"] if record.reason else []),
    ]
    return [*map(in_one_line, lines)]


def describe_progress(record: "JobRecord") -> str:
    """How far a job is, and what went wrong."""
    more = f" ({share(record)})" if record.is_fed else " stored so far"
    parts = [f"{record.done_images:,} of {plural(record.images, 'image')}{more}"]
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


def count(record: "JobRecord") -> list[str]:
    """The cells of the columns `COUNTED` and `FLAWS`."""
    flaws = record.failed, record.review, record.sent_again
    done = f"{record.done_images:,}", f"{record.images:,}", share(record)
    return [*done, *(f"{number:,}" for number in flaws)]


def put_active_first(records: "Sequence[JobRecord]") -> "list[JobRecord]":
    """Jobs under way, the oldest first; then those that have ended, the latest first."""
    ended = [record for record in records if not record.is_active]
    return [record for record in records if record.is_active] + ended[::-1]


def share(record: "JobRecord") -> str:
    """The share of a job that is done, rounded down; `?` if its size is not known."""
    if not record.is_fed:
        return "?"
    return f"{100 * record.done_images // max(1, record.images)}%"
