"""`submit`, `status`, `jobs`, `collect` and `cancel`."""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

import digitq
from digitq import options
from digitq.commands.reports import check_key, check_page, check_wide, show_results
from digitq.operate.tables import (
    View,
    describe_job,
    describe_shortage,
    list_jobs,
    put_active_first,
)
from digitq.protocol.broker.address import url_in_command
from digitq.protocol.errors import BrokerError, DigitqError, UnknownJobError, UsageError
from digitq.protocol.settings import read_by
from digitq.protocol.text import name_some, plural
from digitq.summary import (
    open_sink,
    report_interruption,
    report_risk,
    report_rows,
    report_truth,
)
from digitq.terminal import ExitStatus, echo_err, require

if TYPE_CHECKING:
    from digitq.producer.adapted import Adapted
    from digitq.producer.sources.source import Source
    from digitq.protocol.asked.reading import Reading
    from digitq.protocol.ledger import Ledger
    from digitq.protocol.prediction import Answer


@click.command(epilog=options.SOURCES_HELP)
@options.sources
@options.reading
@options.weights
@options.broker
@options.adapt
@options.limit
@options.truth
def submit(
    sources: tuple[str, ...],
    reading: "Reading[Answer]",
    broker: str | None,
    adapts: bool,
    limit: int | None,
    truth: str | None,
) -> None:
    """Submit a job to the workers and print its id.

    The command ends once all images are in Redis. If it is interrupted before, it cancels the job.
    With --adapt, it first waits for the workers that read the images, and trains.
    """
    from digitq.adapting import adapt_before, open_each_time
    from digitq.phases import refuse_adapting

    if adapts:
        require("worker")
        refuse_adapting(reading)
    answers = options.truth_file(truth)

    def open_source() -> "Source":
        return digitq.open_sources(sources, truth == "parent", limit, answers)

    adapted = None
    with open_each_time(sources if adapts else (), open_source) as open_again:
        source = None if adapts else open_again()
        client = digitq.Client(broker)
        if adapts:
            adapted = adapt_before(client, open_again, reading)
        _submit(client, source or open_again(), reading, broker, truth, adapted)


def _submit(
    client: "digitq.Client",
    source: "Source",
    reading: "Reading[Answer]",
    broker: str | None,
    truth: str | None,
    adapted: "Adapted[Answer] | None",
) -> None:
    """Submit a job, wait until it is stored, and print its id."""
    from digitq.producer.counts import Counts
    from digitq.producer.feeder import LACK_OF_ROOM
    from digitq.protocol.capacity import describe_need

    at_broker = f" --broker {url_in_command(broker)}" if broker else ""
    job: digitq.Job | None = None
    reported: str | None = None
    try:
        job = client.submit_source(source, reading, detached=True, adapted=adapted)
        collect = f"digitq collect {job.id} -o OUT{at_broker}"
        memory = job.ledger.memory()
        images = reading.count_rows(source.count()) if memory.limit_bytes else None
        if images and (shortage := memory.describe_shortage(images, reading.what)):
            echo_err(
                f"{shortage}; `{collect}` makes room while the job is submitted; or use `digitq "
                "classify -o OUT`, submit fewer images, or give Redis more maxmemory"
            )
        while not job.wait_until_stored(timeout_seconds=1):
            if job.waiting_for and job.waiting_for != reported:
                remedy = f"; `{collect}` makes room" * (job.waiting_for == LACK_OF_ROOM)
                echo_err(f"waiting for {job.waiting_for}{remedy}")
                reported = job.waiting_for
    except BaseException:
        if job and client.abandon(job):
            echo_err(f"job {job.id} is cancelled")
        raise
    images = job.progress().images
    counts = Counts(images, unlabelled=source.gaps.missing)
    report_truth(counts, reading.what, truth, source.gaps)
    stored = f"{plural(images, reading.row)} {'is' if images == 1 else 'are'} in Redis"
    skipped = source.skipped.describe()
    need = describe_need(images, reading.what)
    echo_err(
        f"{stored}{f', {skipped} skipped' if skipped else ''}; `{collect}` collects the results"
        f"{f', which need {need} in Redis' if need else ''}"
    )
    click.echo(job.id)  # last, so that stderr has the id even if stdout can't be written


@click.command()
@options.job
@options.broker
@options.json
@options.watch
def status(job_id: str, broker: str | None, as_json: bool, watches: bool) -> None:
    """Show the progress of a job."""
    client = digitq.Client(broker, retry_seconds=0)
    job = find_job(client, job_id)

    def look(ledger: "Ledger") -> View:
        record = ledger.record(job.id)
        lines = [_to_json(record)] if as_json else describe_job(record)
        notes = describe_problems(ledger, client.url, [record])
        return View(lines, notes, has_ended=not record.is_active)

    try:
        with client:
            show(client, look, watches, as_json)
    except UnknownJobError:  # it was there a moment ago
        raise BrokerError(f"Redis no longer has job {job.id}") from None


@click.command()
@options.broker
@options.json
@options.watch
@options.number("--limit", "show the newest N jobs, and all that have not ended", 100)
def jobs(broker: str | None, as_json: bool, watches: bool, limit: int) -> None:
    """List the newest jobs in Redis."""
    client = digitq.Client(broker, retry_seconds=0)

    def look(ledger: "Ledger") -> View:
        records = ledger.records(limit)
        if watches:  # a terminal may not have room for all
            records = put_active_first(records)
        if not records:
            return View([], [] if as_json else ["no jobs"])
        notes = describe_problems(ledger, client.url, records)
        if (older := ledger.count_jobs() - max(limit, len(records))) > 0:
            notes = [f"{plural(older, 'older job')} not shown: --limit shows more", *notes]
        lines = [*map(_to_json, records)] if as_json else list_jobs(records)
        return View(lines, notes, is_table=True)

    with client:
        show(client, look, watches, as_json)


@click.command()
@options.job
@options.out
@options.broker
@options.wide
@options.report
@options.key
@options.overwrite
@click.option(
    "--keep",
    is_flag=True,
    help="delete no results from Redis, even if it has no room, so that others can collect them",
)
def collect(
    job_id: str,
    out: str | None,
    broker: str | None,
    wide: bool,
    page: Path | None,
    key: Path | None,
    overwrite: bool,
    keep: bool,
) -> None:
    """Write the results of a submitted job.

    It waits for results that are still missing. You can collect a job again within an hour. But if
    Redis lacks room, results that are safe in OUT are deleted from it; --keep prevents this. The
    exit status is that of `classify`.
    """
    from digitq.backend import take_results
    from digitq.producer.sinks.resumable import FileSink

    if page:
        check_page(page, overwrite, out)
    client = digitq.Client(broker)
    job = find_job(client, job_id)
    if wide:
        check_wide(job.origin.form, out, overwrite)
    check_key(job.origin.form if key else None, key, wide, page)
    if overwrite and job.progress().freed_images:
        raise UsageError(
            f"results of job {job.id} are only in the file of the `digitq collect` that took them: "
            "leave out --overwrite"
        )

    def count_stored() -> int:
        """How many images there are, once all of them are stored."""
        job.wait_until_stored()
        return job.progress().images

    with (
        closing(open_sink(out, {"job": job.id}, overwrite)) as sink,
        report_interruption(sink, overwrite, job.id),
    ):
        sync = sink.sync if isinstance(sink, FileSink) and not keep else None
        if not sink.upload():
            take_results(client, job, sink, count_stored, sync)
    report_rows(sink, has_speed=False, what="field" if job.origin.form else "image")
    report_risk(sink, job.origin.risk, job.origin.like, bool(job.origin.form))
    report_truth(sink.counts, read_by(job.model), job.origin.truth)
    with suppress(DigitqError):  # all rows are here, so a Redis that is lost now does no harm
        if freed := job.progress().freed_images:
            rows = plural(freed, "field" if job.origin.form else "image")
            echo_err(f"the results of {rows} were deleted from Redis to make room")
    show_results(out, wide, page, key)
    sys.exit(ExitStatus.FAILED_ROWS if sink.counts.failed else 0)


@click.command()
@options.job
@options.broker
def cancel(job_id: str, broker: str | None) -> None:
    """Cancel a job and drop its results."""
    job = find_job(digitq.Client(broker), job_id, may_be_short=False)
    was_done = job.progress().state in ("done", "collected")
    job.cancel()
    echo_err(f"job {job_id} {'was done; its results are dropped' if was_done else 'is cancelled'}")


def find_job(client: "digitq.Client", job_id: str, may_be_short: bool = True) -> "digitq.Job":
    """The job with this id, or the only one whose id begins so. Raises `UnknownJobError`."""
    try:
        return client.job(job_id)
    except UnknownJobError:
        found = client.ledger.find_jobs(job_id) if job_id else []
        if not found:
            raise
        if len(found) == 1 and may_be_short:
            return client.job(found[0])
        verb = "begins" if len(found) == 1 else "begin"
        raise UnknownJobError(
            f"no job {job_id!r}: {name_some(found)} {verb} so; give all of an id"
        ) from None


def show(
    client: "digitq.Client", look: "Callable[[Ledger], View]", watches: bool, as_json: bool
) -> None:
    """Print a view once, or show it anew each second. Raises `UsageError` for JSON, which is not
    watched, and whatever `look` raises."""
    if watches and as_json:
        raise UsageError("--json prints once: leave out --watch")
    if watches:
        from digitq.operate.watch import can_watch, watch

        if can_watch():
            client.close()
            watch(client.url, look)
            return
    view = look(client.ledger)
    for line in view.lines:
        click.echo(line)
    for line in view.notes:
        echo_err(line)


def describe_problems(
    ledger: "Ledger", url: str, records: "Sequence[digitq.JobRecord]"
) -> list[str]:
    """Lines about jobs that wait for room in Redis, and one if no worker lives."""
    lines = describe_shortage(records)
    unfinished = any(record.state in ("feeding", "running") for record in records)
    if unfinished and not ledger.has_worker():
        remedy = f"`digitq worker --broker {url_in_command(url)}` starts one"
        lines.append(f"no worker is running: {remedy}")
    return lines


def _to_json(record: "digitq.JobRecord") -> str:
    return json.dumps(asdict(record), default=lambda time: time.isoformat())
