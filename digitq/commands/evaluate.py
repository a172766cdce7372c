"""`evaluate`: how well images are read, or were read."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
from click.core import ParameterSource

from digitq import options
from digitq.summary import report_truth, report_zeros
from digitq.terminal import ExitStatus, echo_err
from protocol.errors import UsageError
from protocol.settings import NUMBER
from protocol.text import plural

if TYPE_CHECKING:
    import pyarrow as pa

    from digitq.reports.scores import Figures, ScoreSink
    from producer.results import ResultFile
    from producer.sources.source import Labels
    from protocol.reading import Reading

OF_A_RUN = ("read", "model", "length", "allowed", "own_weights", "workers", "broker")
OF_ONE_FILE = ("limit", "plot", "overwrite")


class Evaluated(NamedTuple):
    """Answers that are compared with their truths."""

    name: str  # of the SOURCE or the file
    model: str  # "digit" or "number" if it is not known
    labels: "Labels"
    sink: "ScoreSink"


@click.command(epilog=options.SOURCES_HELP)
@click.argument("sources", nargs=-1, metavar="[SOURCE|RESULTS]...", type=click.Path(readable=False))
@options.reading
@options.truth
@options.limit
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="picture of matrix and calibration to draw, .png, .svg or .pdf",
)
@click.option("--compare", is_flag=True, help="compare the answers in two result files")
@options.json
@options.weights
@options.workers()
@options.private_broker
@click.option("--overwrite", is_flag=True, help="replace the picture")
def evaluate(
    sources: tuple[str, ...],
    reading: "Reading",
    truth: str | None,
    limit: int | None,
    plot: Path | None,
    compare: bool,
    as_json: bool,
    workers: int | None,
    broker: str | None,
    overwrite: bool,
) -> None:
    """Measure a model on the MNIST test images, or on yours.

    \b
    digitq evaluate --model cnn
    digitq evaluate scans --truth truth.csv --plot scans.png
    digitq evaluate results.csv --truth corrections.csv
    digitq evaluate --compare mlp.csv cnn.csv --truth truth.csv

    RESULTS is a result file: its answers are measured, and nothing is classified. Each share is
    printed with its 95 % interval. The exit status is that of `classify`.
    """
    from digitq.plot import check_plot, plot_scores
    from digitq.reports.scores import tabulate_scores

    if compare:
        refuse_options("--compare", *OF_A_RUN, *OF_ONE_FILE)
        compare_files(sources, truth, as_json)
        return
    if plot:
        check_plot(plot, overwrite)
    if any(map(is_result_file, sources)):
        refuse_options("a result file, which has the answers", *OF_A_RUN)
        name, model, labels, sink = read_results(sources, truth, limit)
    else:
        names = sources or ("mnist:test",)
        name, model, labels, sink = classify_sources(names, reading, truth, limit, workers, broker)
    counts = sink.checkpoint
    report_truth(counts, model, truth, labels)
    if not counts.labelled and counts.failed < counts.rows:
        raise UsageError(f"{name} can't be evaluated: no image has a right answer")
    figures = {"model": model} | sink.figures()
    click.echo(json.dumps(figures) if as_json else tabulate_scores(figures))
    if plot:
        plot_scores(figures, f"{model}, {name}", plot)
        echo_err(f"the picture is in {plot}")
    report_corrected(sink.corrected)
    report_zeros(counts.other_zeros)
    if counts.failed:
        echo_err(f"{plural(counts.failed, 'image')} with an error, such as: {sink.error}")
        sys.exit(ExitStatus.FAILED_ROWS)


def classify_sources(
    names: Sequence[str],
    reading: "Reading",
    truth: str | None,
    limit: int | None,
    workers: int | None,
    broker: str | None,
) -> Evaluated:
    """Classify images and compare the answers. Raises `UsageError` if none has a truth."""
    from digitq.backend import open_backend, take_results
    from digitq.reports.scores import ScoreSink
    from producer.sources.opening import count_files, open_sources

    source = open_sources(names, truth == "parent", limit, options.truth_file(truth))
    if not source.has_truth:
        raise UsageError(f"{source.name} has no right answers: name them with --truth")
    sink = ScoreSink("number" if reading.model == NUMBER else "digit")
    with open_backend(broker, workers, count_files(names)) as backend:
        job = backend.client.start(source, reading)
        take_results(backend, job, sink, source.count)
    return Evaluated(source.name, reading.model, source.labels, sink)


def read_results(names: Sequence[str], truth: str | None, limit: int | None) -> Evaluated:
    """Compare the answers in a result file. Raises `UsageError` if none has a truth."""
    from digitq.reports.scores import ScoreSink
    from producer.results import open_results
    from producer.sources.source import Labels, take_first

    if len(names) > 1:
        raise UsageError("one result file can be evaluated at a time; --compare compares two")
    results, labels = open_results(Path(names[0])), Labels()
    if not (results.has_truth or truth):
        raise UsageError(f"{results.path} has no right answers: name them with --truth")
    sink, batches = ScoreSink(results.read), label_rows(results, truth, labels)
    for batch in batches if limit is None else take_first(batches, limit):
        sink.write(batch)
    if limit is not None:
        labels.unused = {}
    model = results.record.model if results.record else results.read
    return Evaluated(str(results.path), model, labels, sink)


def label_rows(
    results: "ResultFile", truth: str | None, labels: "Labels"
) -> "Iterator[pa.RecordBatch]":
    """The rows with the right answers that `--truth` names, or with their own."""
    from producer.sources.source import parent_name
    from producer.sources.truth import adapt_truth, read_truths, set_truths
    from protocol.chunk import truth_field

    rows: Iterable[pa.RecordBatch] = results.batches()
    if truth == "parent":
        rows = set_truths(rows, parent_name)
    elif truth:
        truths = labels.unused = read_truths(Path(truth))
        rows = set_truths(rows, lambda id: truths.pop(id, None))
    field = truth_field(NUMBER if results.read == "number" else "")
    return (adapt_truth(batch, field, labels) for batch in rows)


def compare_files(names: Sequence[str], truth: str | None, as_json: bool) -> None:
    """Print what differs in two result files. Raises `UsageError`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from digitq.reports.comparison import compare, describe_comparison
    from producer.checkpoint import Checkpoint
    from producer.results import open_results
    from producer.sources.source import Labels
    from protocol.chunk import answers, corrected

    if len(names) != 2:
        raise UsageError("--compare takes two result files")
    files = [open_results(Path(name)) for name in names]
    if files[0].read != files[1].read:
        raise UsageError("one file has digits and the other whole numbers: they can't be compared")
    kind = pa.schema([(name, pa.string()) for name in ("id", "answer", "truth")])
    tables, lacks, by_person = [], [Labels(), Labels()], [0, 0]
    for place, results in enumerate(files):
        parts = []
        for row in label_rows(results, truth, lacks[place]):
            parts.append([row.column("id"), answers(row), row.column("truth")])
            by_person[place] += pc.sum(corrected(row)).as_py() or 0
        batches = [pa.record_batch([c.cast("string") for c in part], schema=kind) for part in parts]
        tables.append(pa.Table.from_batches(batches, kind))
    figures: Figures = {"files": list(names)} | compare(*tables)
    labels = min(lacks, key=lambda lack: lack.odd)  # the other has more of images in one file only
    labels.odd = min(labels.odd, figures["without_truth"])
    labels.unused = {id: lacks[0].unused[id] for id in lacks[0].unused if id in lacks[1].unused}
    if truth or any(results.has_truth for results in files):
        counts = Checkpoint(figures["images"], unlabelled=figures["without_truth"])
        report_truth(counts, NUMBER if files[0].read == "number" else "digit", truth, labels)
    for name, table, count in zip(names, tables, by_person, strict=True):
        report_zeros(count_other_zeros(table), f" in {name}")
        report_corrected(count, f" in {name}")
    if as_json:
        click.echo(json.dumps(figures))
        return
    no_truth = f"none of these images has a right answer{'' if truth else '; --truth names them'}"
    if truth not in (None, "parent") and not labels.odd:
        no_truth = f"none of the ids in {truth} is in both files"
    for line in describe_comparison(figures, no_truth):
        click.echo(line)


def count_other_zeros(table: "pa.Table") -> int:
    """How many answers differ from their truths in leading zeros only."""
    import pyarrow.compute as pc

    from producer.checkpoint import differ_in_zeros

    return pc.sum(differ_in_zeros(table.column("answer"), table.column("truth"))).as_py() or 0


def report_corrected(count: int, where: str = "") -> None:
    """Tell how many answers a person gave."""
    if count:
        echo_err(f"{plural(count, 'answer')}{where} {'is' if count == 1 else 'are'} a person's")


def is_result_file(name: str) -> bool:
    """Whether a SOURCE is a file of results, by its columns."""
    from producer.results import read_names
    from producer.sinks.encoders import ENCODERS

    path = Path(name)
    if path.suffix.lower() not in ENCODERS or not path.is_file():
        return False
    if path.suffix.lower() == ".jsonl":
        return True  # no SOURCE ends so
    try:
        names = {*read_names(path)}
    except (OSError, ValueError):  # it is said when it is opened as a SOURCE
        return False
    return {"id", "confidence", "error"} <= names


def refuse_options(what: str, *names: str) -> None:
    """Raises `UsageError` if one of these options was given."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name.removeprefix('own_')} does not go with {what}")
