"""`classify`, `evaluate` and `demo`."""

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from digitq.commands.output import open_sink, say_where, told_what_is_left
from digitq.options import (
    FAILED_ROWS,
    SOURCES_HELP,
    limit_option,
    model_option,
    out_option,
    overwrite_option,
    private_broker_option,
    sources_argument,
    truth_option,
    workers_option,
)
from digitq.terminal import echo_err, require
from protocol.errors import UsageError
from protocol.settings import settings
from protocol.text import plural

PLOTS = (".png", ".svg", ".pdf")


@click.command(epilog=SOURCES_HELP)
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
    from digitq.backend import open_backend
    from digitq.progress import describe_speed, take_results
    from digitq.report import summarise
    from producer.sources.opening import count_files, is_set, open_sources

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
    with closing(open_sink(out, run, overwrite)) as sink, told_what_is_left(sink, overwrite):
        if sink.checkpoint.rows:
            echo_err(f"{out} goes on after {sink.checkpoint.rows:,} images")
        with open_backend(broker, workers, count_files(sources)) as running:
            job = running.client.submit_source(source, model, resume=sink.checkpoint)
            done = take_results(running, job, sink, source.count)
    echo_err(f"{summarise(sink.checkpoint, source.skipped.describe())}, {describe_speed(*done)}")
    say_where(sink)
    if truth and not sink.checkpoint.labelled:
        echo_err("no image that was read lies in a folder named by a digit: no accuracy")
    sys.exit(FAILED_ROWS if sink.checkpoint.failed else 0)


@click.command()
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
    from digitq.backend import open_backend
    from digitq.confusion import ConfusionSink, plot_confusion, tabulate_confusion
    from digitq.progress import take_results
    from producer.sources.opening import open_sources

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
    with open_backend(broker, workers) as running:
        job = running.client.submit_source(source, model)
        take_results(running, job, sink, source.count)
    click.echo(tabulate_confusion(sink.confusion))
    if plot:
        title = f"{model or settings().model} on the MNIST test images"
        plot_confusion(sink.confusion, title, plot)
        echo_err(f"the matrix is in {plot}")
    if sink.checkpoint.failed:
        echo_err(f"{plural(sink.checkpoint.failed, 'image')} with an error, as: {sink.error}")
        sys.exit(FAILED_ROWS)


@click.command()
@workers_option("2")
@click.option("--keep", is_flag=True, help="keep Flower and the workers running until Ctrl-C")
def demo(workers: int | None, keep: bool) -> None:
    """See it work on the 10,000 MNIST test images.

    Starts Redis, two workers and Flower, writes results/demo.csv, and takes all down again.
    """
    from digitq.backend import private_backend
    from digitq.local.processes import Local
    from digitq.progress import describe_speed, take_results
    from digitq.report import summarise
    from producer.sinks.files import FileSink
    from producer.sources.opening import open_sources

    source = open_sources(["mnist:test"])
    out = Path("results/demo.csv")
    try:
        out.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't write {out}: {error.strerror}") from None
    sink = FileSink(out, {"sources": ["mnist:test"]}, overwrite=True)
    with closing(sink), Local(workers or 2, flower=True) as local:
        echo_err(f"starting Redis, {plural(local.workers, 'worker')} and Flower …")
        with private_backend(local) as running:
            echo_err(f"Flower   {local.flower_url}")
            job = running.client.submit_source(source)
            done = take_results(running, job, sink, source.count)
        echo_err(f"{summarise(sink.checkpoint)}, {describe_speed(*done)}")
        say_where(sink)
        if keep:
            echo_err(f"Redis    {local.url}\nCtrl-C ends")
            local.watch()
    echo_err("all stopped; `digitq up` keeps Redis, workers and Flower running")
    sys.exit(FAILED_ROWS if sink.checkpoint.failed else 0)


def _is_same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False  # one of them isn't there


def _absolute(source: str) -> str:
    return source if source == "-" or source.startswith("mnist:") else os.path.abspath(source)
