"""`inspect`, which runs the worker's own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from digitq import options
from digitq.commands.run import PassThrough, exec_module, others_argument
from digitq.terminal import echo_err, require
from protocol.errors import UsageError
from protocol.text import in_one_line, plural

if TYPE_CHECKING:
    from producer.record import Record
    from producer.results import ResultFile

MAX_NAME_CHARACTERS = 50  # an id may be longer than the name of a file can be
RESULT_SUFFIXES = (".csv", ".jsonl", ".parquet")


@click.command(cls=PassThrough)
@others_argument()
def inspect(passed_on: tuple[str, ...]) -> None:
    """Show how images or result rows came to their answers."""
    require("worker")
    require("plot")
    is_file = passed_on and passed_on[0].lower().endswith(RESULT_SUFFIXES)
    if is_file and "--help" not in passed_on:
        try:
            inspect_results(list(passed_on), "digitq inspect", standalone_mode=False)
        except click.NoSuchOption as error:
            if error.possibilities:
                raise
            option = error.option_name
            raise UsageError(f"{option} does not go with a result file") from None
        return
    exec_module(None, "worker", "inspect", *passed_on)


@click.command(add_help_option=False)  # the worker's `inspect` has it all
@click.argument("path", metavar="RESULTS", type=click.Path(path_type=Path))
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", type=click.Path(readable=False))
@options.weights
@click.option("--review", is_flag=True, help="only rows that a person should check")
@options.number("--limit", "draw the first N of these rows", 20)
@click.option("--allowed", metavar="FILE", help="the numbers that there can be")
def inspect_results(
    path: Path, sources: tuple[str, ...], review: bool, limit: int, allowed: str | None
) -> None:
    """Show how rows of a result file came to their answers.

    The images are looked for where the rows' record says they were, or in the SOURCEs. The network
    is that of the record.
    """
    from producer.pictures import find_pictures
    from producer.results import open_results

    results = open_results(path)
    ids = [*choose_rows(results, review)]
    if not ids:
        echo_err(f"{path} has no row {'to review' if review else 'with an answer'}")
        sys.exit(0)
    if results.read == "number" and results.record:
        check_allowed(results.record, allowed)
    shown = dict.fromkeys(ids[:limit])
    if len(ids) > limit:
        echo_err(f"the first {limit} of {plural(len(ids), 'row')}; --limit N takes more")
    status = 0
    with TemporaryDirectory(prefix="digitq-") as folder:
        images: dict[str, Path] = {}
        for place, picture in enumerate(find_pictures(results.record, sources, shown)):
            if picture.problem:
                echo_err(f"{in_one_line(picture.id)}: {picture.problem}")
            if picture.content is None:
                status = 1
                continue
            name = os.path.basename(picture.id)[-MAX_NAME_CHARACTERS:] or "image"
            images[picture.id] = Path(folder, str(place), name)
            images[picture.id].parent.mkdir()
            images[picture.id].write_bytes(picture.content)
        found = [id for id in shown if id in images]
        command = [*choose_network(results), *(f"--id={id}" for id in found)]
        command += [f"--allowed={allowed}"] * bool(allowed)
        files = map(str, map(images.get, found))
        python = [sys.executable, "-P", "-m", "worker", "inspect"]
        status = max(status, subprocess.call([*python, *command, "--", *files]) if found else 0)
    sys.exit(status)


def choose_rows(results: "ResultFile", review: bool) -> Iterator[str]:
    """The ids of the rows with an answer, or of those that a person should check."""
    for batch in results.batches():
        columns = batch.select(["id", "error", "review"]).to_pydict().values()
        for id, error, doubtful in zip(*columns, strict=True):
            if error is None and (doubtful or not review):
                yield id


def check_allowed(record: "Record", path: str | None) -> None:
    """Say if more or fewer numbers were allowed when the rows were made. Raises `UsageError`."""
    from protocol.known import Known, describe_known, read_lines

    given = None
    if path:
        _, given = describe_known(Known.check(record.length, read_lines(Path(path))).encode())
    if given != record.allowed:
        were = "no list of allowed numbers"
        if record.allowed:
            were = plural(record.allowed, "allowed number")
        advice = "name their file with --allowed" if record.allowed else "leave out --allowed"
        echo_err(f"the rows were made with {were}: {advice}")


def choose_network(results: "ResultFile") -> list[str]:
    """The options of `inspect` for the network that made the rows."""
    record: Any = results.record
    made_by = [f"--made-by={digits}" for digits in record.weights] if record else []
    if results.read == "number":
        length = record and record.length
        return ["--read=number", *([f"--length={length}"] if length else []), *made_by]
    return [f"--model={record.model}", *made_by] if record else []
