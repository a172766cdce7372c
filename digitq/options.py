"""Options and arguments that several commands share."""

from collections.abc import Callable
from typing import Any

import click

from protocol.host.cores import usable_cores
from protocol.settings import DEFAULT_BROKER, MODELS
from protocol.text import plural

FAILED_ROWS, USAGE, BROKEN, INTERRUPTED = 1, 2, 3, 130
SOURCES_HELP = (
    "A SOURCE is mnist:test, mnist:train, a folder, an image, a .zip, .tar (.gz, .bz2, .xz), "
    ".parquet, .csv, .npy or idx3-ubyte file, "
    "or - for paths on stdin."
)


MAX_WORKERS_A_CORE = 8

BROKER = "Redis to use [DIGITQ_BROKER_URL, else {}]"
broker_option = click.option("--broker", metavar="URL", help=BROKER.format(DEFAULT_BROKER))
private_broker_option = click.option("--broker", metavar="URL", help=BROKER.format("a private one"))
model_option = click.option(
    "--model", type=click.Choice(MODELS), help="network to classify with [DIGITQ_MODEL]"
)


def check_workers(_: click.Context, __: click.Parameter, workers: int | None) -> int | None:
    """As many as `MAX_WORKERS_A_CORE` allows: more only take memory."""
    if workers and workers > MAX_WORKERS_A_CORE * (cores := usable_cores()):
        raise click.BadParameter(
            f"{workers:,} for {plural(cores, 'core')}: at most {MAX_WORKERS_A_CORE} a core"
        )
    return workers


def workers_option(default: str = "as the work needs") -> Callable[[Any], Any]:
    """`--workers`; the default in words."""
    return click.option(
        "--workers",
        type=click.IntRange(1),
        metavar="N",
        callback=check_workers,
        help=f"private workers to start, at most {MAX_WORKERS_A_CORE} a core [{default}]",
    )


limit_option = click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="take only the first N images"
)
truth_option = click.option(
    "--truth", type=click.Choice(["parent"]), help="right answers: `parent` is the folder's name"
)
out_option = click.option(
    "-o",
    "--out",
    metavar="OUT",
    type=click.Path(),
    help=".csv, .jsonl or .parquet; - is CSV on stdout [-; on a terminal, lines to read]",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="replace OUT; begin a broken run from its start"
)
json_option = click.option("--json", "as_json", is_flag=True, help="for scripts")
sources_argument = click.argument(
    "sources", nargs=-1, required=True, metavar="SOURCE...", type=click.Path(readable=False)
)
