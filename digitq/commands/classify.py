"""`classify`, `evaluate` and `demo`, which start private workers."""

import hashlib
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digitq import options
from digitq.report import open_sink, report_interruption, report_rows
from digitq.terminal import ExitStatus, echo_err, require
from protocol.errors import UsageError
from protocol.settings import NUMBER, settings
from protocol.text import plural

if TYPE_CHECKING:
    from protocol.reading import Reading

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@click.command(epilog=options.SOURCES_HELP)
@options.sources
@options.out
@options.reading
@options.workers()
@options.private_broker
@options.limit
@options.truth
@options.overwrite
def classify(
    sources: tuple[str, ...],
    out: str | None,
    reading: "Reading",
    workers: int | None,
    broker: str | None,
    limit: int | None,
    truth: str | None,
    overwrite: bool,
) -> None:
    """Classify images and write one row per image, in order.

    \b
    digitq classify photos -o results.csv
    digitq classify scans.zip 7.png --model cnn
    digitq classify fields --read number --length 9 -o ids.csv

    After an interruption, the same command continues where it stopped. Exit status: 0 if all images
    were classified, 1 if some rows have an error, 2 for bad usage or input, 3 if Redis or the disk
    failed, 130 after Ctrl-C.
    """
    from digitq.backend import open_backend, take_results
    from producer.sources.opening import count_files, is_set, open_sources

    for name in sources if out and os.path.exists(out) else ():
        if os.path.exists(name) and os.path.samefile(name, str(out)):
            raise UsageError(f"{out} is a SOURCE: the results would replace it; name another OUT")
    source = open_sources(sources, truth == "parent", limit, options.truth_file(truth))
    run: dict[str, Any] = {
        "sources": [
            name if name == "-" or name.startswith("mnist:") else os.path.abspath(name)
            for name in sources
        ],
        "model": reading.model,
        "known": hashlib.sha256(reading.known).hexdigest()[:16] if reading.known else None,
        "limit": limit,
        "truth": truth,
    }
    if sets := [name for name in sources if is_set(name)]:
        run["modified"] = [os.stat(name).st_mtime_ns for name in sets]
    if weights := settings().own_weights():
        run["weights"] = str(weights)
    with closing(open_sink(out, run, overwrite)) as sink, report_interruption(sink, overwrite):
        if sink.checkpoint.rows:
            echo_err(f"continuing {out} after {sink.checkpoint.rows:,} images")
        with open_backend(broker, workers, count_files(sources)) as backend:
            job = backend.client.start(source, reading, resume=sink.checkpoint)
            done = take_results(backend, job, sink, source.count)
    report_rows(sink, done, source.skipped.describe())
    if truth and not sink.checkpoint.labelled:
        echo_err(describe_unlabelled(truth, reading.model))
    sys.exit(ExitStatus.FAILED_ROWS if sink.checkpoint.failed else 0)


def describe_unlabelled(truth: str, model: str) -> str:
    """Says that no image that was read has a right answer."""
    what = "number" if model == NUMBER else "digit"
    where = f"in a folder named by a {what}" if truth == "parent" else f"in {truth}"
    return f"no accuracy: none of the images that were read is {where}"


@click.command(epilog=options.SOURCES_HELP)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", type=click.Path(readable=False))
@options.reading
@options.truth
@options.limit
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="picture of the matrix to draw, .png, .svg or .pdf",
)
@options.workers()
@options.private_broker
@click.option("--overwrite", is_flag=True, help="replace the picture")
def evaluate(
    sources: tuple[str, ...],
    reading: "Reading",
    truth: str | None,
    limit: int | None,
    plot: Path | None,
    workers: int | None,
    broker: str | None,
    overwrite: bool,
) -> None:
    """Measure a model on the MNIST test images, or on yours.

    For digits it prints the confusion matrix, the recall and precision of each class, and the
    accuracy. For whole numbers it prints how many are right, and how many are to be reviewed.
    """
    from digitq.backend import open_backend, take_results
    from digitq.confusion import ConfusionSink, plot_confusion, tabulate_confusion
    from digitq.scores import ScoreSink, tabulate_scores
    from producer.sources.opening import count_files, open_sources

    reads_numbers = reading.model == NUMBER
    if plot:
        check_plot(plot, reads_numbers, overwrite)
    names = sources or ("mnist:test",)
    source = open_sources(names, truth == "parent", limit, options.truth_file(truth))
    if not source.has_truth:
        raise UsageError(f"{source.name} has no right answers: name them with --truth")
    sink = ScoreSink() if reads_numbers else ConfusionSink()
    with open_backend(broker, workers, count_files(names)) as backend:
        job = backend.client.start(source, reading)
        take_results(backend, job, sink, source.count)
    if truth and not sink.checkpoint.labelled and not sink.checkpoint.failed:
        raise UsageError(describe_unlabelled(truth, reading.model))
    if isinstance(sink, ScoreSink):
        click.echo(tabulate_scores(sink))
    else:
        click.echo(tabulate_confusion(sink.confusion))
        if plot:
            images = source.name if sources else "the MNIST test images"
            plot_confusion(sink.confusion, f"{reading.model} on {images}", plot)
            echo_err(f"the picture of the matrix is in {plot}")
    if sink.checkpoint.failed:
        echo_err(f"{plural(sink.checkpoint.failed, 'image')} with an error, such as: {sink.error}")
        sys.exit(ExitStatus.FAILED_ROWS)


@click.command()
@options.workers("2")
@click.option("--keep", is_flag=True, help="keep Redis, workers and Flower running until Ctrl-C")
def demo(workers: int | None, keep: bool) -> None:
    """Classify the 10,000 MNIST test images, to see it work.

    It starts Redis, two workers and Flower, writes results/demo.csv, and stops them again.
    """
    from digitq.backend import private_backend, take_results
    from digitq.local.processes import Local
    from producer.sources.opening import open_sources

    source = open_sources("mnist:test")
    out = Path("results/demo.csv")
    try:
        out.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't write {out}: {error.strerror}") from None
    sink = open_sink(str(out), {"sources": ["mnist:test"]}, overwrite=True)
    with closing(sink), Local(workers or 2, flower=True) as local:
        echo_err(f"starting Redis, {plural(local.workers, 'worker')} and Flower …")
        backend = private_backend(local)
        echo_err(f"Flower   {local.flower_url}")
        job = backend.client.submit_source(source)
        done = take_results(backend, job, sink, source.count)
        report_rows(sink, done)
        if keep:
            echo_err(f"Redis    {local.url}\nCtrl-C stops them")
            local.watch()
    echo_err("all stopped; `digitq up` keeps Redis, workers and Flower running")
    sys.exit(ExitStatus.FAILED_ROWS if sink.checkpoint.failed else 0)


def check_plot(plot: Path, reads_numbers: bool, overwrite: bool) -> None:
    """Raises `UsageError` if the matrix can't be drawn to this file."""
    if reads_numbers:
        raise UsageError("--plot draws a matrix of digits: leave it out for whole numbers")
    if not plot.absolute().parent.is_dir():
        raise UsageError(f"can't write {plot}: no such folder")
    if plot.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"--plot {plot} must end in {' or '.join(PLOT_SUFFIXES)}")
    if plot.exists() and not overwrite:
        raise UsageError(f"{plot} exists: --overwrite replaces it")
    require("matplotlib", "plot")
