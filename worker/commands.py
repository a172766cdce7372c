"""The worker's own commands. Modules that import slowly are imported when these run."""

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import click

from protocol.errors import DigitqError, OutputError, UsageError
from protocol.settings import INSPECT_SUFFIX, MODELS, NUMBER, use_weights
from protocol.text import in_one_line

PATH = click.Path(path_type=Path)
RESULT_SUFFIXES = (".csv", ".jsonl", ".parquet")  # as result files end


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
def inspect(
    images: tuple[Path, ...],
    out: Path | None,
    model: str | None,
    weights: Path | None,
    read: str,
    length: str | None,
    allowed: Path | None,
) -> None:
    """Show how each IMAGE came to its answer.

    Draws the steps to the 28×28 pixels that the network sees, and prints the ten probabilities. Of
    a whole number it draws a box around each digit, and prints what else the number may be.
    Exit status: 0, 1 if an image can't be read, 2 for bad usage, 3 if a picture or stdout can't be
    written.
    """
    if not sys.stdout:  # `>&-`
        print("digitq: stdout is closed", file=sys.stderr)
        sys.exit(3)
    from protocol.known import Known, read_lines
    from protocol.reading import choose_reading
    from worker.sight.inspection import inspect_image, inspect_number

    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        if results := [image for image in images if image.suffix.lower() in RESULT_SUFFIXES]:
            raise UsageError(
                f"{results[0]} is a table: `inspect` takes images; "
                f"`digitq report {shlex.quote(str(results[0]))}` shows results with their images"
            )
        if out and len(images) > 1:
            raise UsageError("--out takes one IMAGE only")
        lines = None if allowed is None else read_lines(allowed)
        reading = choose_reading(model, read, length, lines)
        use_weights(weights, reading.model)
    except UsageError as error:
        print(f"digitq: {error}", file=sys.stderr)
        sys.exit(2)
    status = 0
    for image in images:
        try:
            if reading.what == "number":
                status = max(status, inspect_number(image, out, Known.decode(reading.known)))
            else:
                status = max(status, inspect_image(image, out, reading.model))
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


@commands.command()
@click.argument("task", type=json.loads)
def train(task: dict[str, Any]) -> None:
    """Go on training a network with a user's images; write its weights and its card to a folder.

    The task, in JSON, has the options of `digitq train`; `images` is the descriptor of a file with
    the images in chunks.
    """
    from protocol.chunk import read_chunks
    from worker.learning.own import make_writable, write_if_better
    from worker.learning.own_digits import train_own_digits
    from worker.learning.own_numbers import train_own_numbers

    name, out, seed = task["name"], Path(task["out"]), task["seed"]
    try:
        make_writable(out, name)
        with open(task["images"], "rb") as file:
            chunks = read_chunks(file)
            if name == NUMBER:
                trained = train_own_numbers(chunks, seed, task["epochs"])
            else:
                trained = train_own_digits(name, chunks, seed, task["epochs"])
        command = f"{trained.before.command}; {task['command']}"
        if not write_if_better(trained, out, seed=seed, command=command):
            sys.exit(1)
    except DigitqError as error:
        print(f"digitq: {in_one_line(str(error))}", file=sys.stderr)
        sys.exit(3 if isinstance(error, OutputError) else 2)
    use = {NUMBER: "--read number"}.get(name, f"--model {name}")
    print(
        f"to use {out / name}.safetensors: digitq classify … {use} --weights "
        f"{shlex.quote(str(out))}",
        file=sys.stderr,
    )


@commands.command(hidden=True)
def see() -> None:
    """Write what the network sees of the images on stdin, as `see_images` has it."""
    from worker.sight.digits import see_images

    see_images(sys.stdin.buffer, sys.stdout.buffer)
