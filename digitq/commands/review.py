"""`review`: serves the page of results, and saves the answers that are given there."""

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from digitq import options
from digitq.commands.reports import RESULT_PATH
from digitq.protocol.asked.sample import MAX_SAMPLE
from digitq.protocol.errors import UsageError
from digitq.protocol.text import plural
from digitq.terminal import echo_err, require


@click.command(epilog=options.SOURCES_HELP)
@click.argument("results", type=RESULT_PATH)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", type=click.Path(readable=False))
@options.served
@options.number(
    "--sample",
    "also show N of the unmarked rows, drawn at random, as `report` does; with --blind only N of "
    "all rows",
    limits=click.IntRange(1, MAX_SAMPLE),
)
@click.option(
    "--blind",
    is_flag=True,
    help="let people read what is marked without seeing any answer, each under their initials",
)
@click.option("--all", "has_all", is_flag=True, help="with --blind: all rows")
def review(
    results: Path,
    sources: tuple[str, ...],
    host: str,
    port: int | None,
    sample: int | None,
    blind: bool,
    has_all: bool,
) -> None:
    """Correct results in a browser, several people at once.

    RESULTS is a file that `classify` or `collect` wrote. The page is that of `report`. Its link
    is printed, and each answer is saved at once, in RESULTS with .corrections.csv, for `correct`.
    A SOURCE is only needed if the images are not where they were. What people read with --blind is
    in RESULTS with .blind-INITIALS.csv, and every command that reads RESULTS takes it into account.
    """
    if has_all and (sample or not blind):
        raise UsageError("--all goes with --blind, and without --sample")
    require("review")
    from digitq.producer.results import open_results
    from digitq.review.page import make_blind_page, make_page
    from digitq.serving.answers import AnswerFile, Connection, Desk
    from digitq.serving.blind import BlindConnection, BlindDesks
    from digitq.serving.server import ServedPage, bind, hold, serve
    from digitq.serving.whole_page import WholePage, WholePages

    table, what = open_results(results), f"the page of {results}"
    table = replace(table, path=results.absolute())  # the current folder may change
    hold(results)
    bind(host, port, what).close()  # raises before the page is made, which may take a while
    if blind:
        page = make_blind_page(replace(table, blind={}), sources, sample or 0, has_all)
        echo_err("\n".join(page.lines))
        desks = BlindDesks(table, page)
        served = ("/", ServedPage, {"read": lambda: page.text})
        serve(
            [served, ("/answers", BlindConnection, {"desk": desks})], host, port, what, desks.look
        )
        for file in (one.file for one in desks.values()):
            echo_err(f"{plural(len(file.answers), 'answer')} in {file.path.name}")
        echo_err(f"`{shlex.join(['digitq', 'review', str(results)])}` shows where readings differ")
        return
    saved = AnswerFile(table)
    make = partial(make_page, sources=sources, sample=sample or 0, saved_in=saved.path.name)
    desk = Desk(saved, make(table))
    echo_err("\n".join(desk.page.lines))
    routes = [
        ("/", ServedPage, {"read": lambda: desk.page.text}),
        ("/answers", Connection, {"desk": desk}),
        ("/page", WholePage, {"pages": WholePages(desk, make, sources)}),
    ]
    serve(routes, host, port, what, desk.look)
    if saved.answers:
        path = str(results.with_name(saved.path.name))
        command = shlex.join(["digitq", "correct", str(results), path, "-o", "FINAL"])
        count = plural(len(saved.answers), "answer")
        echo_err(f"{count} in {path}: `{command}` writes the table with them")
