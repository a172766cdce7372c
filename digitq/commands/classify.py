"""`classify`, `evaluate` and `demo`, which start private workers."""

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from digitq import options
from digitq.report import open_sink, report_interruption, report_rows
from digitq.terminal import ExitStatus, echo_err, require
from protocol.errors import UsageError
from protocol.settings import settings
from protocol.text import plural

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@click.command(epilog=options.SOURCES_HELP)
@options.sources
@options.out
@options.model
@options.workers()
@options.private_broker
@options.limit
@options.truth
@options.overwrite
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
    """Classify images and write one row per image, in order.

    \b
    digitq classify photos -o results.csv
    digitq classify scans.zip 7.png --model cnn

    After an interruption, the same command continues where it stopped. Exit status: 0 if all images
    were classified, 1 if some rows have an error, 2 for bad usage or input, 3 if Redis or the disk
    failed, 130 after Ctrl-C.
    """
    from digitq.backend import open_backend, take_results
    from producer.sources.opening import count_files, is_set, open_sources

    for name in sources if out and os.path.exists(out) else ():
        if os.path.exists(name) and os.path.samefile(name, str(out)):
            raise UsageError(f"{out} is a SOURCE: the results would replace it; name another OUT")
    source = open_sources(sources, truth == "parent", limit)
    run: dict[str, Any] = {
        "sources": [
            name if name == "-" or name.startswith("mnist:") else os.path.abspath(name)
            for name in sources
        ],
        "model": model or settings().model,
        "limit": limit,
        "truth": truth,
    }
    if sets := [name for name in sources if is_set(name)]:
        run["modified"] = [os.stat(name).st_mtime_ns for name in sets]  # their ids are row numbers
    if weights := settings().own_weights():
        run["weights"] = str(weights)
    with closing(open_sink(out, run, overwrite)) as sink, report_interruption(sink, overwrite):
        if sink.checkpoint.rows:
            echo_err(f"continuing {out} after {sink.checkpoint.rows:,} images")
        with open_backend(broker, workers, count_files(sources)) as backend:
            job = backend.client.submit_source(source, model, resume=sink.checkpoint)
            done = take_results(backend, job, sink, source.count)
    report_rows(sink, source.skipped.describe(), done)
    if truth and not sink.checkpoint.labelled:
        echo_err("no accuracy: none of the images that were read is in a folder named by a digit")
    sys.exit(ExitStatus.FAILED_ROWS if sink.checkpoint.failed else 0)


@click.command()
@options.model
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="picture of the matrix to draw, .png, .svg or .pdf",
)
@options.workers()
@options.private_broker
@click.option("--overwrite", is_flag=True, help="replace the picture")
def evaluate(
    model: str | None, plot: Path | None, workers: int | None, broker: str | None, overwrite: bool
) -> None:
    """Measure a model on the MNIST test images.

    It prints the confusion matrix, the recall and precision of each class, and the accuracy.
    """
    from digitq.backend import open_backend, take_results
    from digitq.confusion import ConfusionSink, plot_confusion, tabulate_confusion
    from producer.sources.opening import open_sources

    if plot:
        if not plot.absolute().parent.is_dir():
            raise UsageError(f"can't write {plot}: no such folder")
        if plot.suffix.lower() not in PLOT_SUFFIXES:
            raise UsageError(f"--plot {plot} must end in {' or '.join(PLOT_SUFFIXES)}")
        if plot.exists() and not overwrite:
            raise UsageError(f"{plot} exists: --overwrite replaces it")
        require("matplotlib", "plot")
    source = open_sources("mnist:test")
    sink = ConfusionSink()
    with open_backend(broker, workers) as backend:
        job = backend.client.submit_source(source, model)
        take_results(backend, job, sink, source.count)
    click.echo(tabulate_confusion(sink.confusion))
    if plot:
        title = f"{model or settings().model} on the MNIST test images"
        plot_confusion(sink.confusion, title, plot)
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
        report_rows(sink, run=done)
        if keep:
            echo_err(f"Redis    {local.url}\nCtrl-C stops them")
            local.watch()
    echo_err("all stopped; `digitq up` keeps Redis, workers and Flower running")
    sys.exit(ExitStatus.FAILED_ROWS if sink.checkpoint.failed else 0)
