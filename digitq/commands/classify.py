"""`classify` and `demo`, which start private workers."""

import os
import sys
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digitq import options
from digitq.commands.reports import check_key, check_page, check_wide, show_results
from digitq.protocol.errors import UsageError
from digitq.protocol.settings import find_weights, settings
from digitq.protocol.text import plural, shown
from digitq.summary import (
    open_sink,
    report_interruption,
    report_risk,
    report_rows,
    report_truth,
)
from digitq.terminal import ExitStatus, echo_err, require

if TYPE_CHECKING:
    from digitq.producer.sources.source import Source
    from digitq.protocol.asked.reading import Reading
    from digitq.protocol.prediction import Answer


@click.command(epilog=options.SOURCES_HELP)
@options.sources
@options.out
@options.reading
@options.weights
@options.workers()
@options.private_broker
@options.adapt
@options.limit
@options.truth
@options.wide
@options.report
@options.key
@options.overwrite
def classify(
    sources: tuple[str, ...],
    out: str | None,
    reading: "Reading[Answer]",
    workers: int | None,
    broker: str | None,
    adapts: bool,
    limit: int | None,
    truth: str | None,
    wide: bool,
    page: Path | None,
    key: Path | None,
    overwrite: bool,
) -> None:
    """Classify images and write one row per image, in order.

    \b
    digitq classify photos -o results.csv
    digitq classify scans.zip 7.png --model cnn
    digitq classify fields --read number --length 9 -o ids.csv --adapt
    digitq classify scans.pdf --form form.toml -o marks.csv --wide

    After an interruption, the same command continues where it stopped. Exit status: 0 if all images
    were classified, 1 if some rows have an error, 2 for bad usage or input, 3 if Redis, a bucket
    or the disk failed, 130 after Ctrl-C.
    """
    from digitq.adapting import open_each_time, report_adapted, take_adapted
    from digitq.backend import open_client, take_results
    from digitq.phases import refuse_adapting
    from digitq.producer.sources.opening import count_files, open_sources

    has_broker = bool(broker or settings().broker_url)  # its workers have weights of their own
    reading.check_here(has_broker)
    if adapts:
        require("worker")
        refuse_adapting(reading)
    if page:
        check_page(page, overwrite, out)
    if wide:
        check_wide(reading.form_name, out, overwrite)
    check_key(reading.form_name, key, wide, page)
    if out:
        _refuse_source(sources, out)
    answers = options.truth_file(truth)
    run = _identify(sources, reading, limit, truth, has_broker, adapts)
    opened: list[Source] = []
    adapted = None

    def open_source() -> "Source":
        opened.append(open_sources(sources, truth == "parent", limit, answers))
        return opened[-1]

    with closing(open_sink(out, run, overwrite)) as sink, report_interruption(sink, overwrite):
        if sink.counts.images:
            echo_err(f"continuing {out} after {plural(sink.counts.images, reading.row)}")
        if not sink.upload():
            images = reading.count_rows(count_files(sources))
            with (
                open_client(broker, workers, images) as client,
                open_each_time(sources if adapts else (), open_source) as open_again,
            ):
                if adapts:
                    adapted = take_adapted(
                        client, open_again, reading, sink, run, workers, overwrite
                    )
                else:
                    source = open_again()
                    job = client.submit_source(source, reading, resume=sink.counts)
                    take_results(client, job, sink, lambda: reading.count_rows(source.count()))
    report_rows(sink, opened[-1].skipped.describe() if opened else "", what=reading.row)
    if adapted:
        report_adapted(adapted, sink.counts.review)
    report_risk(sink, reading.risk, reading.like, bool(reading.form))
    report_truth(sink.counts, reading.what, truth, opened[-1].gaps if opened else None)
    show_results(out, wide, page, key)
    sys.exit(ExitStatus.FAILED_ROWS if sink.counts.failed else 0)


def _identify(
    sources: tuple[str, ...],
    reading: "Reading[Answer]",
    limit: int | None,
    truth: str | None,
    has_broker: bool,
    adapts: bool,
) -> dict[str, Any]:
    """What must be equal for a run to continue an interrupted one."""
    from digitq.producer.provenance import own_weights_name
    from digitq.producer.sources.opening import find_change, is_set
    from digitq.protocol.asked.known import name_known
    from digitq.protocol.formats.csv_rows import find_column
    from digitq.protocol.formats.stores import is_stored

    asked = reading.with_network(None) if reading.network else reading
    shared_weights = None if has_broker else own_weights_name(reading.model)
    run: dict[str, Any] = {
        "sources": [
            shown(name)
            if name == "-" or name.startswith("mnist:") or is_stored(name)
            else os.path.abspath(name)
            for name in sources
        ],
        "model": reading.model,
        "known": name_known(asked.known) or None,
        "limit": limit,
        "truth": truth,
        "digitq": version("digitq"),
        "weights": reading.network.name if reading.network else shared_weights,
    }
    files: list[str | Path] = [*filter(is_set, sources)]
    if answers := options.truth_file(truth):
        files.append(find_column(answers)[0])
    if files:
        run["modified"] = [*map(find_change, files)]
    if adapts:
        run["adapt"] = True
    return run


def _refuse_source(sources: tuple[str, ...], out: str) -> None:
    """Raises `UsageError` if the results would replace a SOURCE."""
    for name in sources:
        exist = os.path.exists(name) and os.path.exists(out)
        if name == out or (exist and os.path.samefile(name, out)):
            raise UsageError(f"{out} is a SOURCE: the results would replace it; name another OUT")


@click.command()
@options.workers("2")
@options.weights
@click.option("--keep", is_flag=True, help="keep Redis, workers and Flower running until Ctrl-C")
def demo(workers: int | None, keep: bool) -> None:
    """Classify images of MNIST, to see it work.

    It starts Redis, two workers and Flower, writes results/demo.csv, and stops them again. The
    images are MNIST's 10,000 test images, or 5,000 of its training images if MNIST can't be
    downloaded.
    """
    from digitq.backend import LocalClient, take_results
    from digitq.private.processes import Local

    if own := settings().own_weights():
        find_weights(own, settings().model, is_read_with=False)  # raises if it lacks the network
    source = _open_demo()
    out = Path("results/demo.csv")
    try:
        out.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't write {out}: {error.strerror}") from None
    sink = open_sink(str(out), {"sources": [source.name]}, overwrite=True)
    with closing(sink), Local(workers or 2, flower=True) as local:
        echo_err(f"starting Redis, {plural(local.workers, 'worker')} and Flower …")
        client = LocalClient(local)
        echo_err(f"Flower   {local.flower_url}")
        job = client.submit_source(source)
        take_results(client, job, sink, source.count)
        report_rows(sink)
        if keep:
            echo_err(f"Redis    {local.url}\nCtrl-C stops them")
            local.watch()
    echo_err("all stopped; `digitq up` keeps Redis, workers and Flower running")
    sys.exit(ExitStatus.FAILED_ROWS if sink.counts.failed else 0)


def _open_demo() -> "Source":
    """MNIST's test images. If MNIST can't be downloaded, the sample of its training images, without
    their labels: the networks have learned these, so an accuracy would mean nothing."""
    from digitq.producer.sources.opening import open_sources
    from digitq.protocol.formats.mnist import NoMnistError

    try:
        return open_sources("mnist:test")
    except NoMnistError as error:
        echo_err(str(error))
    source = open_sources("mnist:sample")
    echo_err(
        "instead, these are 5,000 images that the networks were trained on (mnist:sample), so no "
        "accuracy is shown"
    )
    return replace(source, has_truth=False)
