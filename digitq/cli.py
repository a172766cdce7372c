"""The command line: `digitq --help`. Data goes to stdout, everything for people to stderr."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click
from click.shell_completion import shell_complete

from digitq.commands.bench import bench
from digitq.commands.classify import classify, demo, evaluate
from digitq.commands.doctor import doctor
from digitq.commands.flower import flower
from digitq.commands.jobs import cancel, collect, jobs, status, submit
from digitq.commands.services import inspect, train, up, worker
from digitq.options import (
    BROKEN,
    INTERRUPTED,
    USAGE,
)
from digitq.terminal import echo_err
from protocol.errors import (
    DigitqError,
    UsageError,
)
from protocol.host.process import make_stderr_unfailing

SECTIONS = {
    "Classify": ("demo", "classify", "inspect", "evaluate"),
    "Hand jobs over": ("submit", "status", "jobs", "collect", "cancel"),
    "Run and watch": ("up", "worker", "flower", "doctor"),
    "Make and measure": ("train", "bench"),
}
COMPLETE = "_DIGITQ_COMPLETE"  # set by a shell that asks for completions


class Sections(click.Group):
    """A group whose help has the commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        limit = formatter.width - 12
        for title, names in SECTIONS.items():
            commands = [self.commands[name] for name in names]
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{one.name:8}", one.get_short_help_str(limit)) for one in commands]
                )


@click.group(
    cls=Sections,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="digitq", message="digitq %(version)s")
def digitq() -> None:
    """Classify handwritten digits in bulk over a queue.

    Without a broker, `classify` and `evaluate` start a private Redis and workers for the length of
    the run; `demo` always does. `submit` and its kin need a running Redis: `digitq up` starts one.
    """


for command in (
    *(classify, demo, evaluate, submit, status, jobs, collect, cancel),
    *(worker, flower, up, doctor, bench, train, inspect),
):
    digitq.add_command(command)


def _prepare_process() -> None:
    """Signals end it in order, what can't be said goes nowhere, and a terminal that has no UTF-8
    shows what it can."""
    make_stderr_unfailing()
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    for stream in filter(None, (sys.stdout, sys.stderr)):  # of no UTF-8, perhaps
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _give_up_stdout() -> None:
    """What it could not take is not tried again as Python ends: the status would be 120."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] = ()) -> NoReturn:
    """Run a command and exit; the errors of digitq become one line and an exit status."""
    _prepare_process()
    try:
        if instruction := os.environ.get(COMPLETE):
            sys.exit(shell_complete(digitq, {}, "digitq", COMPLETE, instruction))
        with digitq.make_context("digitq", list(arguments or sys.argv[1:])) as context:
            digitq.invoke(context)
        sys.exit(0)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        echo_err("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        echo_err(f"digitq: {error}")
        sys.exit(BROKEN)
    except DigitqError as error:
        echo_err(f"digitq: {error}")
        sys.exit(USAGE if isinstance(error, UsageError) else BROKEN)
    except Exception:  # a fault of digitq's own; Python's status would say that all is written
        traceback.print_exc()
        sys.exit(BROKEN)
    finally:
        _give_up_stdout()
