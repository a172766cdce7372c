"""`inspect` and `train`: their options. What takes a second to import waits until they run."""

import os
import signal
import sys
from pathlib import Path

import click

from protocol.errors import DigitqError, OutputError, UsageError
from protocol.settings import INSPECT_SUFFIX, MODELS, settings
from protocol.text import in_one_line


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Behind the `digitq` commands of these names."""


@commands.command()
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE..."
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"the picture of one IMAGE, a .png [its name with {INSPECT_SUFFIX}, in this folder]",
)
@click.option("--model", type=click.Choice(MODELS), help="network to ask [DIGITQ_MODEL]")
def inspect(images: tuple[Path, ...], out: Path | None, model: str | None) -> None:
    """Show how each IMAGE came to its answer: the steps to the 28×28 that the network sees, and the
    ten probabilities. Exit status: 0, 1 if an image can't be read, 2 bad usage, 3 if a picture
    or stdout can't be written."""
    from worker.inspection import inspect_image

    if not sys.stdout:  # `>&-`
        print("digitq: stdout is closed", file=sys.stderr)
        sys.exit(3)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    status = 0
    for image in images:
        try:
            if out and len(images) > 1:
                raise UsageError("--out names the picture of one IMAGE")
            status = max(status, inspect_image(image, out, model or settings().model))
            sys.stdout.flush()
        except DigitqError as error:
            print(f"digitq: {in_one_line(str(error))}", file=sys.stderr)
            status = max(status, 3 if isinstance(error, OutputError) else 2)
        except OSError as error:  # of stdout
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                sys.exit(128 + signal.SIGPIPE)
            print(f"digitq: {error}", file=sys.stderr)
            sys.exit(3)
    sys.exit(status)


@commands.command()
@click.argument("name", type=click.Choice([name for name in MODELS if name != "random"]))
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="the same seed, the same weights",
)
@click.option("--epochs", type=click.IntRange(1), help="fewer for a trial [as its recipe has it]")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="folder for NAME.safetensors and NAME.json",
)
@click.option("--limit-images", type=click.IntRange(60), help="train on the first images only")
def train(name: str, seed: int, epochs: int | None, out: Path, limit_images: int | None) -> None:
    """Train the network NAME on MNIST and write its weights and its card to a folder."""
    from worker.training.trainer import train_model

    try:
        card = train_model(name, seed, epochs, out, limit_images)
    except DigitqError as error:
        print(f"digitq: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, OutputError) else 2)
    print(
        f"{out / name}.safetensors: right on {card.test_accuracy:.2%} of the test images; "
        f"workers with DIGITQ_WEIGHTS={out.absolute()} use it",
        file=sys.stderr,
    )
