"""How fast is a deployment: `python -m benchmarks.deployment`, in the root of a clone of digitq."""

import json
from functools import partial

import click

from benchmarks import share_path
from benchmarks.deployment.measures import MEASURES, RATIOS, Bench
from benchmarks.rounds import run_rounds, tabulate
from digitq import cli, options
from digitq.__main__ import hide_password
from digitq.protocol.errors import UsageError
from digitq.protocol.settings import settings
from digitq.terminal import echo_err, find_missing, require


@click.command("python -m benchmarks.deployment", context_settings={"max_content_width": 100})
@options.private_broker
@options.weights
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([*MEASURES]),
    help="measure only this; may be given several times [all]",
)
@options.number("--rounds", "measure everything N times and take the medians", 3)
@options.number(
    "--images",
    "images of `network` and `queue` in a round; the slower measurements take fewer",
    600_000,
)
@options.json
def bench(
    broker: str | None, only: tuple[str, ...], rounds: int, images: int, as_json: bool
) -> None:
    """Load-test a deployment, or two private workers.

    With a broker, its running workers are measured and nothing is started. Without one, a private
    Redis and two workers run for as long as the test does.

    The load is the MNIST training images, repeated. Each figure is the median of the rounds. All of
    it takes some minutes, `--only latency` less than one. Other work on the machines distorts the
    figures.

    \b
    network     the network alone: one process of this machine, no queue
    queue       arrays through the queue to a CSV file, and to a Parquet file
    latency     one Client.classify at a time: the median and the 99th percentile
    concurrent  64 callers at the same time, as threads and as coroutines
    scale       the cnn model, with two workers and with one (with a broker: with all of its)
    numbers     whole numbers in PNG files, and their network alone, which looks once
    """
    broker = broker or settings().broker_url
    if broker and settings().weights:
        raise UsageError("--weights is for private workers: it does not go with --broker")
    names = [name for name in MEASURES if name in (only or MEASURES)]
    if not broker or "network" in only:
        require("worker")
    elif "network" in names and (missing := find_missing("worker")):
        names.remove("network")
        echo_err(f"`network` is left out: {missing} is not installed here")
    if broker and "scale" in names:
        echo_err("`scale` measures all workers of the broker: it has no row for one worker")
    with Bench(images, broker) as shared:
        echo_err(shared.describe())
        measures = [partial(measure, shared) for name in names for measure in MEASURES[name]]
        rows = run_rounds(measures, rounds, RATIOS)
    click.echo(json.dumps(rows, indent=2) if as_json else tabulate(rows))


if __name__ == "__main__":
    hide_password()
    share_path()
    cli.main(command=bench)
