"""`inspect`, which runs the worker's own."""

import click

from digitq.commands.run import PassThrough, exec_module, others_argument
from digitq.terminal import require


@click.command(cls=PassThrough)
@others_argument()
def inspect(passed_on: tuple[str, ...]) -> None:
    """Show how images came to their answers."""
    require("worker")
    require("plot")
    exec_module(None, "worker", "inspect", *passed_on)
