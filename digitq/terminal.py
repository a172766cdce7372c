"""What a command tells a person, on stderr."""

from importlib.util import find_spec

import click

from protocol.errors import UsageError
from protocol.text import in_one_line


def require(module: str, extra: str) -> None:
    """Raises `UsageError` where a module of one of digitq's extras is not installed."""
    if find_spec(module) is None:
        raise UsageError(
            f"{module} is not installed: `pip install '.[{extra}]'`, in the folder digitq is in"
        )


def echo_err(text: str) -> None:
    """A line for people, or some: on stderr, whatever is in names that they tell of."""
    click.echo("\n".join(map(in_one_line, text.split("\n"))), err=True)
