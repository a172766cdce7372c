"""Options and arguments that several commands share: `from digitq import options`."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from digitq.protocol.broker.address import HIDDEN_URL
from digitq.protocol.errors import UsageError
from digitq.protocol.host.cores import usable_cores
from digitq.protocol.host.folders import check_folder
from digitq.protocol.settings import (
    DEFAULT_BROKER,
    LOG_FORMATS,
    MODELS,
    find_weights,
    use_weights,
)

TRUTH_SUFFIXES = (".csv", ".xlsx", ".parquet")
MAX_WORKERS_PER_CORE = 8  # more private workers would only take memory
SOURCES_HELP = (
    "A SOURCE is a folder, an image, a PDF or TIFF with its pages, a .zip, .tar (.gz, .bz2, .xz), "
    ".parquet, .csv, .npy or idx3-ubyte file, mnist:test, mnist:train, mnist:sample, or - to read "
    "paths from stdin. It may be in a bucket, s3://, gs:// or az://, or at https://."
)
BROKER_HELP = "Redis to use [DIGITQ_BROKER_URL, else {}]"


def broker_option(default: str) -> Callable[[Any], Any]:
    """`--broker`, whose URL is in the environment if it has a password, see `digitq.__main__`."""

    def find_url(context: click.Context, option: click.Parameter, url: str | None) -> str | None:
        return os.environ.pop(HIDDEN_URL, url)

    help = BROKER_HELP.format(default)
    return click.option("--broker", metavar="URL", help=help, callback=find_url)


broker, private_broker = broker_option(DEFAULT_BROKER), broker_option("a private one")
model = click.option(
    "--model", type=click.Choice(MODELS), help="network that classifies [DIGITQ_MODEL, else mlp]"
)
log_format = click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    help="words, or a JSON object, on each line of the log [DIGITQ_LOG_FORMAT]",
)


def check_truth(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """The value of `--truth`, if it is `parent`, or names a CSV, an Excel or a Parquet file."""
    from digitq.protocol.formats.csv_rows import find_column

    if value in (None, "parent") or find_column(value)[0].suffix.lower() in TRUTH_SUFFIXES:
        return value
    raise click.BadParameter(f"{value!r} is neither `parent` nor a .csv, .xlsx or .parquet file")


truth = click.option(
    "--truth",
    callback=check_truth,
    metavar="parent|FILE[:COLUMN]",
    help="right answers to compare with: `parent` takes the name of each image's folder; a .csv, "
    ".xlsx or .parquet has a column `id` or `path` and a column `truth`, `number` or `label`, or "
    "COLUMN",
)
out = click.option(
    "-o",
    "--out",
    metavar="OUT",
    type=click.Path(),
    help="file to write, .csv, .jsonl, .parquet or .xlsx, also in a bucket; - is CSV on stdout "
    "[CSV on stdout, or readable lines on a terminal]",
)
report = click.option(
    "--report",
    "page",
    metavar="FILE.html|FILE.xlsx",
    type=click.Path(path_type=Path, dir_okay=False),
    help="page to write of OUT, where you look at the answers and correct them; .xlsx has all rows "
    "with small pictures",
)
wide = click.option(
    "--wide",
    is_flag=True,
    help="also write OUT with `-wide` in its name: a row for each page, or for each row of a table",
)
key = click.option("--key", type=click.Path(path_type=Path), help="right answers of a form, a CSV")
adapt = click.option(
    "--adapt",
    "adapts",
    is_flag=True,
    help="read the images, let the network learn its own surest answers, and read them again",
)
overwrite = click.option(
    "--overwrite",
    is_flag=True,
    help="replace OUT and the page, and start an interrupted run from its beginning",
)


def weights(command: Callable[..., None]) -> Callable[..., None]:
    """`--weights`: the network travels with the job of a command that has one; for others this sets
    `DIGITQ_WEIGHTS`."""

    @click.option(
        "--weights",
        "own_weights",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="folder of `digitq train` with networks to use [DIGITQ_WEIGHTS, else digitq's own]",
    )
    @wraps(command)
    def run(own_weights: Path | None, **others: Any) -> None:
        from digitq.protocol.asked.own_network import find_own_network

        reading = others.get("reading")
        if own_weights and reading and "broker" in others:
            network = find_own_network(own_weights, reading.model, "--weights ")
            others["reading"] = reading.with_network(network)
        elif own_weights:
            model = reading.model if reading else others.get("name")  # `train` names a network
            use_weights(find_weights(own_weights, model, "--weights ", reading is not None))
        command(**others)

    return run


json = click.option("--json", "as_json", is_flag=True, help="print JSON, for scripts")
watch = click.option(
    "--watch",
    "watches",
    is_flag=True,
    help="show it anew each second, until Ctrl-C; once if stdout is no terminal",
)
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


def check_new(path: Path, overwrite: bool) -> None:
    """Raises `UsageError` if a file can't be written there."""
    check_folder(path)
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path} exists: --overwrite replaces it")


def served(command: Callable[..., None]) -> Callable[..., None]:
    """`--host` and `--port` of a page that is served."""
    host = click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        help="address of this machine at which the page is; 0.0.0.0 lets the network in, also "
        "phones, for which a QR code is printed",
    )
    port = click.option(
        "--port",
        metavar="N",
        type=click.IntRange(1, 65535),
        help="port of the page [always the same one for the same file]",
    )
    return host(port(command))


limit = number("--limit", "take only the first N images")


def workers(default: str = "as many as the work needs") -> Callable[[Any], Any]:
    """`--workers`; its help states the default in words."""
    limits = click.IntRange(1, MAX_WORKERS_PER_CORE * usable_cores())
    return number("--workers", f"private workers to start [{default}]", limits=limits)


def truth_file(truth: str | None) -> str | None:
    """The table that `--truth` names, if it names one."""
    return None if truth == "parent" else truth


def known(command: Callable[..., None]) -> Callable[..., None]:
    """`--length`, `--pattern`, `--allowed` and `--fill`: what is known of whole numbers."""

    @click.option(
        "--length", metavar="N", help="how many digits a whole number has, such as 9 or 3-6"
    )
    @click.option(
        "--pattern",
        metavar="REGEX",
        help="what a whole number looks like: a regular expression of digits and . , - + / : %, or "
        "integer, decimal, date or time",
    )
    @click.option(
        "--allowed",
        metavar="FILE[:COLUMN]",
        help="the whole numbers that there can be: one on each line, or a .csv's or .xlsx's column",
    )
    @click.option(
        "--fill",
        metavar="MARKS",
        help="marks that fill unused boxes, and are passed over: some of X, - and /, such as X-",
    )
    @wraps(command)
    def run(allowed: str | None, **others: Any) -> None:
        from digitq.protocol.asked.known import read_allowed

        command(allowed=None if allowed is None else read_allowed(allowed), **others)

    return run


def reading(command: Callable[..., None]) -> Callable[..., None]:
    """`--read`, `--model`, `--form`, `--risk` and what is known of whole numbers, as one argument,
    a `Reading`."""

    @click.option(
        "--read",
        type=click.Choice(["digit", "number"]),
        help="what each image shows: one digit, or a whole number  [default: digit]",
    )
    @model
    @known
    @click.option(
        "--form",
        metavar="FORM.toml",
        help="each image is a page with this form: the numbers in its fields are read",
    )
    @click.option(
        "--risk",
        metavar="SHARE",
        help="the largest share that may be wrong among the answers that are not marked, such as "
        "0.5%; a smaller share marks more",
    )
    @click.option(
        "--like",
        metavar="FINAL",
        help="results of images like these, which `digitq correct` wrote: the risk is measured by "
        "their sample, and not by digitq's own images",
    )
    @click.option(
        "--second-reader",
        is_flag=True,
        help="a network of another make reads each whole number, too: fewer are wrong, and fewer "
        "marked",
    )
    @wraps(command)
    def run(
        read: str | None,
        model: str | None,
        length: str | None,
        pattern: str | None,
        allowed: list[str] | None,
        fill: str | None,
        form: str | None,
        risk: str | None,
        like: str | None,
        second_reader: bool,
        **others: Any,
    ) -> None:
        from digitq.form_rows import read_form_file
        from digitq.protocol.asked.reading import choose_reading

        if form and read == "digit":
            raise UsageError("a form's fields are whole numbers: leave out --read digit")
        reading = choose_reading(
            model=model,
            read=read or "digit",
            page_form=None if form is None else read_form_file(form),
            length=length,
            pattern=pattern,
            allowed=allowed,
            fill=fill,
            risk=risk,
            like=like,
            second_reader=second_reader,
        )
        if form:
            reading = replace(reading, form_name=os.path.abspath(form))
        if reading.form and others.get("truth") == "parent":
            raise UsageError("a folder's name is no truth of a form's fields: name a table")
        command(reading=reading, **others)

    return run
