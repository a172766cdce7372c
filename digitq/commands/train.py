"""`train`, which the worker's process does; the images of a SOURCE are handed to it in a file."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import click

from digitq import options
from digitq.commands.run import exec_module, hand_over
from digitq.protocol.errors import UsageError
from digitq.protocol.settings import ALL_MODELS, NUMBER, read_by, settings
from digitq.protocol.text import name_some, plural
from digitq.summary import report_truth
from digitq.terminal import echo_err, require

if TYPE_CHECKING:
    from digitq.producer.sources.source import Source, SourceItem
    from digitq.protocol.asked.reading import Reading
    from digitq.protocol.prediction import Answer


@click.command(epilog=options.SOURCES_HELP)
@click.argument("name", type=click.Choice([name for name in ALL_MODELS if name != "random"]))
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="folder for the new NAME.safetensors and NAME.json",
)
@click.option(
    "--data",
    "sources",
    required=True,
    multiple=True,
    metavar="SOURCE",
    help="images of yours; may be given several times",
)
@options.truth
@options.known
@options.weights
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="the same seed gives the same weights",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    metavar="N",
    help="fewer for a trial [the recipe's]",
)
@click.option(
    "--form",
    metavar="FORM.toml",
    help="the images are pages with this form: `number` learns the numbers in their fields",
)
@options.limit
def train(
    name: str,
    out: Path,
    sources: tuple[str, ...],
    truth: str | None,
    seed: int,
    epochs: int | None,
    form: str | None,
    limit: int | None,
    **known: Any,
) -> None:
    """Go on training a network with your own images.

    \b
    digitq train cnn --data scans --truth final.csv --out mine
    digitq classify more-scans --model cnn --weights mine -o results.csv
    digitq train number --data cells --truth cells.csv --pattern '\\d+\\.\\d' --out mine
    digitq train number --data pages --form form.toml --truth final.csv --out mine
    digitq train number --data cells --pattern integer --out mine

    `digitq correct` writes such a final.csv. Of images without a right answer, the network learns
    its own surest answers. Training begins with digitq's weights, or those of --weights, and takes
    minutes. Of the right answers a fifth is held back, to measure what is right, to review, and
    wrong without a mark, before and after: whole folders or pages, if the ids name them. Exit
    status: 0 if the weights are written, 1 if they would be no better on your images, or if more
    would be wrong without a mark, 2 for bad usage or input, 3 if the disk failed.
    """
    from digitq.form_rows import read_form_file
    from digitq.producer.sources.opening import open_sources
    from digitq.protocol.asked.reading import choose_reading

    require("worker")
    settings().own_weights()  # raises before the images are read
    if name != NUMBER and any(value is not None for value in (form, *known.values())):
        raise UsageError(
            "a form, a length, a pattern, a fill and allowed numbers go with whole numbers, which "
            f"`digitq train {NUMBER}` learns"
        )
    page_form = read_form_file(form) if form else None
    reading = choose_reading(read=read_by(name), page_form=page_form, **known)
    source = open_sources(sources, truth == "parent", limit, options.truth_file(truth))
    ways = list_given("form", "length", "pattern", "allowed", "fill")
    words = [part for source in sources for part in ("--data", source)]
    words += list_given("truth") + ways + list_given("seed", "epochs", "limit")
    use = ["--read", NUMBER] * (name == NUMBER and not form) + ways or ["--model", name]
    task = {
        "name": name,
        "out": str(out),
        "seed": seed,
        "epochs": epochs,
        "mnist": None if name == NUMBER else choose_mnist(),
        "command": shlex.join(["digitq", "train", name, *words, "--out", "DIR"]),
        "use": shlex.join(use),
    }
    # They have no names, so nothing has to remove them
    with TemporaryFile() as file, TemporaryFile() as known_file:
        spool_images(file, source, truth, reading)
        known_file.write(reading.known)
        task |= {"images": hand_over(file), "known": hand_over(known_file)}
        exec_module(None, "digitq.worker", "train", json.dumps(task))


def list_given(*names: str) -> list[str]:
    """These options of the command that runs, and their values, as they were typed."""
    given = click.get_current_context().params
    pairs = [(f"--{name}", str(given[name])) for name in names if given[name] is not None]
    return [part for pair in pairs for part in pair]


def choose_mnist() -> str:
    """The part of MNIST to rehearse: `train`, or `sample` if the whole is not to be had.

    Raises `UsageError` if neither is.
    """
    from digitq.protocol.formats.mnist import NoMnistError, ensure_mnist, load_mnist

    try:
        ensure_mnist()
        return "train"
    except NoMnistError as error:
        reason = str(error)
    try:
        load_mnist("sample")
    except UsageError as error:
        raise UsageError(f"{reason}; {error}") from None
    echo_err(f"{reason}; until then, 4,000 of its images are rehearsed")
    return "sample"


def spool_images(
    file: IO[bytes], source: "Source", truth: str | None, reading: "Reading[Answer]"
) -> None:
    """Write the images of `draw_chunks` to a file, with all right answers.

    Raises `UsageError` for right answers that are no digit or no number.
    """
    import pyarrow.compute as pc

    from digitq.producer.adapted import draw_chunks
    from digitq.producer.counts import Counts
    from digitq.protocol.chunk import write_chunk

    wrong: list[str] = []
    # Another folder's images have no answer
    pattern = "^[0-9.,+/:%-]+$" if truth == "parent" else "."
    if not reading.form:
        source = replace(source, items=find_wrong(source.items, reading.model, pattern, wrong))
    labelled = others = 0
    for chunk in draw_chunks(file, source, reading, source.count(), pattern):
        write_chunk(file, chunk)
        known = 0
        if chunk.truth is not None:  # where nothing is written, there is no right answer
            known = int(pc.sum(pc.not_equal(pc.cast(chunk.truth, "string"), "")).as_py() or 0)
        labelled, others = labelled + known, others + chunk.rows - known
    if wrong:
        what = "number of at most 20 digits" if reading.model == NUMBER else "digit"
        hint = ""
        if reading.model != NUMBER and any(re.search(r"\([0-9]{2,}\)$", one) for one in wrong):
            hint = f"; `digitq train {NUMBER}` learns whole numbers"
        raise UsageError(
            f"{plural(len(wrong), 'right answer')} can't be learned, as a {what} is needed: "
            f"{name_some(wrong)}{hint}"
        )
    notes = [f"{plural(labelled, reading.row)} with a right answer"]
    if others:
        notes.append(f"{others:,} without one")
    if skipped := source.skipped.describe():
        notes.append(f"{skipped} skipped")
    echo_err(", ".join(notes))
    if source.gaps.invalid or source.gaps.unused:
        counts = Counts() if reading.form else Counts(labelled + others, unlabelled=others)
        report_truth(counts, reading.what, truth, source.gaps)


def find_wrong(
    items: "Iterable[SourceItem]", model: str, pattern: str, wrong: list[str]
) -> "Iterator[SourceItem]":
    """Yield the items unchanged. Append `id (answer)` to `wrong` where the right answer is none.

    An answer without the pattern counts as missing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from digitq.producer.sources.source import Entry
    from digitq.producer.sources.truth import parse_labels
    from digitq.protocol.chunk import truth_field

    kind = truth_field(read_by(model)).type
    for item in items:
        if isinstance(item, Entry):
            ids, truths = [item.id], pa.array([item.truth], pa.string())
        elif "truth" in item.schema.names:
            ids, truths = item.column("id"), pc.cast(item.column("truth"), pa.string())
        else:
            ids, truths = [], pa.array([], pa.string())
        answered = pc.fill_null(pc.match_substring_regex(truths, pattern), False)
        right = pc.cast(parse_labels(truths, kind), pa.string())
        is_learned = pc.match_substring_regex(right, "[0-9]").fill_null(False)
        is_wrong = pc.and_(answered, pc.invert(is_learned))
        for index in pc.indices_nonzero(is_wrong).to_pylist():
            wrong.append(f"{ids[index]} ({truths[index]})")
        yield item
