"""The worker's own commands. Modules that import slowly are imported when these run."""

import os
import signal
import sys
from itertools import zip_longest
from pathlib import Path

import click

from protocol.errors import DigitqError, OutputError, UsageError
from protocol.settings import ALL_MODELS, INSPECT_SUFFIX, MODELS, NUMBER
from protocol.text import in_one_line

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
def inspect(
    images: tuple[Path, ...],
    out: Path | None,
    model: str | None,
    read: str,
    length: str | None,
    allowed: Path | None,
    review: bool,
    limit: int | None,
    ids: tuple[str, ...],
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
    from worker.inspection import inspect_image, inspect_number

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


@commands.command()
@click.argument("name", type=click.Choice([name for name in ALL_MODELS if name != "random"]))
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="the same seed gives the same weights",
)
@click.option(
    "--epochs",
    type=click.IntRange(0),
    help="fewer for a trial [the recipe's]; of `number`, those of its detector",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="the folder for NAME.safetensors and NAME.json",
)
@click.option(
    "--limit-images",
    type=click.IntRange(60),
    help="train on the first N images only, `number` on N scenes an epoch",
)
@click.option(
    "--fine-tune",
    is_flag=True,
    help="the detector begins with the weights in DIGITQ_WEIGHTS, or with digitq's; with --epochs "
    "0, only the confidence is calibrated (`number` only)",
)
def train(
    name: str, seed: int, epochs: int | None, out: Path, limit_images: int | None, fine_tune: bool
) -> None:
    """Train a network and write its weights and its card to a folder.

    `mlp` and `cnn` learn from MNIST, `number` from rendered numbers of MNIST's digits.
    """
    from worker.training.number_trainer import train_number
    from worker.training.trainer import train_model

    try:
        if fine_tune and name != NUMBER:
            raise UsageError(f"--fine-tune is only for {NUMBER}")
        if name == NUMBER:
            card = train_number(seed, epochs, out, limit_images, fine_tune)
        else:
            card = train_model(name, seed, epochs, out, limit_images)
    except DigitqError as error:
        print(f"digitq: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, OutputError) else 2)
    print(
        f"{out / name}.safetensors is right on {card.test_accuracy:.2%} of the test images; "
        f"to use it, start workers with DIGITQ_WEIGHTS={out.absolute()}",
        file=sys.stderr,
    )


@commands.command(hidden=True)
def see() -> None:
    """Write what the network sees of the images on stdin, as `worker.seeing` has it."""
    from worker.seeing import see_images

    see_images(sys.stdin.buffer, sys.stdout.buffer)
