"""Runs commands of digitq in this process, and the worker's part of them too."""

from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

import click
from click.testing import CliRunner, Result

from digitq.cli import main
from digitq.worker.subcommands import commands


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def digitq(arguments: tuple[str, ...]) -> None:
    main(arguments)


def run_here(*arguments: Path | str) -> Result:
    """A command that the worker completes. In processes of their own they import torch first."""

    def run_worker(broker: None, module: str, *arguments: str) -> NoReturn:
        raise SystemExit(commands.main(arguments, "digitq"))

    with (
        patch("digitq.commands.run.exec_module", run_worker),
        patch("digitq.commands.forms.exec_module", run_worker),
    ):
        return CliRunner().invoke(digitq, [*map(str, arguments)])


def inspect(path: Path | str, *options: str) -> Result:
    """`digitq inspect`."""
    return run_here("inspect", path, *options)
