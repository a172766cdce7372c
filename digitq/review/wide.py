"""Results of pages as a wide table: a row for each page or row of a table, a column a field."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from digitq.options import check_new
from digitq.producer.results import ResultFile
from digitq.producer.sinks.encoders import ENCODERS
from digitq.producer.sinks.sink import output_errors, replacing
from digitq.producer.sinks.workbook import write_workbook
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.known import NOBODY
from digitq.protocol.chunk import CORRECTED
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.xlsx_rows import XLSX, import_openpyxl
from digitq.review.amounts import find_amounts, measure_columns
from digitq.review.page_fields import BrokenRule, find_broken_rules, find_form, find_place
from digitq.review.people import call_roll, mark_repeated
from digitq.review.points import WIDE_COLUMNS, Key, Tally, find_key, mark_page

RESULT_COLUMNS = (
    *("id", "page", "table", "row", "field", "number", "confidence", "error", "review", "reason"),
    CORRECTED.name,
)
BATCH_PAGES = 256  # this many pages are written at a time
ResultRow = dict[str, Any]  # its values by the names of columns


def name_wide(results: Path) -> Path:
    """Where `--wide` writes the table of a result file: beside it."""
    return results.with_stem(f"{results.stem}-wide")


def check_out(out: Path, overwrite: bool) -> None:
    """Raises `UsageError` if the table can't be written there."""
    if out.suffix.lower() not in ENCODERS:
        raise UsageError(f"{out} must end in {' or '.join(ENCODERS)}, or be -")
    if out.suffix.lower() == XLSX:
        import_openpyxl()
    check_new(out, overwrite)


def write_wide(results: ResultFile, out: Path, overwrite: bool) -> int:
    """Write the wide table, as CSV to stdout if `out` is -; gives the number of its rows.

    Raises `UsageError` if the results are not of pages or can't be read, and `OutputError`.
    """
    if not results.has_form:
        raise UsageError(f"{results.path} has no fields of pages: `classify --form` reads them")
    form, _ = find_form(results.record)
    batches = spread_pages(read_pages(results, form), form, find_key(results, form))
    if str(out) == "-":
        with output_errors("the rows"):
            return write_table(batches, sys.stdout.buffer, ".csv")
    check_out(out, overwrite)
    if out.exists() and out.samefile(results.path):
        raise UsageError(f"{out} has the results themselves: name another OUT")
    if out.suffix.lower() == XLSX:
        amounts = find_amounts(spread_pages(read_pages(results)), form)
        batches = measure_columns(batches, amounts)
    with replacing(out, overwrite) as partial, open(partial, "wb") as file:
        return write_table(batches, file, out.suffix.lower())


def look_up(results: ResultFile) -> tuple[Form | None, Tally | None, list[str]]:
    """The form on record, the points by its key, and lines about them and its lists of people."""
    form, notes = find_form(results.record) if results.has_form else (None, [])
    key = find_key(results, form)
    tally = Tally(key, read_pages(results, form)) if key else None
    return form, tally, [*notes, *call_roll(results, form), *(tally.tell() if tally else ())]


def read_pages(results: ResultFile, form: Form | None = None) -> Iterator[list[ResultRow]]:
    """The rows of each page, as `mark_repeated` marks them."""

    def read_places() -> Iterator[ResultRow]:
        for batch in mark_repeated(results, form):
            columns = [name for name in RESULT_COLUMNS if name in batch.schema.names]
            yield from batch.select(columns).to_pylist()

    return (list(page) for _, page in groupby(read_places(), key=itemgetter("page")))


def spread_pages(
    pages: Iterator[list[ResultRow]], form: Form | None = None, key: Key | None = None
) -> Iterator[pa.RecordBatch]:
    """The wide rows; all pages have the fields of the first one. After a field are the columns that
    its list shows. There is at least one batch."""
    first = next(pages, [])
    tables = {place["table"] for place in first if place["row"] is not None}
    fields = dict[str, None]()
    for place in first:
        shown = form.known_at(find_place(place)).people.columns if form else ()
        fields |= dict.fromkeys([place["field"], *shown])
    named = [("page", pa.string())] + [("table", pa.string())] * (len(tables) > 1)
    named += [("row", pa.int32())] * bool(tables)
    named += [(name, pa.string()) for name in fields]
    named += [*zip(WIDE_COLUMNS, (pa.float64(), pa.int32()), strict=True)] if key else []
    named += [("checks", pa.string())] * bool(form and form.checks)
    schema = pa.schema([*named, ("review", pa.string())])
    left = chain([first], pages)
    while part := [*islice(left, BATCH_PAGES)]:
        rows = [row for page in part for row in spread_page(page, form, key)]
        yield pa.RecordBatch.from_pylist(rows, schema)


def spread_page(page: list[ResultRow], form: Form | None, key: Key | None) -> Iterator[ResultRow]:
    """The wide rows of a page: one, or one for each row that its tables have, which repeats the
    fields."""
    shared = [place for place in page if place["row"] is None]
    rows = [place for place in page if place["row"] is not None]
    broken = [*find_broken_rules(form, page)] if form and form.checks else []
    worth = dict(zip(WIDE_COLUMNS, mark_page(key, page), strict=False)) if key else {}
    of_page = [one for one in broken if one.bound.isdisjoint(place["id"] for place in rows)]
    if not rows and shared:
        yield worth | join(shared, form, of_page)
    for (table, number), group in groupby(rows, key=itemgetter("table", "row")):
        row = [*group]
        here = [one for one in broken if not one.bound.isdisjoint(place["id"] for place in row)]
        yield worth | {"table": table, "row": number} | join([*shared, *row], form, of_page + here)


def join(
    places: list[ResultRow], form: Form | None, broken: Sequence[BrokenRule]
) -> dict[str, Any]:
    """One wide row, with the rules that it breaks, and the names of the fields that a person should
    look at."""
    review = ", ".join(place["field"] for place in places if place["review"])
    numbers = {place["field"]: place["number"] for place in places}
    shown = dict[str, str]()
    for place in places:
        people = form.known_at(find_place(place)).people if form else NOBODY
        shown |= people.show(place["number"])
    checks = dict.fromkeys(one.text for one in broken)
    last = {"checks": "; ".join(checks) or None, "review": review or None}
    return {"page": places[0]["page"], **shown, **numbers, **last}


def write_table(batches: Iterator[pa.RecordBatch], file: BinaryIO, suffix: str) -> int:
    """Write the batches in the format of a file's suffix; gives the number of rows."""
    encode, rows = ENCODERS[suffix], 0
    if suffix == XLSX:
        return write_workbook(batches, file)
    first = next(batches)
    parquet = pq.ParquetWriter(file, first.schema) if suffix == ".parquet" else None
    with closing(parquet) if parquet else nullcontext():
        for batch in chain([first], batches):
            if parquet:
                parquet.write_batch(batch)
            else:
                file.write(encode(batch, rows == 0))
            rows += batch.num_rows
    return rows
