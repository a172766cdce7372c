"""The commands that run something or look at what runs: worker, up, doctor, bench and others."""

import os
import socket
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from producer.bench import BENCHMARKS
from producer.options import broker_option, json_option, require, say, workers_option
from protocol.errors import UsageError
from protocol.host.cores import usable_cores
from protocol.settings import settings
from protocol.text import plural

FOUND = 1
# Where the current folder isn't on the path, Celery puts it first: what lies there would be run
CELERY = (
    "import os, sys; sys.path.append(os.getcwd()); sys.argv[0] = 'celery'; "
    "from celery.__main__ import main; sys.exit(main())"
)
WITH_OTHERS = {  # click would take the h in -Pthreads for -h
    "ignore_unknown_options": True,
    "help_option_names": ["--help"],
}


class PassOn(click.Command):
    """A command that takes whatever follows its name as it is, `--` and `-h` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--", *args])


@click.command(context_settings=WITH_OTHERS)
@broker_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[CELERY OPTION]...")
def worker(broker: str | None, options: tuple[str, ...]) -> None:
    """Run a worker, a process for each core or GPU.

    It takes the options of `celery worker` as well: `--concurrency 8` for so many processes,
    `--hostname NAME`, `--loglevel WARNING`; `celery worker --help` lists them all.
    """
    show_help_for(options)
    require("torch", "worker")
    become(broker, "celery", "-A", "worker", "worker", "--loglevel", "INFO", *options)


@click.command(context_settings=WITH_OTHERS)
@broker_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[FLOWER OPTION]...")
def flower(broker: str | None, options: tuple[str, ...]) -> None:
    """Run Flower, the dashboard, at http://127.0.0.1:5555.

    It takes Flower's own options as well: `--port 5556`, `--address 0.0.0.0` for other hosts,
    `--url-prefix PATH`, `--persistent`; its documentation has all. FLOWER_BASIC_AUTH=USER:PASSWORD
    sets a password.
    """
    from producer.local import flower_options

    show_help_for(options)
    require("flower", "flower")
    become(broker, "celery", "-A", "protocol", "flower", *flower_options(), *check_flower(options))


def check_flower(options: Sequence[str]) -> list[str]:
    """Flower's options in the form that it knows, `--port=5556`; it would pass over others.

    Raises `UsageError` for one that it hasn't, a value that it can't read or use, a port in use.
    """
    from flower.command import apply_env_options
    from tornado.options import Error
    from tornado.options import options as known

    from producer.local import is_free

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


@click.command()
@workers_option("one for each core")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    default=6379,
    show_default=True,
    help="of Redis",
)
def up(workers: int | None, port: int) -> None:
    """Run Redis, workers and Flower until Ctrl-C. Redis keeps nothing afterwards."""
    from producer.local import Local, is_free

    if not is_free(port):
        raise UsageError(f"port {port} is in use: --port takes another")
    with Local(workers or usable_cores(), port=port, flower=True) as local:
        say(f"starting Redis, {plural(local.workers, 'worker')} and Flower …")
        local.wait_until_ready()
        say(f"Redis   {local.url}\nFlower  {local.flower_url}\nCtrl-C ends")
        local.watch()
    say("all stopped")


@click.command()
@broker_option
@click.option("--flower", metavar="URL", help="Flower to look at [http://localhost:5555]")
@json_option
def doctor(broker: str | None, flower: str | None, as_json: bool) -> None:
    """Find what could lose work or let someone in.

    Looks at Redis, the workers and Flower as they run; prints a line for each finding, with what
    helps. Exit status: 0 nothing found, 1 something found, 2 bad usage, 3 Redis can't be reached.
    """
    import json
    from dataclasses import asdict

    from producer.deployment import look_at
    from producer.doctor import examine

    deployment = look_at(broker, flower)
    findings = examine(deployment)
    for finding in findings:
        click.echo(json.dumps(asdict(finding)) if as_json else finding)
    say(f"{len(findings) or 'nothing'} found; {deployment.describe()}")
    sys.exit(FOUND if findings else 0)


@click.command(cls=PassOn)
@click.argument(
    "options",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[OPTION]...",
    shell_complete=lambda context, _, begun: [
        one for one in ("mlp", "cnn") if one.startswith(begun)
    ],
)
def train(options: tuple[str, ...]) -> None:
    """Train a network on MNIST."""
    require("torch", "worker")
    become(None, "worker", "train", *options)


@click.command(cls=PassOn)
@click.argument(
    "options",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="IMAGE... [OPTION]...",
    shell_complete=lambda context, _, begun: [CompletionItem(begun, type="file")],
)
def inspect(options: tuple[str, ...]) -> None:
    """Show how an image came to its answer."""
    require("cv2", "worker")
    become(None, "worker", "inspect", *options)


@click.command()
@click.option("--only", multiple=True, type=click.Choice(BENCHMARKS), help="may be repeated [all]")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    metavar="N",
    default=3,
    show_default=True,
    help="in each of which all take their turn",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    metavar="N",
    default=600_000,
    show_default=True,
    help="through the queue in a round; the slower contenders get their part of as many",
)
@json_option
def bench(only: tuple[str, ...], rounds: int, images: int, as_json: bool) -> None:
    """Measure digitq beside other ways to classify.

    All of it takes some minutes, `--only latency` less than one. On a busy machine the figures are
    of little worth.

    Two private workers classify the MNIST training images; the others get the same images and the
    same network, and as many threads or processes. They take turns, another one first in each
    round; a figure is the median of the rounds.

    \b
    torch       the network alone in one process: reads and writes nothing
    queue       arrays through the queue to a CSV, and to Parquet
    celery      plain Celery: a task for each image, JSON, a result backend
    dataloader  the tutorials' loop over datasets.MNIST
    folder      PNG files to a CSV, and torch's ImageFolder with a DataLoader
    latency     Client.classify, a call at a time, and plain Celery's delay().get()
    concurrent  64 threads that call Client.classify
    scale       the cnn with two workers, and with one
    """
    require("torch", "worker")
    import json
    from functools import partial

    from producer.bench import run_rounds, tabulate
    from producer.contenders import CONTENDERS, Bench, describe_machine

    say(describe_machine())
    with Bench(images) as shared:
        measures = [
            partial(measure, shared)
            for name in BENCHMARKS
            if name in (only or BENCHMARKS)
            for measure in CONTENDERS[name]
        ]
        rows = run_rounds(measures, rounds, say)
    click.echo(json.dumps(rows, indent=2) if as_json else tabulate(rows))


def become(broker: str | None, module: str, *options: str) -> NoReturn:
    """Replace this process by `python -m module`, which would tell of an unusable setting or URL
    of the broker in a traceback: here it is a `UsageError`."""
    default = settings().broker_url  # raises for any wrong setting
    if url := broker or default:
        from protocol.broker.connection import connect

        connect(url)
        os.environ["DIGITQ_BROKER_URL"] = url
    how = ["-c", CELERY] if module == "celery" else ["-m", module]
    os.execv(sys.executable, [sys.executable, "-P", *how, *options])


COMMANDS = (worker, flower, up, doctor, bench, train, inspect)
