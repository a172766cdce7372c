"""`worker`, `flower`, `up`, `train` and `inspect`: the commands that run other programs."""

import os
import socket
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from digitq.options import broker_option, workers_option
from digitq.terminal import echo_err, require
from protocol.errors import UsageError
from protocol.host.cores import usable_cores
from protocol.settings import settings
from protocol.text import plural

# Celery puts the current folder first on the path if it is missing there, and would run what lies
# in it. So it is put last.
CELERY = (
    "import os, sys; sys.path.append(os.getcwd()); sys.argv[0] = 'celery'; "
    "from celery.__main__ import main; sys.exit(main())"
)
WITH_OTHERS = {  # with `-h` as an option, click would find it in Celery's `-Pthreads`
    "ignore_unknown_options": True,
    "help_option_names": ["--help"],
}


class PassThrough(click.Command):
    """A command that passes on all of its arguments, even `--` and `-h`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--", *args])


passed_on_argument = click.argument(
    "options",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=lambda context, _, begun: [CompletionItem(begun, type="file")],
)


@click.command(context_settings=WITH_OTHERS)
@broker_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[CELERY OPTION]...")
def worker(broker: str | None, options: tuple[str, ...]) -> None:
    """Run a worker with one process per core or GPU.

    It accepts the options of `celery worker` too, such as `--concurrency 8` for the number of
    processes, `--hostname NAME` and `--loglevel WARNING`; `celery worker --help` lists them.
    """
    _show_help_if_asked(options)
    require("torch", "worker")
    exec_module(broker, "celery", "-A", "worker", "worker", "--loglevel", "INFO", *options)


@click.command(context_settings=WITH_OTHERS)
@broker_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[FLOWER OPTION]...")
def flower(broker: str | None, options: tuple[str, ...]) -> None:
    """Run Flower, the dashboard, at http://127.0.0.1:5555.

    It accepts Flower's own options too, such as `--port 5556`, `--address 0.0.0.0` for access from
    other hosts, `--url-prefix PATH` and `--persistent`; Flower's documentation lists them. The
    variable FLOWER_BASIC_AUTH=USER:PASSWORD sets a password.
    """
    from digitq.local.processes import flower_options

    _show_help_if_asked(options)
    require("flower", "flower")
    own = flower_options()
    exec_module(broker, "celery", "-A", "protocol", "flower", *own, *read_flower_options(options))


@click.command()
@workers_option("one per core")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    default=6379,
    show_default=True,
    help="port of Redis on 127.0.0.1",
)
def up(workers: int | None, port: int) -> None:
    """Run Redis, workers and Flower until Ctrl-C.

    This Redis keeps its data in memory only: all jobs are gone when it stops.
    """
    from digitq.local.processes import Local, is_free

    if not is_free(port):
        raise UsageError(f"port {port} is in use: choose another with --port")
    with Local(workers or usable_cores(), port=port, flower=True) as local:
        echo_err(f"starting Redis, {plural(local.workers, 'worker')} and Flower …")
        local.wait_until_ready()
        echo_err(f"Redis   {local.url}\nFlower  {local.flower_url}\nCtrl-C stops them")
        local.watch()
    echo_err("all stopped")


@click.command(cls=PassThrough)
@passed_on_argument
def train(options: tuple[str, ...]) -> None:
    """Train a network on MNIST."""
    require("torch", "worker")
    exec_module(None, "worker", "train", *options)


@click.command(cls=PassThrough)
@passed_on_argument
def inspect(options: tuple[str, ...]) -> None:
    """Show how an image came to its answer."""
    require("cv2", "worker")
    require("matplotlib", "plot")
    exec_module(None, "worker", "inspect", *options)


def exec_module(broker: str | None, module: str, *options: str) -> NoReturn:
    """Replace this process by `python -m module`.

    Raises `UsageError` for a wrong setting or broker URL, which would be a traceback there.
    """
    default = settings().broker_url  # reads and checks all settings
    if url := broker or default:
        from protocol.broker.connection import connect

        connect(url)
        os.environ["DIGITQ_BROKER_URL"] = url
    how = ["-c", CELERY] if module == "celery" else ["-m", module]
    os.execv(sys.executable, [sys.executable, "-P", *how, *options])


def read_flower_options(options: Sequence[str]) -> list[str]:
    """Flower's options in the only form that it reads, `--port=5556`.

    Raises `UsageError` for an unknown option, which Flower would ignore, for a value that it can't
    read, and for a port in use.
    """
    from flower.command import apply_env_options
    from tornado.options import Error
    from tornado.options import options as known

    from digitq.local.processes import is_free

    joined: list[str] = []
    for option in options:
        if joined and "=" not in joined[-1] and not option.startswith("-"):
            joined[-1] += f"={option}"
        else:
            joined.append(option)
    for name in (option.partition("=")[0] for option in joined):
        if not name.startswith("-") or name.lstrip("-") not in known:
            similar = get_close_matches(name.lstrip("-"), map(str, known), 1)
            hint = f"; is it --{similar[0]}?" if similar else ""
            raise UsageError(f"Flower has no option {name}{hint}")
    try:
        apply_env_options()
        known.parse_command_line(["flower", *joined], final=False)
        _check_flower_files(known, joined)
        elsewhere = known.unix_socket or known.address or any("conf=" in one for one in joined)
        if not elsewhere and not is_free(known.port):
            raise UsageError(f"port {known.port} is in use: choose another with --port")
    except (Error, KeyError, ValueError, OverflowError) as error:  # the last for port 70000
        raise UsageError(f"Flower's options: {error}") from None
    return joined


def _check_flower_files(known: Any, options: Sequence[str]) -> None:
    """Raises `UsageError` for a file or an address that Flower would answer with a traceback."""
    conf = next((option.partition("=")[2] for option in options if "conf=" in option), None)
    if conf and not os.path.isfile(conf):
        raise UsageError(f"--conf: no such file: {conf}")
    if known.persistent and not os.access(os.path.dirname(known.db) or ".", os.W_OK):
        raise UsageError(f"--db {known.db}: can't write to its folder")
    if known.address and not known.unix_socket:
        try:
            socket.getaddrinfo(known.address, None)
        except OSError:
            raise UsageError(f"--address {known.address}: no such address") from None


def _show_help_if_asked(options: Sequence[str]) -> None:
    """Do for `-h` alone what click does for `--help`."""
    if "-h" in options:
        context = click.get_current_context()
        click.echo(context.get_help())
        context.exit()
