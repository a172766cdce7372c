"""`compare`: a result file and what another reader has read, side by side."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click

from digitq.commands.reports import RESULT_PATH
from digitq.summary import open_sink, report_interruption, report_rows
from digitq.terminal import echo_err


@click.command()
@click.argument("results", type=RESULT_PATH)
@click.argument("other", metavar="OTHER[:COLUMN]", type=RESULT_PATH)
@click.option(
    "-o", "--out", type=click.Path(), help="file to write, with both readings of each row"
)
@click.option(
    "--sample", "drawn", type=RESULT_PATH, help="right answers of a random sample of rows"
)
@click.option("--overwrite", is_flag=True, help="replace OUT")
def compare(
    results: Path, other: Path, out: str | None, drawn: Path | None, overwrite: bool
) -> None:
    """Compare results with what another reader read.

    OTHER is any table of the same rows: of another program, of a person who typed them, or of an
    earlier run. It has the column `id`, or `page`, `field` and `row`, and `number`, `label` or
    COLUMN. OUT has all rows of RESULTS: those that agree are confirmed, and others are marked.
    `--sample` takes what a page with `--sample` saves: it says how many errors both share.
    """
    from digitq.producer.readers import lay_readings
    from digitq.producer.results import open_results
    from digitq.protocol.formats.csv_rows import find_column
    from digitq.review.agreement import compare_tables
    from digitq.review.corrections import identify, read_corrections, skip_rows

    table = open_results(results)
    given = read_corrections(drawn, table) if drawn else None
    found = compare_tables(table, other)
    for line in found.tabulate():
        echo_err(line)
    if shared := found.measure_shared(given):
        is_part = not given and shared.looked_at < shared.unmarked
        part = ", if these are a random part of them" * is_part
        echo_err(f"{shared.describe('rows in which both agree')}{part}")
    elif given:
        echo_err(f"both agree in no row of the sample in {drawn}")
    else:
        both, how = ("both.csv", "; with -o both.csv") if out in (None, "-") else (out, "")
        echo_err(
            f"two tables can't tell how many errors they share{how}: "
            f"`digitq report {both} --sample 200`, then `digitq correct {both} corrections.csv`"
        )
    if out is None:
        return
    run = identify(table, find_column(other)[0]) | {"reader": found.name}
    with closing(open_sink(out, run, overwrite)) as sink, report_interruption(sink, overwrite):
        for batch in skip_rows(table, sink.counts.images):
            sink.write(lay_readings(batch, {found.name: found.read}, table.is_text))
        sink.finish(table.read, table.record and replace(table.record, counts=sink.counts))
    report_rows(sink, has_speed=False, what=table.row)
