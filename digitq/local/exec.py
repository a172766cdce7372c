"""Commands that this process becomes: Celery's, and the worker's."""

import os
import sys
from typing import NoReturn

import click

from protocol.settings import settings

# Where the current folder isn't on the path, Celery puts it first: what lies there would be run
CELERY = (
    "import os, sys; sys.path.append(os.getcwd()); sys.argv[0] = 'celery'; "
    "from celery.__main__ import main; sys.exit(main())"
)
WITH_OTHERS = {  # click would take the h in -Pthreads for -h
    "ignore_unknown_options": True,
    "help_option_names": ["--help"],
}


class PassThrough(click.Command):
    """A command that takes whatever follows its name as it is, `--` and `-h` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--", *args])


def exec_module(broker: str | None, module: str, *options: str) -> NoReturn:
    """Replace this process by `python -m module`, which would tell of an unusable setting or URL
    of the broker in a traceback: here it is a `UsageError`."""
    default = settings().broker_url  # raises for any wrong setting
    if url := broker or default:
        from protocol.broker.connection import connect

        connect(url)
        os.environ["DIGITQ_BROKER_URL"] = url
    how = ["-c", CELERY] if module == "celery" else ["-m", module]
    os.execv(sys.executable, [sys.executable, "-P", *how, *options])
