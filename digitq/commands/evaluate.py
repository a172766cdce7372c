"""`evaluate`: how well images are read, or were read."""

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from digitq import options
from digitq.protocol.asked.sample import show_bound
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.xlsx_rows import XLSX
from digitq.protocol.settings import settings
from digitq.protocol.text import plural
from digitq.summary import report_truth, report_zeros
from digitq.terminal import ExitStatus, echo_err

if TYPE_CHECKING:
    import pyarrow as pa

    from digitq.producer.sources.source import TruthGaps
    from digitq.protocol.asked.reading import Reading
    from digitq.protocol.prediction import Answer
    from digitq.review.scores import ScoreSink

RUN_OPTIONS = (
    *("read", "model", "length", "pattern", "allowed", "fill", "form", "risk", "like"),
    *("second_reader", "own_weights", "workers", "broker"),
)


@click.command(epilog=options.SOURCES_HELP)
@click.argument("sources", nargs=-1, metavar="[SOURCE|RESULTS]...", type=click.Path(readable=False))
@options.reading
@options.truth
@options.limit
@options.json
@options.weights
@options.workers()
@options.private_broker
def evaluate(
    sources: tuple[str, ...],
    reading: "Reading[Answer]",
    truth: str | None,
    limit: int | None,
    as_json: bool,
    workers: int | None,
    broker: str | None,
) -> None:
    """Measure a model on the MNIST test images, or on yours.

    \b
    digitq evaluate --model cnn
    digitq evaluate scans --truth truth.csv
    digitq evaluate results.csv --truth corrections.csv

    RESULTS is a result file: its answers are measured, and nothing is classified. Each share is
    printed with its 95 % interval. The exit status is that of `classify`.
    """
    from digitq.backend import open_client, take_results
    from digitq.producer.sources.opening import count_files, open_sources
    from digitq.review.scores import ScoreSink, tabulate_scores

    if any(map(is_result_file, sources)):
        refuse_run_options()
        name = sources[0]
        model, gaps, sink = read_results(sources, truth, limit)
    else:
        reading.check_here(bool(broker or settings().broker_url))
        names = sources or ("mnist:test",)
        source = open_sources(names, truth == "parent", limit, options.truth_file(truth))
        name, model, gaps = source.name, reading.model, source.gaps
        sink = ScoreSink(reading.what, reading.risk, reading.form)
        if not source.has_truth:
            raise UsageError(f"{name} has no right answers: name them with --truth")
        with open_client(broker, workers, reading.count_rows(count_files(names))) as client:
            job = client.submit_source(source, reading)
            take_results(client, job, sink, lambda: reading.count_rows(source.count()))
    counts = sink.counts
    report_truth(counts, sink.read, truth, gaps)
    if not counts.labelled and counts.failed < counts.images:
        raise UsageError(f"{name} can't be evaluated: no image has a right answer")
    figures = {"model": model} | sink.figures()
    click.echo(json.dumps(figures) if as_json else tabulate_scores(figures))
    if (sample := sink.sample()).looked_at and not as_json:
        is_part = sample.looked_at < sample.unmarked
        described = sample.describe("numbers" if sink.promised_of else "rows")
        click.echo(f"\n{described}{', if these are a random part of them' * is_part}")
        if sink.risk:
            share = 100 * sample.wrong / sample.looked_at
            click.echo(f"{show_bound(sink.risk)} may be wrong, as promised; {share:.2f} % are")
    if counts.corrected:
        verb = "is" if counts.corrected == 1 else "are"
        echo_err(f"{plural(counts.corrected, 'answer')} {verb} a person's")
    report_zeros(counts.other_zeros)
    if counts.failed:
        echo_err(f"{plural(counts.failed, 'image')} with an error, such as: {sink.error}")
        sys.exit(ExitStatus.FAILED_ROWS)


def read_results(
    names: Sequence[str], truth: str | None, limit: int | None
) -> "tuple[str, TruthGaps, ScoreSink]":
    """Compare the answers in a result file. Its model is "digit" or "number" if that is not on
    record. Raises `UsageError` if no answer has a truth."""
    from digitq.producer.results import open_results
    from digitq.producer.sources.source import TruthGaps, parent_name, take_first
    from digitq.producer.sources.truth import adapt_truth, read_truths, set_truths, take_truth
    from digitq.protocol.chunk import truth_field
    from digitq.review.page_fields import find_form
    from digitq.review.scores import ScoreSink

    if len(names) > 1:
        raise UsageError("one result file can be evaluated at a time")
    results, gaps = open_results(Path(names[0])), TruthGaps()
    rows: Iterable[pa.RecordBatch] = results.batches()
    if truth == "parent":
        rows = set_truths(rows, lambda id, *place: parent_name(id))
    elif truth:
        truths = gaps.unused = read_truths(Path(truth))
        rows = set_truths(rows, partial(take_truth, truths))
    elif "truth" not in results.schema.names:
        raise UsageError(f"{results.path} has no right answers: name them with --truth")
    record = results.record
    form = find_form(record)[0] if results.has_form else None
    # Without the form on record, numbers can't be told from ticks, which the risk does not weigh
    risk = record.risk if record and (form or not results.has_form) else None
    sink = ScoreSink(results.read, risk, form)
    field = truth_field(results.read)
    for batch in rows if limit is None else take_first(rows, limit):
        sink.write(adapt_truth(batch, field, gaps))
    if limit is not None:
        gaps.unused = {}  # rows after the limit may have these ids
    return record.model if record else results.read, gaps, sink


def is_result_file(name: str) -> bool:
    """Whether a SOURCE is a file of results, by its columns."""
    from digitq.producer.results import READERS, read_names

    path, suffix = Path(name), Path(name).suffix.lower()
    if suffix not in (*READERS, XLSX) or not path.is_file():
        return False
    if suffix in (".jsonl", XLSX):
        return True  # no SOURCE ends so
    with suppress(OSError, ValueError, UsageError):  # opening it as a SOURCE gives the error
        return {"id", "confidence", "error"} <= {*read_names(path)}
    return False


def refuse_run_options() -> None:
    """Raises `UsageError` if an option was given that a result file has no use for."""
    context = click.get_current_context()
    for name in RUN_OPTIONS:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            option = name.removeprefix("own_")
            raise UsageError(f"--{option} does not go with a result file, which has the answers")
