"""The worker's own commands. Modules that import slowly are imported when these run."""

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import click

from digitq.protocol.errors import DigitqError, OutputError, UsageError
from digitq.protocol.settings import NUMBER
from digitq.protocol.text import in_one_line


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Commands that `digitq inspect`, `train`, `form` and `report` run."""


def tell(error: DigitqError) -> int:
    """Print an error on stderr; gives the exit status."""
    print(f"digitq: {in_one_line(str(error))}", file=sys.stderr)
    return 3 if isinstance(error, OutputError) else 2


@commands.command()
@click.argument("task", type=json.loads)
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
def inspect(task: dict[str, Any], images: tuple[Path, ...]) -> None:
    """Show how each image came to its answer.

    The task, in JSON, has the picture's name, or none, as `out`; the `model`; and as `known` the
    descriptor of a file with what is known of numbers, or the form.
    """
    from digitq.protocol.asked.reading import decode_known
    from digitq.worker.show.inspection import inspect as inspect_one

    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    out, model = task["out"] and Path(task["out"]), task["model"]
    with open(task["known"], "rb", closefd=False) as file:
        known = decode_known(file.read())
    status = 0
    for image in images:
        try:
            status = max(status, inspect_one(image, out, model, known))
            sys.stdout.flush()
        except DigitqError as error:
            status = max(status, tell(error))
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
    sys.exit(status)


@commands.command()
@click.argument("task", type=json.loads)
def train(task: dict[str, Any]) -> None:
    """Go on training a network with a user's images; write its weights and its card to a folder.

    The task, in JSON, has the options of `digitq train`. `images` is the descriptor of a file with
    the images in chunks; `known` is that of one with what is known of numbers, or the form; and
    `use` has the options with which the network is to be used. If it `tells`, stdout has how much
    is done, and why nothing was gained, in JSON. The network must be one of `weights`, as results
    name them, if the task has any.
    """
    from digitq.protocol.asked.form import Form
    from digitq.protocol.asked.known import Known
    from digitq.protocol.asked.reading import decode_known
    from digitq.protocol.chunk import read_chunks
    from digitq.worker.learning.learner import Course
    from digitq.worker.learning.own import advise, check_writable, write_if_better
    from digitq.worker.learning.own_digits import train_own_digits
    from digitq.worker.learning.own_numbers import train_own_numbers
    from digitq.worker.learning.surest import TooFewError
    from digitq.worker.models.lent import describe_weights
    from digitq.worker.models.second_reader import use_second_reader

    name, out, seed = task["name"], Path(task["out"]), task["seed"]
    course = Course(seed, task["epochs"], task.get("threads"))
    if task.get("tells"):
        course = course._replace(tell=lambda share: print(f"{share:.4f}", flush=True))
    try:
        check_writable(out, name)
        known: Known | Form = Known()
        if name == NUMBER:
            with open(task["known"], "rb") as known_file:
                known = decode_known(known_file.read())
        with open(task["images"], "rb") as file, use_second_reader(known.second_reader):
            chunks = read_chunks(file)
            if (used := task.get("weights")) and (own := describe_weights(name)) not in used:
                raise UsageError(
                    f"the workers have read with {', '.join(used)}, and {own} would learn: "
                    "name their weights with --weights, or DIGITQ_WEIGHTS"
                )
            if name == NUMBER:
                trained = train_own_numbers(chunks, known, course)
            else:
                trained = train_own_digits(name, chunks, course, task["mnist"])
            command = f"{trained.before.command}; {task['command']}"
            why = write_if_better(trained, out, seed=seed, command=command)
        advice = advise(trained)
    except TooFewError as error:
        why, advice = str(error), ""
    except DigitqError as error:
        sys.exit(tell(error))
    if why:
        if task.get("tells"):
            print(json.dumps(why))
        print(f"{why}, so nothing is written{advice}", file=sys.stderr)
        sys.exit(1)
    print(
        f"to use {out / name}.safetensors: digitq classify … {task['use']} --weights "
        f"{shlex.quote(str(out))}",
        file=sys.stderr,
    )


@commands.command()
@click.argument("task", type=json.loads)
def form(task: dict[str, Any]) -> None:
    """Propose a form, draw one, or read a page again: the task, in JSON, has what these functions
    take."""
    given = {name: one for name, one in task.items() if one is not None}
    given |= {name: Path(one) for name, one in given.items() if isinstance(one, str)}
    try:
        if "blank" in given:
            from digitq.worker.sight.forms.new_form import write_proposal

            write_proposal(**given)
        elif "corners" in given:
            from digitq.worker.show.inspection import read_placed

            print(json.dumps(read_placed(**given)))
        else:
            from digitq.worker.show.overlay import show_form

            sys.exit(show_form(**given))
    except DigitqError as error:
        sys.exit(tell(error))


@commands.command(hidden=True)
@click.argument("task", type=json.loads)
def rows(task: list[Any]) -> None:
    """Print what `count_rows` gives; the task, in JSON, has its arguments."""
    from digitq.worker.sight.forms.proposal import count_rows

    name, blank, box, columns = task
    print(count_rows(name, Path(blank), box, columns))


@commands.command(hidden=True)
@click.argument("path", type=click.Path(path_type=Path))
def ruled(path: Path) -> None:
    """Print in JSON what is on a blank: `list_proposed`, or with its form `list_places`."""
    from digitq.worker.show.overlay import list_places
    from digitq.worker.sight.forms.new_form import list_accepted

    try:
        print(json.dumps(list_places(path) if path.suffix == ".toml" else list_accepted(path)))
    except DigitqError as error:
        sys.exit(tell(error))


@commands.command(hidden=True)
def show() -> None:
    """Write what is seen of the images on stdin, as `show_images` has it."""
    from digitq.worker.show.surroundings import show_images

    show_images(sys.stdin.buffer, sys.stdout.buffer)
