"""`report` and `correct`: a page that shows results, and the table with its corrections."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click

from digitq import options
from digitq.protocol.asked.sample import MAX_SAMPLE
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import is_workbook
from digitq.protocol.formats.xlsx_rows import XLSX, import_openpyxl
from digitq.protocol.text import name_some, plural
from digitq.summary import open_sink, report_interruption, report_rows
from digitq.terminal import echo_err

RESULT_PATH = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog=options.SOURCES_HELP)
@click.argument("results", type=RESULT_PATH)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", type=click.Path(readable=False))
@click.option("-o", "--out", type=RESULT_PATH, help="page or .xlsx to write [RESULTS, with .html]")
@options.number(
    "--sample",
    "also show N of the unmarked rows, drawn at random: `correct` then says how many of all "
    "unmarked ones may be wrong",
    limits=click.IntRange(1, MAX_SAMPLE),
)
@options.key
@click.option("--overwrite", is_flag=True, help="replace the page")
def report(
    results: Path,
    sources: tuple[str, ...],
    out: Path | None,
    sample: int | None,
    key: Path | None,
    overwrite: bool,
) -> None:
    """Show results in a page, and correct them there.

    RESULTS is a file that `classify` or `collect` wrote. The page is one file that needs no
    network. It shows the images to review, the least sure first, and takes the right answers from
    the keyboard. A SOURCE is only needed if the images are not where they were. If OUT ends in
    .xlsx, it is an Excel file of all rows, each with a small picture.
    """
    from digitq.producer.results import open_results

    open_results(results)  # raises before anything else if it is no result file
    out = out or results.with_suffix(".html")
    check_page(out, overwrite)
    if (sample or key) and is_workbook(out):
        raise UsageError("--sample and --key are parts of a page: name one that ends in .html")
    show_page(results, sources, out, sample or 0, key)


@click.command()
@click.argument("results", type=RESULT_PATH)
@click.argument("corrections", type=RESULT_PATH)
@options.out
@click.option("--overwrite", is_flag=True, help="replace OUT")
def correct(results: Path, corrections: Path, out: str | None, overwrite: bool) -> None:
    """Write results with the corrections of a page.

    CORRECTIONS is the file that the page saves, with the columns `id` and `label`, or `id` and
    `number`. OUT has all rows in order, and a column `corrected`.
    """
    from digitq.producer.results import open_results
    from digitq.protocol.asked.own_network import MIN_OWN_IMAGES
    from digitq.protocol.formats.stores import is_stored
    from digitq.review.corrections import (
        Looked,
        check_again,
        correct_batch,
        count_learned,
        find_other_zeros,
        identify,
        measure_sample,
        read_corrections,
        skip_rows,
        suggest_training,
    )
    from digitq.review.page_fields import find_form
    from digitq.review.points import find_key

    table = open_results(results)
    form, _ = find_form(table.record) if table.has_form else (None, [])
    find_key(table, form)  # raises before anything is written
    given = read_corrections(corrections, table)
    answers = given.answers
    zeros = find_other_zeros(corrections, answers, table)
    checked = check_again(table, answers, form) if form else ((), ())
    if table.has_form and not form:
        curve = ", and the file measures no risk" if given.drawn else ""
        echo_err(f"the form can't be read: its rules are not checked again{curve}")
    looked = measure_sample(table, given, form) if given.drawn else Looked()
    with (
        closing(open_sink(out, identify(table, corrections), overwrite)) as sink,
        report_interruption(sink, overwrite),
    ):
        for batch in skip_rows(table, sink.counts.images):
            sink.write(correct_batch(batch, answers, checked))
        record = table.record and replace(table.record, counts=sink.counts)
        if record and looked.sample:  # what an earlier sample has said stays true
            record = replace(record, sample=looked.sample, curve=looked.curve)
        sink.finish(table.read, record)
    echo_err(f"{plural(len(answers), 'answer')} corrected or confirmed")
    if zeros:
        echo_err(
            f"{plural(len(zeros), 'correction')} changed only leading zeros ({name_some(zeros)}): "
            "a spreadsheet may have removed some"
        )
    if sample := looked.sample:
        echo_err(sample.describe())
        if sample.left:
            most = f"{sample.left_at_most:,} of the {sample.left:,}"
            echo_err(f"so at most {most} that nobody looked at are")
    if sample and table.has_form:
        echo_err("this holds for these pages: numbers of a page are alike, so others may differ")
    if looked.unused:
        echo_err(
            f"{plural(looked.unused, 'answer')} of the sample came after a row without an answer: "
            "they do not count, as rows that are hard to read are skipped more often"
        )
    report_rows(sink, has_speed=False, what=table.row)
    show_people(out)
    # `train` can't read a table in a bucket, or in lines of JSON
    is_table = out and Path(out).suffix.lower() in options.TRUTH_SUFFIXES and not is_stored(out)
    command = suggest_training(table.record, str(out if is_table else corrections))
    if command and count_learned(answers, form) >= MIN_OWN_IMAGES:
        echo_err(f"to learn from these answers: {command}")


@click.command()
@click.argument("results", type=RESULT_PATH)
@options.out
@options.key
@click.option("--overwrite", is_flag=True, help="replace OUT")
def wide(results: Path, out: str | None, key: Path | None, overwrite: bool) -> None:
    """Write the results of pages with a column for each field.

    RESULTS is a file that `classify --form` wrote. OUT has a row for each page, or for each row of
    its tables. The column `review` names the fields that a person should check.
    """
    show_wide(str(results), out or "-", overwrite, key)
    show_people(str(results), key)


def check_wide(form: str | None, out: str | None, overwrite: bool) -> None:
    """Raises `UsageError` if there is no form or no result file, or the wide table can't be
    written."""
    from digitq.review.wide import check_out, name_wide

    if form is None:
        raise UsageError("--wide writes the fields of pages: name their form with --form")
    if out in (None, "-"):
        raise UsageError("--wide writes a table beside the result file: name one with -o OUT")
    check_readable(out, "wide")
    check_out(name_wide(Path(str(out))), overwrite)


def check_key(form: str | None, key: Path | None, has_wide: bool, page: Path | None) -> None:
    """Raises `UsageError` if the key of a form can't be read, or if nothing shows its points."""
    from digitq.form_rows import read_form_file
    from digitq.review.points import read_key

    if key and not (form and (has_wide or (page and not is_workbook(page)))):
        raise UsageError("--key gives points in --wide or a page of --report, of a form")
    if form:
        read_key(read_form_file(form), form, key)


def show_wide(results: str, out: str | None, overwrite: bool, key: Path | None) -> None:
    """Write the wide table of a result file, beside it if OUT is None, and say where it is."""
    from digitq.producer.results import open_results
    from digitq.review.wide import name_wide, write_wide

    target = name_wide(Path(results)) if out is None else Path(out)
    rows = write_wide(open_results(Path(results), key), target, overwrite)
    if out != "-":
        echo_err(f"the wide table is in {target}: {plural(rows, 'row')}")


def show_people(results: str | None, key: Path | None = None) -> None:
    """Say who of a form's lists is missing in a result file, or occurs twice, and what its key
    lacks, if the file can be read."""
    from digitq.producer.results import READERS, open_results
    from digitq.protocol.formats.stores import is_stored
    from digitq.review.wide import look_up

    if not results or is_stored(results) or Path(results).suffix.lower() not in READERS:
        return
    for line in look_up(open_results(Path(results), key))[-1]:
        echo_err(line)


def show_results(results: str | None, has_wide: bool, page: Path | None, key: Path | None) -> None:
    """Write the wide table and the page of a run if they are asked for, and say who is missing or
    occurs twice."""
    if has_wide:
        show_wide(str(results), None, True, key)
    if page:
        show_page(Path(str(results)), (), page, 0, key)
    else:
        show_people(results, key)


def check_readable(out: str | None, option: str) -> None:
    """Raises `UsageError` if the option can't read the result file: in a bucket, or in Excel."""
    from digitq.protocol.formats.stores import is_stored

    if out and is_stored(out):
        raise UsageError(
            f"--{option} needs an OUT on the disk: write {out} without it, copy that file to the "
            f"disk, and run `digitq {option}` on the copy"
        )
    if out and is_workbook(out):
        raise UsageError(
            f"--{option} reads OUT, and results are read from .csv, .jsonl or .parquet: name such "
            f"an OUT in place of {out}"
        )


def check_page(page: Path, overwrite: bool, out: str | None = "") -> None:
    """Raises `UsageError` if a page can't be made of the result file `out`, or be written."""
    if out in (None, "-"):
        raise UsageError("--report shows a result file: name one with -o OUT")
    check_readable(out, "report")
    if page.suffix.lower() not in (".html", ".htm", XLSX):
        raise UsageError(f"the page {page} must end in .html or .xlsx")
    if is_workbook(page):
        import_openpyxl()
    options.check_new(page, overwrite)


def show_page(
    results: Path, sources: tuple[str, ...], page: Path, sample: int, key: Path | None
) -> None:
    """Write the page of a result file, with a random sample if it is asked for, and say what is in
    it."""
    from digitq.producer.results import open_results
    from digitq.review.page import write_page
    from digitq.review.picture_table import write_sheet

    table = open_results(results, key)
    if is_workbook(page):
        found, *notes = write_sheet(table, sources, page)
    else:
        found, *notes = write_page(table, sources, page, sample)
    echo_err("\n".join([f"the page is {page}: {found}", *notes]))
