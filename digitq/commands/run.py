"""`worker`, `flower`, `metrics`, `up`, `doctor`, and `inspect`, which runs the worker's own."""

import json
import logging
import os
import shlex
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from digitq import options
from digitq.protocol.broker.address import read_address
from digitq.protocol.errors import OutputError, UsageError
from digitq.protocol.host.cores import usable_cores
from digitq.protocol.logs import JsonFormatter, start_log
from digitq.protocol.settings import DEFAULT_BROKER, INSPECT_SUFFIX, read_settings, settings
from digitq.protocol.text import plural
from digitq.terminal import echo_err, require
from digitq.worker_check import CHECKS, check_worker

if TYPE_CHECKING:
    from digitq.protocol.asked.reading import Reading
    from digitq.protocol.prediction import Answer

# Celery puts the current folder first on the path if it is missing there, and would import the
# user's files from it. So it is put last.
CELERY = (
    "import os, sys; sys.path.append(os.getcwd()); sys.argv[0] = 'celery'; "
    "from celery.__main__ import main; "
    "from digitq.protocol.host.process import run_without_waiting; "
    "run_without_waiting(main)"
)


class WithOthers(click.Command):
    """A command that accepts another program's options too."""

    ignore_unknown_options = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.help_option_names = ["--help"]  # click would find a `-h` in Celery's `-Pthreads`
        return super().parse_args(ctx, ["--help" if part == "-h" else part for part in args])


# A shell completes it to files, but it may be anything
others_argument = partial(click.argument, "passed_on", nargs=-1, type=click.Path(readable=False))


@click.command(cls=WithOthers)
@options.broker
@options.weights
@options.log_format
@click.option(
    "--check",
    type=click.Choice(CHECKS),
    help="do not start a worker; say whether the one on this host (that of --hostname, if given) "
    "is live, or ready for work; the exit status is 1 if it is not",
)
@others_argument(metavar="[CELERY OPTION]...")
def worker(
    broker: str | None, log_format: str | None, check: str | None, passed_on: tuple[str, ...]
) -> None:
    """Run a worker with one process per core or GPU.

    It accepts the options of `celery worker` too, such as `--concurrency 8` for the number of
    processes, `--hostname NAME` and `--loglevel WARNING`; `celery worker --help` lists them.
    """
    if check:
        sys.exit(check_worker(["--check", check, *passed_on]))
    require("worker")
    choose_log_format(log_format)
    exec_module(broker, "celery", "-A", "digitq.worker", "worker", "--loglevel", "INFO", *passed_on)


@click.command(cls=WithOthers)
@options.broker
@others_argument(metavar="[FLOWER OPTION]...")
def flower(broker: str | None, passed_on: tuple[str, ...]) -> None:
    """Run Flower, the dashboard, at http://127.0.0.1:5555.

    It accepts Flower's own options too, such as `--port 5556`, `--address 0.0.0.0` for access from
    other hosts, `--url-prefix PATH` and `--persistent`; Flower's documentation lists them. The
    variable FLOWER_BASIC_AUTH=USER:PASSWORD sets a password.
    """
    from digitq.private.processes import FLOWER_OPTIONS
    from digitq.protocol.broker.connection import refuse_unusable

    require("flower")
    own = read_flower_options(passed_on)
    refuse_unusable(broker or settings().broker_url or DEFAULT_BROKER)
    exec_module(broker, "celery", "-A", "digitq.protocol.app", "flower", *FLOWER_OPTIONS, *own)


@click.command()
@options.broker
@options.number("--port", "port to listen on", 9808, click.IntRange(1, 65535))
@click.option(
    "--address",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="address to listen on; 0.0.0.0 lets other hosts read the metrics, without a password",
)
@options.log_format
def metrics(broker: str | None, port: int, address: str, log_format: str | None) -> None:
    """Serve metrics for Prometheus.

    They are at http://127.0.0.1:9808/metrics. One such endpoint is enough for all workers of a
    Redis. It answers even if Redis is lost, and says so.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    from digitq.operate.metrics import StateCollector
    from digitq.protocol.broker.connection import connect, refuse_unusable
    from digitq.protocol.ledger import Ledger
    from digitq.protocol.overview import MAX_READ_SECONDS

    start_log(choose_log_format(log_format))
    url = broker or settings().broker_url or DEFAULT_BROKER
    refuse_unusable(url)
    registry = CollectorRegistry(support_collectors_without_names=True)
    registry.register(StateCollector(Ledger(connect(url, timeout_seconds=MAX_READ_SECONDS))))
    try:
        start_http_server(port, address, registry)
    except OSError as error:
        where = f"can't listen on {address}, port {port}"
        how = "choose another with --port or --address"
        raise UsageError(f"{where}: {error.strerror}; {how}") from None
    logging.getLogger(__name__).info("metrics are at http://%s:%d/metrics", address, port)
    threading.Event().wait()  # the server is a thread; a signal ends this process


@click.command()
@options.workers("one per core")
@options.weights
@options.number("--port", "port of Redis on 127.0.0.1", 6379, click.IntRange(1, 65535))
@options.log_format
def up(workers: int | None, port: int, log_format: str | None) -> None:
    """Run Redis, workers and Flower until Ctrl-C.

    This Redis keeps its data in memory only: all jobs are gone when it stops. With --log-format,
    the workers' logs are shown.
    """
    from digitq.private.processes import Local, is_free

    if not is_free(port):
        raise UsageError(f"port {port} is in use: choose another with --port")
    shown = choose_log_format(log_format)
    echo = echo_json if shown == "json" else echo_err
    with Local(workers or usable_cores(), port, flower=True, show_logs=bool(shown)) as local:
        echo(f"starting Redis, {plural(local.workers, 'worker')} and Flower …")
        local.wait_until_ready()
        echo(f"Redis   {local.url}\nFlower  {local.flower_url}\nCtrl-C stops them")
        local.watch()
    echo("all stopped")


@click.command()
@options.broker
@click.option("--flower", metavar="URL", help="Flower to look at [http://localhost:5555]")
@options.json
def doctor(broker: str | None, flower: str | None, as_json: bool) -> None:
    """Find what could lose work or let someone in.

    It looks at Redis, the workers and Flower while they run, and prints one line per finding, with
    the remedy. Exit status: 0 if nothing was found, 1 if something was, 2 for bad usage, 3 if Redis
    can't be reached.
    """
    from digitq.operate.doctor import examine
    from digitq.operate.facts import gather_facts

    facts = gather_facts(broker, flower)
    findings = examine(facts)
    for finding in findings:
        click.echo(json.dumps(asdict(finding)) if as_json else finding)
    echo_err(f"{len(findings) or 'nothing'} found; {facts.describe()}")
    sys.exit(1 if findings else 0)


@click.command()
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE..."
)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False),
    help=f"the picture of one IMAGE, a .png [its name with {INSPECT_SUFFIX}, here]",
)
@options.reading
@options.weights
def inspect(images: tuple[Path, ...], out: str | None, reading: "Reading[Answer]") -> None:
    """Show how images came to their answers.

    Draws the steps to the 28×28 pixels that the network sees, and prints the ten probabilities. Of
    a whole number it draws a box around each digit, and prints what else the number may be. Of a
    page with a form it prints the number in each field.
    Exit status: 0, 1 if an image can't be read, 2 for bad usage, 3 if a picture or stdout can't be
    written.
    """
    from digitq.producer.sinks.encoders import ENCODERS

    require("worker")
    if results := [image for image in images if image.suffix.lower() in ENCODERS]:
        raise UsageError(
            f"{results[0]} is a table: `inspect` takes images; "
            f"`digitq report {shlex.quote(str(results[0]))}` shows results with their images"
        )
    reading.check_here()
    if out and len(images) > 1:
        raise UsageError("--out takes one IMAGE only")
    if not sys.stdout:  # `>&-`: the file below would take its place
        raise OutputError("stdout is closed")
    with TemporaryFile() as file:  # an argument has no room for a million allowed numbers
        file.write(reading.known)
        task = {"out": out, "model": reading.model, "known": hand_over(file)}
        exec_module(None, "digitq.worker", "inspect", json.dumps(task), "--", *map(str, images))


def hand_over(file: IO[bytes]) -> int:
    """Let the process that follows read a file from its start; gives the descriptor."""
    file.seek(0)
    os.set_inheritable(file.fileno(), True)
    return file.fileno()


def choose_log_format(option: str | None) -> str | None:
    """Hand the option on to workers, in the variable; gives what the variable is then."""
    if option:
        os.environ["DIGITQ_LOG_FORMAT"] = option
    return read_settings().log_format


def echo_json(text: str) -> None:
    """Print lines for people on stderr as a worker's log in JSON has them."""
    for line in text.split("\n"):
        record = logging.makeLogRecord({"levelname": "INFO", "msg": line})
        echo_err(JsonFormatter().format(record))


def exec_module(broker: str | None, module: str, *arguments: str) -> NoReturn:
    """Replace this process by `python -m module`. Raises `UsageError` if a setting is wrong."""
    default = settings().broker_url  # reads and checks all settings
    if module == "celery" and (url := broker or default):
        read_address(url)
        os.environ["DIGITQ_BROKER_URL"] = url
    how = ["-c", CELERY] if module == "celery" else ["-m", module]
    os.execv(sys.executable, [sys.executable, "-P", *how, *arguments])


def read_flower_options(arguments: Sequence[str]) -> list[str]:
    """Flower's options in the only form that it reads, `--port=5556`.

    Raises `UsageError` for an unknown option, which Flower would ignore, for a value that it can't
    read, and for a port in use.
    """
    from flower.command import apply_env_options
    from tornado.options import Error
    from tornado.options import options as known

    from digitq.private.processes import is_free

    joined: list[str] = []
    for option in arguments:
        if joined and "=" not in joined[-1] and not option.startswith("-"):
            joined[-1] += f"={option}"
        else:
            joined.append(option)
    for name in (option.partition("=")[0] for option in joined):
        if not name.startswith("-") or name.lstrip("-") not in known:
            similar = get_close_matches(name.lstrip("-"), map(str, known), 1)
            hint = f"; is it --{similar[0]}?" if similar else ""
            raise UsageError(f"Flower has no option {name}{hint}")
    has_conf = any("conf=" in option for option in joined)
    try:
        apply_env_options()
        known.parse_command_line(["flower", *joined], final=False)
        _check_flower_files(known, has_conf)
        if not 0 <= known.port < 1 << 16:
            raise UsageError(f"there is no port {known.port}")
        elsewhere = known.unix_socket or known.address or has_conf
        if not elsewhere and not is_free(known.port):
            raise UsageError(f"port {known.port} is in use: choose another with --port")
    except (Error, KeyError, ValueError) as error:
        raise UsageError(f"Flower's options: {error}") from None
    return joined


def _check_flower_files(known: Any, has_conf: bool) -> None:
    """Raises `UsageError` for a file or an address that Flower would answer with a traceback."""
    if has_conf and not os.path.isfile(known.conf):
        raise UsageError(f"--conf: no such file: {known.conf}")
    if known.persistent and not os.access(os.path.dirname(known.db) or ".", os.W_OK):
        raise UsageError(f"--db {known.db}: can't write to its folder")
    if known.address and not known.unix_socket:
        try:
            socket.getaddrinfo(known.address, None)
        except OSError:
            raise UsageError(f"--address {known.address}: no such address") from None
