"""The worker's own commands. Modules that import slowly are imported when these run."""

import json
import os
import shlex
import signal
import sys
from itertools import zip_longest
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from protocol.errors import DigitqError, OutputError, UsageError
from protocol.settings import INSPECT_SUFFIX, MODELS, NUMBER, use_weights
from protocol.text import in_one_line

if TYPE_CHECKING:
    from worker.models.card import Card

PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Commands that `digitq inspect`, `digitq train` and `digitq report` run."""


@commands.command()
@click.argument("images", nargs=-1, required=True, type=PATH, metavar="IMAGE...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"the picture of one IMAGE, a .png [its name with {INSPECT_SUFFIX}, here]",
)
@click.option("--model", type=click.Choice(MODELS), help="the network to use [DIGITQ_MODEL]")
@click.option(
    "--weights",
    type=PATH,
    metavar="DIR",
    help="folder of `digitq train` with networks to use [DIGITQ_WEIGHTS, else digitq's own]",
)
@click.option(
    "--read",
    type=click.Choice(["digit", "number"]),
    default="digit",
    show_default=True,
    help="what is read in each IMAGE: one digit, or the whole number",
)
@click.option("--length", metavar="N", help="how many digits the number has, such as 9 or 3-6")
@click.option(
    "--allowed", type=PATH, metavar="FILE", help="the numbers that there can be, one on each line"
)
@click.option("--review", is_flag=True, help="of RESULTS: only rows that a person should check")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="of RESULTS: the first N of these rows [20]",
)
@click.option("--id", "ids", multiple=True, hidden=True)  # by which result rows know the images
@click.option("--made-by", multiple=True, hidden=True)  # the weights that are on record for them
def inspect(
    images: tuple[Path, ...],
    out: Path | None,
    model: str | None,
    weights: Path | None,
    read: str,
    length: str | None,
    allowed: Path | None,
    review: bool,
    limit: int | None,
    ids: tuple[str, ...],
    made_by: tuple[str, ...],
) -> None:
    """Show how each IMAGE came to its answer, or how the rows of a result file did.

    \b
    digitq inspect IMAGE...
    digitq inspect RESULTS [SOURCE...] --review [--limit N]

    Draws the steps to the 28×28 pixels that the network sees, and prints the ten probabilities. Of
    a whole number it draws a box around each digit, and prints what else the number may be.
    Exit status: 0, 1 if an image can't be read, 2 for bad usage, 3 if a picture or stdout can't be
    written.
    """
    from protocol.known import Known, read_lines
    from protocol.reading import choose_reading
    from worker.sight.inspection import inspect_image, inspect_number

    if not sys.stdout:  # `>&-`
        print("digitq: stdout is closed", file=sys.stderr)
        sys.exit(3)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        if review or limit:
            raise UsageError("--review and --limit go with a result file, which comes first")
        if out and len(images) > 1:
            raise UsageError("--out takes one IMAGE only")
        lines = None if allowed is None else read_lines(allowed)
        reading = choose_reading(model, read, length, lines)
        use_weights(weights, reading.model)
        note_other_weights(reading.model, made_by)
    except UsageError as error:
        print(f"digitq: {error}", file=sys.stderr)
        sys.exit(2)
    status = 0
    for image, id in zip_longest(images, ids):
        try:
            if read == NUMBER:
                status = max(status, inspect_number(image, out, Known.decode(reading.known), id))
            else:
                status = max(status, inspect_image(image, out, reading.model, id))
            sys.stdout.flush()
        except DigitqError as error:
            print(f"digitq: {in_one_line(str(error))}", file=sys.stderr)
            status = max(status, 3 if isinstance(error, OutputError) else 2)
        except OSError as error:  # stdout can't be written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                sys.exit(128 + signal.SIGPIPE)
            print(f"digitq: {error}", file=sys.stderr)
            sys.exit(3)
    sys.exit(status)


def note_other_weights(model: str, made_by: tuple[str, ...]) -> None:
    """Say that result rows are of other weights than those that explain them now."""
    from worker.classify import describe_weights

    if made_by and describe_weights(model) not in made_by:
        print(
            f"digitq: the rows were made with other weights ({', '.join(made_by)}): "
            "name their folder with --weights",
            file=sys.stderr,
        )


@commands.command()
@click.argument("task", type=json.loads)
def train(task: dict[str, Any]) -> None:
    """Train a network, and write its weights and its card to a folder.

    The task, in JSON, has the options of `digitq train`. If it has `images`, that is the descriptor
    of a file with a user's own images in chunks.
    """
    name, out = task["name"], Path(task["out"])
    seed, epochs = task["seed"], task["epochs"]
    try:
        if "images" in task:
            with open(task["images"], "rb") as file:
                card = go_on(file, name, seed, epochs, out, task["command"])
        elif name == NUMBER:
            from worker.training.number_trainer import train_number

            card = train_number(seed, epochs, out, task["limit_images"], task["fine_tune"])
        else:
            from worker.training.trainer import train_model

            card = train_model(name, seed, epochs, out, task["limit_images"])
    except DigitqError as error:
        print(f"digitq: {in_one_line(str(error))}", file=sys.stderr)
        sys.exit(3 if isinstance(error, OutputError) else 2)
    if card is None:
        sys.exit(1)
    use = {NUMBER: "--read number"}.get(name, f"--model {name}")
    print(
        f"{out / name}.safetensors is right on {card.test_accuracy:.2%} of the test images; "
        f"to use it: digitq classify … {use} --weights {shlex.quote(str(out))}",
        file=sys.stderr,
    )


@commands.command(hidden=True)
def see() -> None:
    """Write what the network sees of the images on stdin, as `worker.sight.seeing` has it."""
    from worker.sight.seeing import see_images

    see_images(sys.stdin.buffer, sys.stdout.buffer)


def go_on(
    file: IO[bytes], name: str, seed: int, epochs: int | None, out: Path, command: str
) -> "Card | None":
    """Go on training with the images in a file; None if the network would become worse."""
    from protocol.chunk import read_chunks

    chunks = read_chunks(file)
    if name == NUMBER:
        from worker.training.own_numbers import train_own_numbers

        return train_own_numbers(chunks, seed, epochs, out, command)
    from worker.training.own import train_own

    return train_own(chunks, name, seed, epochs, out, command)
