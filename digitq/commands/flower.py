"""`flower`, and the check of Flower's own options."""

import os
import socket
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import click

from digitq.local.exec import WITH_OTHERS, exec_module
from digitq.options import broker_option
from digitq.terminal import require
from protocol.errors import UsageError


@click.command(context_settings=WITH_OTHERS)
@broker_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[FLOWER OPTION]...")
def flower(broker: str | None, options: tuple[str, ...]) -> None:
    """Run Flower, the dashboard, at http://127.0.0.1:5555.

    It takes Flower's own options as well: `--port 5556`, `--address 0.0.0.0` for other hosts,
    `--url-prefix PATH`, `--persistent`; its documentation has all. FLOWER_BASIC_AUTH=USER:PASSWORD
    sets a password.
    """
    from digitq.local.processes import flower_options

    show_help_for(options)
    require("flower", "flower")
    exec_module(
        broker, "celery", "-A", "protocol", "flower", *flower_options(), *check_flower(options)
    )


def check_flower(options: Sequence[str]) -> list[str]:
    """Flower's options in the form that it knows, `--port=5556`; it would pass over others.

    Raises `UsageError` for one that it hasn't, a value that it can't read or use, a port in use.
    """
    from flower.command import apply_env_options
    from tornado.options import Error
    from tornado.options import options as known

    from digitq.local.processes import is_free

    checked: list[str] = []
    for option in options:
        if checked and "=" not in checked[-1] and not option.startswith("-"):
            checked[-1] += f"={option}"
        else:
            checked.append(option)
    for option in checked:
        name = option.partition("=")[0]
        if not name.startswith("-") or name.lstrip("-") not in known:
            like = get_close_matches(name.lstrip("-"), [str(one) for one in known])
            raise UsageError(
                f"Flower has no option {name}" + (f"; is it --{like[0]}?" if like else "")
            )
    try:
        apply_env_options()
        known.parse_command_line(["flower", *checked], final=False)
    except (Error, KeyError, ValueError) as error:
        raise UsageError(f"Flower's options: {error}") from None
    if not 0 <= known.port < 1 << 16:
        raise UsageError(f"there is no port {known.port}")
    _check_values(known, checked)
    elsewhere = known.unix_socket or known.address or any("conf=" in option for option in checked)
    if known.port and not elsewhere and not is_free(known.port):
        raise UsageError(f"port {known.port} is in use: --port takes another")
    return checked


def _check_values(known: Any, options: Sequence[str]) -> None:
    """Raises `UsageError` for a file or an address that there is none of."""
    conf = next((option.partition("=")[2] for option in options if "conf=" in option), None)
    if conf and not os.path.isfile(conf):
        raise UsageError(f"--conf: no such file: {conf}")
    folder = os.path.dirname(known.db) or "."
    if known.persistent and not os.access(folder, os.W_OK):
        raise UsageError(f"--db {known.db}: can't write to {folder}")
    if known.address and not known.unix_socket:
        try:
            socket.getaddrinfo(known.address, None)
        except OSError:
            raise UsageError(f"--address {known.address}: there is none of that name") from None


def show_help_for(options: Sequence[str]) -> None:
    """As `--help` does, for `-h` alone."""
    if "-h" in options:
        context = click.get_current_context()
        click.echo(context.get_help())
        context.exit()
