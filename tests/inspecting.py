"""Runs `digitq inspect` in this process."""

from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

import click
from click.testing import CliRunner, Result

from digitq.cli import main
from worker.commands import commands


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def digitq(arguments: tuple[str, ...]) -> None:
    main(arguments)


def inspect(path: Path | str, *options: str) -> Result:
    """`digitq inspect`, with the worker's part of it in this process."""

    def run_worker(broker: None, module: str, *arguments: str) -> NoReturn:
        raise SystemExit(commands.main(arguments, "digitq"))

    with patch("digitq.commands.run.exec_module", run_worker):
        return CliRunner().invoke(digitq, ["inspect", str(path), *options])
