"""`bench`."""

import click

from digitq.bench.rounds import BENCHMARKS
from digitq.options import json_option
from digitq.terminal import echo_err, require


@click.command()
@click.option("--only", multiple=True, type=click.Choice(BENCHMARKS), help="may be repeated [all]")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    metavar="N",
    default=3,
    show_default=True,
    help="in each of which all take their turn",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    metavar="N",
    default=600_000,
    show_default=True,
    help="through the queue in a round; the slower contenders get their part of as many",
)
@json_option
def bench(only: tuple[str, ...], rounds: int, images: int, as_json: bool) -> None:
    """Measure digitq beside other ways to classify.

    All of it takes some minutes, `--only latency` less than one. On a busy machine the figures are
    of little worth.

    Two private workers classify the MNIST training images; the others get the same images and the
    same network, and as many threads or processes. They take turns, another one first in each
    round; a figure is the median of the rounds.

    \b
    torch       the network alone in one process: reads and writes nothing
    queue       arrays through the queue to a CSV, and to Parquet
    celery      plain Celery: a task for each image, JSON, a result backend
    dataloader  the tutorials' loop over datasets.MNIST
    folder      PNG files to a CSV, and torch's ImageFolder with a DataLoader
    latency     Client.classify, a call at a time, and plain Celery's delay().get()
    concurrent  64 threads that call Client.classify
    scale       the cnn with two workers, and with one
    """
    require("torch", "worker")
    import json
    import os
    from functools import partial
    from pathlib import Path

    from digitq.bench.measures import CONTENDERS, Bench, describe_machine
    from digitq.bench.rounds import run_rounds, tabulate

    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # of benchmarks
    echo_err(describe_machine())
    with Bench(images) as shared:
        measures = [
            partial(measure, shared)
            for name in BENCHMARKS
            if name in (only or BENCHMARKS)
            for measure in CONTENDERS[name]
        ]
        rows = run_rounds(measures, rounds, echo_err)
    click.echo(json.dumps(rows, indent=2) if as_json else tabulate(rows))
