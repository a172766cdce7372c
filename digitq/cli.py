"""The command line, `digitq`. Data goes to stdout, and all messages for people go to stderr."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click
from click.shell_completion import shell_complete

from digitq.commands.classify import classify, demo
from digitq.commands.compare import compare
from digitq.commands.evaluate import evaluate
from digitq.commands.forms import form
from digitq.commands.jobs import cancel, collect, jobs, status, submit
from digitq.commands.reports import correct, report, wide
from digitq.commands.review import review
from digitq.commands.run import doctor, flower, inspect, metrics, up, worker
from digitq.commands.train import train
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.host.process import make_stderr_unfailing
from digitq.terminal import ExitStatus, echo_err

SECTIONS = {
    "Classify": (demo, classify, inspect, evaluate),
    "Make the form of pages": (form,),
    "Look at results and correct them": (report, review, compare, correct, wide),
    "Submit jobs and collect them later": (submit, status, jobs, collect, cancel),
    "Run and watch": (up, worker, flower, metrics, doctor),
    "Train": (train,),
}
COMPLETE = "_DIGITQ_COMPLETE"  # the variable by which a shell asks for completions


class Sections(click.Group):
    """A group whose help lists the commands in sections."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        limit = formatter.width - 12
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{one.name:8}", one.get_short_help_str(limit)) for one in commands]
                )


@click.group(
    cls=Sections,
    commands=[command for commands in SECTIONS.values() for command in commands],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="digitq", message="digitq %(version)s")
def digitq() -> None:
    """Read handwritten digits, whole numbers and pages with a form, in bulk over a queue.

    \b
    digitq classify photos -o digits.csv
    digitq classify fields --read number -o numbers.csv
    digitq classify scans.pdf --form form.toml -o marks.csv --wide

    `classify` and `evaluate` start a private Redis and workers for the run, unless you name a
    broker; `demo` always does. `submit`, `status`, `jobs`, `collect` and `cancel` need a running
    Redis, which `digitq up` can start.

    `digitq COMMAND --help` explains a command. README.md and docs/ in the digitq folder have the
    rest, such as docs/images.md, docs/forms.md and docs/run.md.
    """


def _prepare_process() -> None:
    """Let signals end the process cleanly, and never fail for what stderr or stdout can't show."""
    make_stderr_unfailing()
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    if isinstance(sys.stdout, io.TextIOWrapper):  # its encoding may not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] = (), command: click.Command = digitq) -> NoReturn:
    """Run a command and exit; an error of digitq becomes one line and an `ExitStatus`."""
    _prepare_process()
    try:
        if instruction := os.environ.get(COMPLETE):
            sys.exit(shell_complete(digitq, {}, "digitq", COMPLETE, instruction))
        with command.make_context(command.name, list(arguments or sys.argv[1:])) as context:
            command.invoke(context)
        sys.exit(0)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        echo_err("interrupted")
        sys.exit(ExitStatus.INTERRUPTED)
    except BrokenPipeError:
        sys.exit(128 + signal.SIGPIPE)
    except (OSError, DigitqError) as error:
        echo_err(f"digitq: {error}")
        sys.exit(ExitStatus.USAGE if isinstance(error, UsageError) else ExitStatus.FAILED)
    except Exception:  # a bug; Python's own status, 1, would mean that all rows are written
        traceback.print_exc()
        sys.exit(ExitStatus.FAILED)
    finally:
        try:
            if sys.stdout:
                sys.stdout.flush()
        except OSError:  # Python would try again as it exits, and exit with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
