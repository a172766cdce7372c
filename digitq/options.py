"""Options and arguments that several commands share: `from digitq import options`."""

from collections.abc import Callable
from typing import Any

import click

from protocol.host.cores import usable_cores
from protocol.settings import DEFAULT_BROKER, MODELS

MAX_WORKERS_PER_CORE = 8  # more private workers would only take memory
SOURCES_HELP = (
    "A SOURCE is mnist:test, mnist:train, a folder, an image, a .zip, .tar (.gz, .bz2, .xz), "
    ".parquet, .csv, .npy or idx3-ubyte file, or - to read paths from stdin."
)
BROKER_HELP = "Redis to use [DIGITQ_BROKER_URL, else {}]"

broker = click.option("--broker", metavar="URL", help=BROKER_HELP.format(DEFAULT_BROKER))
private_broker = click.option("--broker", metavar="URL", help=BROKER_HELP.format("a private one"))
model = click.option(
    "--model", type=click.Choice(MODELS), help="network that classifies [DIGITQ_MODEL, else mlp]"
)
truth = click.option(
    "--truth",
    type=click.Choice(["parent"]),
    help="right answers to compare with: `parent` takes the name of each image's folder",
)
out = click.option(
    "-o",
    "--out",
    metavar="OUT",
    type=click.Path(),
    help="file to write, .csv, .jsonl or .parquet; - is CSV on stdout [CSV on stdout, or readable "
    "lines on a terminal]",
)
overwrite = click.option(
    "--overwrite", is_flag=True, help="replace OUT, and start an interrupted run from its beginning"
)
json = click.option("--json", "as_json", is_flag=True, help="print JSON, for scripts")
job = click.argument("job_id", metavar="JOB")
sources = click.argument(
    "sources", nargs=-1, required=True, metavar="SOURCE...", type=click.Path(readable=False)
)


def number(
    name: str, help: str, default: int | None = None, limits: click.IntRange | None = None
) -> Callable[[Any], Any]:
    """An option that is a whole number, by default at least 1."""
    shown: Any = {"metavar": "N", "default": default, "show_default": True, "help": help}
    return click.option(name, type=limits or click.IntRange(1), **shown)


limit = number("--limit", "take only the first N images")


def workers(default: str = "as many as the work needs") -> Callable[[Any], Any]:
    """`--workers`; its help states the default in words."""
    limits = click.IntRange(1, MAX_WORKERS_PER_CORE * usable_cores())
    return number("--workers", f"private workers to start [{default}]", limits=limits)
