"""The command line: `digitq --help`. Data goes to stdout, everything for people to stderr."""

import io
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import shell_complete

from producer import services
from producer.options import (
    broker_option,
    json_option,
    limit_option,
    model_option,
    out_option,
    overwrite_option,
    private_broker_option,
    require,
    say,
    sources_argument,
    truth_option,
    workers_option,
)
from protocol.errors import (
    BrokerError,
    DigitqError,
    JobAbandonedError,
    JobCancelledError,
    UnknownJobError,
    UsageError,
)
from protocol.host.process import make_stderr_unfailing
from protocol.settings import settings
from protocol.text import plural

if TYPE_CHECKING:
    from producer.client import Client
    from producer.job import Job
    from producer.sinks import Sink
    from protocol.ledger import JobRecord

SECTIONS = {
    "Classify": ("demo", "classify", "inspect", "evaluate"),
    "Hand jobs over": ("submit", "status", "jobs", "collect", "cancel"),
    "Run and watch": ("up", "worker", "flower", "doctor"),
    "Make and measure": ("train", "bench"),
}
COMPLETE = "_DIGITQ_COMPLETE"  # set by a shell that asks for completions
PLOTS = (".png", ".svg", ".pdf")
FAILED_ROWS, USAGE, BROKEN, INTERRUPTED = 1, 2, 3, 130
SOURCES_HELP = (
    "A SOURCE is mnist:test, mnist:train, a folder, an image, a .zip, .tar (.gz, .bz2, .xz), "
    ".parquet, .csv, .npy or idx3-ubyte file, "
    "or - for paths on stdin."
)


class Sections(click.Group):
    """A group whose help has the commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        limit = formatter.width - 12
        for title, names in SECTIONS.items():
            commands = [self.commands[name] for name in names]
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{one.name:8}", one.get_short_help_str(limit)) for one in commands]
                )


@click.group(
    cls=Sections,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="digitq", message="digitq %(version)s")
def digitq() -> None:
    """Classify handwritten digits in bulk over a queue.

    Without a broker, `classify` and `evaluate` start a private Redis and workers for the length of
    the run; `demo` always does. `submit` and its kin need a running Redis: `digitq up` starts one.
    """


@digitq.command(epilog=SOURCES_HELP)
@sources_argument
@out_option
@model_option
@workers_option()
@private_broker_option
@limit_option
@truth_option
@overwrite_option
def classify(
    sources: tuple[str, ...],
    out: str | None,
    model: str | None,
    workers: int | None,
    broker: str | None,
    limit: int | None,
    truth: str | None,
    overwrite: bool,
) -> None:
    """Classify images and write a row for each, in order.

    \b
    digitq classify photos -o results.csv
    digitq classify scans.zip 7.png --model cnn

    Broken off, the same command goes on where it was. Exit status: 0 all classified, 1 some rows
    carry an error, 2 bad usage or input, 3 Redis or the disk failed, 130 Ctrl-C.
    """
    from producer.report import summarise
    from producer.run import describe_speed, service, take_results
    from producer.sources import count_files, is_set, open_sources

    if out and any(_is_same_file(name, out) for name in sources):
        raise UsageError(f"{out} is a SOURCE: the results would take its place; name another OUT")
    source = open_sources(sources, truth == "parent", limit)
    run: dict[str, Any] = {
        "sources": [_absolute(name) for name in sources],
        "model": model or settings().model,
        "limit": limit,
        "truth": truth,
    }
    if sets := [name for name in sources if is_set(name)]:
        run["modified"] = [os.stat(name).st_mtime_ns for name in sets]  # ids are only numbers
    if weights := settings().own_weights():
        run["weights"] = str(weights)
    with closing(_open_sink(out, run, overwrite)) as sink, _told_what_is_left(sink, overwrite):
        if sink.written.rows:
            say(f"{out} goes on after {sink.written.rows:,} images")
        with service(broker, workers, count_files(sources)) as running:
            job = running.client.submit_source(source, model, resume=sink.written)
            done = take_results(running, job, sink, source.count)
    say(f"{summarise(sink.written, source.tally.describe())}, {describe_speed(*done)}")
    _say_where(sink)
    if truth and not sink.written.known:
        say("no image that was read lies in a folder named by a digit: no accuracy")
    sys.exit(FAILED_ROWS if sink.written.failed else 0)


@digitq.command(epilog=SOURCES_HELP)
@sources_argument
@model_option
@broker_option
@limit_option
@truth_option
def submit(
    sources: tuple[str, ...],
    model: str | None,
    broker: str | None,
    limit: int | None,
    truth: str | None,
) -> None:
    """Hand a job over to the workers and print its id.

    Broken off before all of it is in Redis, it is cancelled.
    """
    from producer.client import Client
    from producer.sources import open_sources
    from protocol.broker.connection import without_password

    source = open_sources(sources, truth == "parent", limit)
    client = Client(broker)
    client.ledger.redis.on_loss = say
    job: Job | None = None
    waited: str | None = None
    try:
        job = client.submit_source(source, model, detached=True)
        while not job.wait_until_stored(timeout_seconds=1):
            if job.waiting_for and job.waiting_for != waited:
                say(f"waiting for {job.waiting_for}")
                waited = job.waiting_for
    except BaseException:
        if job and client.abandon(job):
            say(f"job {job.id} is cancelled")
        raise
    record = job.progress()
    skipped = source.tally.describe()
    stored = f"{plural(record.images, 'image')} {'is' if record.images == 1 else 'are'} in Redis"
    there = f" --broker {shlex.quote(without_password(broker))}" if broker else ""
    say(
        f"{stored}{f', {skipped} skipped' if skipped else ''}; "
        f"`digitq collect {job.id} -o OUT{there}` takes the results"
    )
    click.echo(job.id)  # last: where it can't be written, it was told


@digitq.command()
@click.argument("job_id", metavar="JOB")
@broker_option
@json_option
def status(job_id: str, broker: str | None, as_json: bool) -> None:
    """Show how far a job is."""
    from producer.client import Client
    from producer.report import describe_job

    client = Client(broker)
    record = client.job(job_id).progress()
    click.echo(_to_json(record) if as_json else describe_job(record))
    _say_where_nobody_works(client, [record])


@digitq.command()
@broker_option
@json_option
def jobs(broker: str | None, as_json: bool) -> None:
    """List the jobs that Redis knows."""
    from producer.client import Client
    from producer.report import list_jobs

    client = Client(broker)
    records = client.jobs()
    if not (records or as_json):
        say("no jobs")
        return
    for line in map(_to_json, records) if as_json else [list_jobs(records)]:
        click.echo(line)
    _say_where_nobody_works(client, records)


@digitq.command()
@click.argument("job_id", metavar="JOB")
@out_option
@broker_option
@overwrite_option
def collect(job_id: str, out: str | None, broker: str | None, overwrite: bool) -> None:
    """Write a submitted job's results.

    Those that are still to come are waited for. It may be done again within an hour. Exit status as
    of `classify`.
    """
    from producer.client import Client
    from producer.report import summarise
    from producer.run import Service, take_results

    client = Client(broker)
    job = client.job(job_id)
    with (
        closing(_open_sink(out, {"job": job_id}, overwrite)) as sink,
        _told_what_is_left(sink, overwrite, job_id),
    ):
        take_results(Service(client, None), job, sink, lambda: job.progress().images)
    say(summarise(sink.written))
    _say_where(sink)
    sys.exit(FAILED_ROWS if sink.written.failed else 0)


@digitq.command()
@click.argument("job_id", metavar="JOB")
@broker_option
def cancel(job_id: str, broker: str | None) -> None:
    """Cancel a job: drop what is queued and its results."""
    from producer.client import Client

    client = Client(broker)
    job = client.job(job_id)
    was_done = job.progress().state in ("done", "collected")
    job.cancel()
    say(f"job {job_id} {'was done; its results are dropped' if was_done else 'is cancelled'}")


@digitq.command()
@model_option
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="the matrix as a picture, .png, .svg or .pdf",
)
@workers_option()
@private_broker_option
@click.option("--overwrite", is_flag=True, help="replace the picture")
def evaluate(
    model: str | None, plot: Path | None, workers: int | None, broker: str | None, overwrite: bool
) -> None:
    """Measure a model on the MNIST test images.

    Prints recall and precision for each class, the confusion matrix, and the accuracy.
    """
    from producer.report import ConfusionSink, plot_confusion, tabulate_confusion
    from producer.run import service, take_results
    from producer.sources import open_sources

    if plot and not plot.absolute().parent.is_dir():
        raise UsageError(f"can't write {plot}: no such folder")
    if plot and plot.suffix.lower() not in PLOTS:
        raise UsageError(f"--plot {plot} must end in {' or '.join(PLOTS)}")
    if plot and plot.exists() and not overwrite:
        raise UsageError(f"{plot} is there already: --overwrite replaces it")
    if plot:
        require("matplotlib", "plot")
    source = open_sources(["mnist:test"])
    sink = ConfusionSink()
    with service(broker, workers) as running:
        job = running.client.submit_source(source, model)
        take_results(running, job, sink, source.count)
    click.echo(tabulate_confusion(sink.confusion))
    if plot:
        title = f"{model or settings().model} on the MNIST test images"
        plot_confusion(sink.confusion, title, plot)
        say(f"the matrix is in {plot}")
    if sink.written.failed:
        say(f"{plural(sink.written.failed, 'image')} with an error, as: {sink.error}")
        sys.exit(FAILED_ROWS)


@digitq.command()
@workers_option("2")
@click.option("--keep", is_flag=True, help="keep Flower and the workers running until Ctrl-C")
def demo(workers: int | None, keep: bool) -> None:
    """See it work on the 10,000 MNIST test images.

    Starts Redis, two workers and Flower, writes results/demo.csv, and takes all down again.
    """
    from producer.local import Local
    from producer.report import summarise
    from producer.run import describe_speed, private_service, take_results
    from producer.sinks import FileSink
    from producer.sources import open_sources

    source = open_sources(["mnist:test"])
    out = Path("results/demo.csv")
    try:
        out.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't write {out}: {error.strerror}") from None
    sink = FileSink(out, {"sources": ["mnist:test"]}, overwrite=True)
    with closing(sink), Local(workers or 2, flower=True) as local:
        say(f"starting Redis, {plural(local.workers, 'worker')} and Flower …")
        with private_service(local) as running:
            say(f"Flower   {local.flower_url}")
            job = running.client.submit_source(source)
            done = take_results(running, job, sink, source.count)
        say(f"{summarise(sink.written)}, {describe_speed(*done)}")
        _say_where(sink)
        if keep:
            say(f"Redis    {local.url}\nCtrl-C ends")
            local.watch()
    say("all stopped; `digitq up` keeps Redis, workers and Flower running")
    sys.exit(FAILED_ROWS if sink.written.failed else 0)


def _open_sink(out: str | None, run: dict[str, Any], overwrite: bool) -> "Sink":
    from producer.sinks import FileSink, StreamSink, encode_csv, encode_lines

    if out is not None and out != "-":
        return FileSink(Path(out), run, overwrite)
    if not sys.stdout:  # `>&-`
        raise UsageError("stdout is closed: -o names a file")
    reads = out is None and sys.stdout.isatty()
    return StreamSink(sys.stdout.buffer, encode_lines if reads else encode_csv)


def _say_where(sink: "Sink") -> None:
    from producer.sinks import FileSink

    if isinstance(sink, FileSink):
        say(f"the rows are in {sink.path}")


@contextmanager
def _told_what_is_left(
    sink: "Sink", overwrite: bool, collected: str | None = None
) -> Iterator[None]:
    """Broken off, say what there is of a result file, and how it goes on; and what becomes of the
    job that was `collected`."""
    from producer.sinks import FileSink

    try:
        yield
    except BaseException as error:
        is_lost = collected and isinstance(error, UnknownJobError)  # it was there just now
        if (
            isinstance(sink, FileSink)
            and (is_lost or not isinstance(error, UsageError))
            and sink.written.rows
            and sink.partial.exists()
        ):
            gone = is_lost or collected and isinstance(error, JobCancelledError | JobAbandonedError)
            gone = gone or sink.path.exists()  # only --overwrite replaces it, and begins anew
            same = "the same command without --overwrite" if overwrite else "the same command"
            goes_on = "" if gone else f": {same} goes on from there"
            say(f"{plural(sink.written.rows, 'row')} in {sink.partial}{goes_on}")
        elif collected and isinstance(error, KeyboardInterrupt):
            say(f"job {collected} is left as it is: the same command collects it")
        if is_lost:
            raise BrokerError(f"Redis no longer has job {collected}, or its results") from None
        raise


def _say_where_nobody_works(client: "Client", records: "Sequence[JobRecord]") -> None:
    from protocol.broker.connection import without_password

    goes_on = any(record.state in ("feeding", "running") for record in records)
    if goes_on and not client.ledger.has_worker():
        broker = shlex.quote(without_password(client.url))
        say(f"no worker is there: `digitq worker --broker {broker}` starts one")


def _is_same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False  # one of them isn't there


def _absolute(source: str) -> str:
    return source if source == "-" or source.startswith("mnist:") else os.path.abspath(source)


def _to_json(record: Any) -> str:
    import json
    from dataclasses import asdict

    return json.dumps(asdict(record), default=lambda time: time.isoformat())


for command in services.COMMANDS:
    digitq.add_command(command)


def _prepare_process() -> None:
    """Signals end it in order, what can't be said goes nowhere, and a terminal that has no UTF-8
    shows what it can."""
    make_stderr_unfailing()
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    for stream in filter(None, (sys.stdout, sys.stderr)):  # of no UTF-8, perhaps
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _give_up_stdout() -> None:
    """What it could not take is not tried again as Python ends: the status would be 120."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] = ()) -> NoReturn:
    """Run a command and exit; the errors of digitq become one line and an exit status."""
    _prepare_process()
    try:
        if instruction := os.environ.get(COMPLETE):
            sys.exit(shell_complete(digitq, {}, "digitq", COMPLETE, instruction))
        with digitq.make_context("digitq", list(arguments or sys.argv[1:])) as context:
            digitq.invoke(context)
        sys.exit(0)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        say(f"digitq: {error}")
        sys.exit(BROKEN)
    except DigitqError as error:
        say(f"digitq: {error}")
        sys.exit(USAGE if isinstance(error, UsageError) else BROKEN)
    except Exception:  # a fault of digitq's own; Python's status would say that all is written
        traceback.print_exc()
        sys.exit(BROKEN)
    finally:
        _give_up_stdout()
