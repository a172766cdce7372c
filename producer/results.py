"""Reads a result file that digitq has written, batch by batch."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from glob import escape
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from digitq.producer.provenance import Record, find_record
from digitq.producer.read_again import PageAgain, again_path, read_pages_again
from digitq.producer.readers import READINGS, Readers, are_readings, lay_readings, read_reader
from digitq.producer.sinks.encoders import LISTS
from digitq.producer.sources.csv_files import CSV_BLOCK_BYTES, MAX_CELL_CHARACTERS
from digitq.producer.sources.truth import are_answers, are_written
from digitq.protocol.asked.form import Form, read_form
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.values import WRITTEN_WORDS
from digitq.protocol.chunk import (
    CELL_FIELDS,
    CLASSES,
    CORRECTED,
    NUMBER_TRUTH,
    PROBABILITIES,
    named_schema,
    truth_field,
)
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import is_workbook, open_rows
from digitq.protocol.formats.csv_text import plain_texts
from digitq.protocol.formats.stores import is_stored
from digitq.protocol.settings import What
from digitq.protocol.text import in_one_line

READ_ROWS = 1 << 13  # rows of a Parquet file that are read at a time
JSON_BLOCK_BYTES = 1 << 20  # this much JSON is read at a time; a row must fit in
# The readers of all formats raise these
READ_ERRORS = (OSError, ValueError, TypeError, RecursionError, pa.ArrowException)
SHARES = [f"p{digit}" for digit in range(CLASSES)]  # `probabilities` in CSV


@dataclass(frozen=True)
class ResultFile:
    """A result file whose columns are those of digitq."""

    path: Path
    read: What
    schema: pa.Schema  # it has `truth`, `corrected` and `readings` if the file has them
    record: Record | None
    again: Mapping[str, PageAgain] = field(default_factory=dict)  # pages that were read again
    key: Path | None = None  # a table of right answers, in place of those of the form
    blind: Readers = field(default_factory=dict)  # what people read who saw no answer

    @property
    def reads_numbers(self) -> bool:
        return self.read == "number"

    @property
    def has_form(self) -> bool:
        """Whether each row is a field of a page."""
        return "page" in self.schema.names

    @property
    def row(self) -> str:
        """What a row answers: an image, or a field of a page."""
        return "field" if self.has_form else "image"

    @property
    def answer_column(self) -> str:
        return "number" if self.reads_numbers else "label"

    @cached_property
    def form(self) -> Form | None:
        """The form on record, for what is known of its fields: its tables may have another number
        of rows. None if it can't be read."""
        with suppress(UsageError):
            if self.record and self.record.form:
                return read_form(Path(self.record.form), lambda *_: 1)
        return None

    def known_of(self, id: str) -> Known | None:
        """What is known of the answer of a row; None if its form can't be read."""
        if self.has_form:
            return self.form.known_of(id) if self.form else None
        return Known(self.record.pattern if self.record else None)

    def find_fault(self, id: str, answer: str) -> str:
        """What is wrong with a person's answer, in words; empty if it can be one."""
        known = self.known_of(id) or Known()
        is_number = known.can_be(answer) or (self.has_form and not self.form)  # maybe an option
        is_answer = is_number if self.reads_numbers else re.fullmatch("[0-9]?", answer)
        if is_answer or answer in known.no_values:
            return ""
        wanted = known.wanted if self.reads_numbers else "a digit"
        return (
            f"the {self.answer_column} {answer!r} for {in_one_line(id)}: "
            f"it must be {wanted}, {', '.join(known.no_values)}, or empty if there is none"
        )

    def is_text(self, id: str) -> bool:
        """Whether readings of a row must be the same text, and not only worth the same."""
        known, is_listed = self.known_of(id), bool(self.record and self.record.allowed)
        return known is None or known.is_text or bool(known.options) or is_listed

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows in order, whatever the format; a CSV has no `digits` and `alternatives`, which
        are then null. Those of a page that was read again take the place of its own. They have what
        people read blind.

        Raises `UsageError` if a row can't be read, or if there are not as many rows as the record
        counts.
        """
        for batch in self._last_batches():
            yield lay_readings(batch, self.blind, self.is_text) if self.blind else batch

    def _last_batches(self) -> Iterator[pa.RecordBatch]:
        if not self.again:
            yield from self._own_batches()
            return
        truths = dict[str, str | None]()
        if NUMBER_TRUTH.name in self.schema.names:  # a page may be in two batches
            for batch in self._own_batches():
                batch = batch.filter(pc.is_in(batch["page"], pa.array([*self.again])))
                truths |= dict(
                    zip(*(batch[name].to_pylist() for name in ("id", "truth")), strict=True)
                )
        replaced = set[str]()
        for batch in self._own_batches():
            pages = batch.column("page").to_pylist()
            for page, numbers in groupby(range(len(pages)), pages.__getitem__):
                first, *others = numbers
                if page not in self.again:
                    yield batch.slice(first, 1 + len(others))
                elif page not in replaced:
                    replaced.add(page)
                    yield self._fit(self.again[page].rows, truths)

    def _fit(self, rows: pa.RecordBatch, truths: Mapping[str, str | None]) -> pa.RecordBatch:
        """The rows of a page that was read again, with the columns of the file."""
        right = pa.array([truths.get(id) for id in rows["id"].to_pylist()], pa.string())
        rows = rows.append_column(NUMBER_TRUTH, right)
        return pa.record_batch([fit_column(rows, one) for one in self.schema], schema=self.schema)

    def _own_batches(self) -> Iterator[pa.RecordBatch]:
        rows = 0
        with read_errors(self.path):
            for batch in READERS[self.path.suffix.lower()](self):
                columns = [fit_column(batch, one) for one in self.schema]
                batch = pa.record_batch(columns, schema=self.schema)
                batch.validate(full=True)  # the readers of JSON and Parquet let any text pass
                check_rows(self.path, rows, batch)
                rows += batch.num_rows
                yield batch
        if self.record and (images := self.record.counts.images) != rows:
            raise UsageError(
                f"{self.path} has {rows:,} rows, but its record counts {images:,}: "
                "it was cut off or changed"
            )

    def places(self) -> Iterator[pa.RecordBatch]:
        """`batches`, in which the rows of pages also have the column `table`: the name of their
        table, or null for a field outside of tables."""
        for batch in self.batches():
            yield with_tables(batch) if self.has_form else batch

    def _read_csv(self) -> Iterator[pa.RecordBatch]:
        kinds = {field.name: field.type for field in self.schema if field.name not in LISTS}
        if self.read == "digit":
            kinds |= dict.fromkeys(SHARES, pa.float32())
        options = pyarrow.csv.ConvertOptions(
            column_types=kinds,
            include_columns=[*kinds],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        )
        reading = pyarrow.csv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False)
        parsing = pyarrow.csv.ParseOptions(
            delimiter=read_head(self.path)[1], newlines_in_values=True
        )
        with (
            open(self.path, "rb") as file,  # Arrow opens no file whose name is not UTF-8
            closing(pyarrow.csv.open_csv(file, reading, parsing, options)) as batches,
        ):
            for batch in batches:
                columns = [
                    plain_texts(one) if pa.types.is_string(one.type) else one
                    for one in batch.columns
                ]
                batch = pa.record_batch(columns, batch.schema.names)
                if self.read == "digit":
                    batch = batch.append_column("probabilities", join_shares(batch))
                yield batch

    def _read_jsonl(self) -> Iterator[pa.RecordBatch]:
        if not self.path.stat().st_size:  # there are no rows, which Arrow takes for an error
            return
        reading = pyarrow.json.ReadOptions(block_size=JSON_BLOCK_BYTES, use_threads=False)
        kinds = [(field.name, as_parsed(field.type)) for field in self.schema]
        parsing = pyarrow.json.ParseOptions(
            explicit_schema=pa.schema(kinds), unexpected_field_behavior="ignore"
        )
        with (
            open(self.path, "rb") as file,
            closing(pyarrow.json.open_json(file, reading, parsing)) as batches,
        ):
            yield from batches

    def _read_parquet(self) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path, pre_buffer=False) as file:  # a buffer would keep all rows
            yield from file.iter_batches(READ_ROWS, columns=self.schema.names)


READERS = {  # by the ending of the file
    ".csv": ResultFile._read_csv,
    ".jsonl": ResultFile._read_jsonl,
    ".parquet": ResultFile._read_parquet,
}


def fit_column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    """A column of a file with its type; nulls if the file has no such column."""
    if field.name not in batch.schema.names:
        return pa.nulls(batch.num_rows, field.type)
    return batch.column(field.name).cast(field.type)


def as_parsed(kind: pa.DataType) -> pa.DataType:
    """The type as which Arrow's reader of JSON gives a column: it has no lists of fixed size, and
    takes no 3.0 for a whole number, which pandas writes if others are missing."""
    if pa.types.is_integer(kind):
        return pa.float64()
    return pa.list_(kind.value_type) if pa.types.is_fixed_size_list(kind) else kind


def open_results(path: Path, key: Path | None = None) -> ResultFile:
    """Open a result file. Raises `UsageError` if it can't be read, or if a column is missing."""
    suffix = path.suffix.lower()
    if suffix not in READERS:
        known = " or ".join(READERS)
        if is_workbook(path):
            raise UsageError(f"{path} is an Excel file: results are read from {known}")
        raise UsageError(f"{path} is no result file: these end in {known}")
    if is_stored(url := str(path).replace(":/", "://", 1)):  # a `Path` has one slash less
        raise UsageError(f"{url} is not on the disk: copy it from there first")
    with read_errors(path):
        names = read_names(path)
    record = find_record(path)
    if not names and record:  # JSON lines without a line have no names
        names = named_schema(record.read, record.form is not None).names
    read: What = "number" if "number" in names else "digit"
    has_form = {field.name for field in CELL_FIELDS} <= {*names}
    schema = named_schema(read, has_form)
    wanted = set(schema.names) - set(LISTS if suffix != ".parquet" else ())
    if suffix == ".csv" and read == "digit":
        wanted |= {*SHARES}
    if "page" in names and "field" not in names:
        raise UsageError(
            f"{path} has all fields of a page in one row: name the results that it was made of"
        )
    if missing := sorted(wanted - set(names)):
        raise UsageError(
            f"{path} is no result file of this version of digitq: it has no column {missing[0]!r}"
        )
    for one in (truth_field(read), CORRECTED, READINGS):
        if one.name in names:
            schema = schema.append(one)
    again = open_pages_again(again_path(path), record) if has_form and record else {}
    results = ResultFile(path, read, schema, record, again, key)
    return replace(results, blind=read_blind(results))


def blind_path(results: Path, initials: str) -> Path:
    """Where the answers of a person are who has read a result file blind."""
    return results.with_suffix(f".blind-{initials}.csv")


def find_blind(results: Path) -> dict[str, Path]:
    """The files of all such people, by their initials."""
    found = sorted(results.parent.glob(f"{escape(results.stem)}.blind-*.csv"))
    return {path.stem.removeprefix(f"{results.stem}.blind-"): path for path in found}


def read_blind(results: ResultFile) -> Readers:
    """What they read. Raises `UsageError` if a file can't be read, or has other answers."""
    paths = find_blind(results.path)
    for path in paths.values():
        check_age(path, results.record)
    column, check = results.answer_column, results.find_fault
    return {initials: read_reader(path, column, check) for initials, path in paths.items()}


def check_age(path: Path, record: Record | None) -> None:
    """Raises `UsageError` if answers to results are older than these."""
    finished = datetime.fromisoformat(record.finished).timestamp() if record else 0
    if path.exists() and path.stat().st_mtime < finished - 1:
        raise UsageError(
            f"{path} is older than the results, so its answers are of earlier ones: "
            "rename it, or `touch` it if they are of these"
        )


def open_pages_again(path: Path, record: Record) -> dict[str, PageAgain]:
    """The pages that were read again, if there are any. Raises `UsageError`."""
    if not path.exists():
        return {}
    with read_errors(path):
        return read_pages_again(path, record)


def read_names(path: Path) -> Sequence[str]:
    """The names of a result file's columns. Raises as its reader."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return [*pq.read_schema(path).names]
    if suffix == ".csv":
        return read_head(path)[0]
    with open(path, encoding="utf-8") as file:
        line = file.readline()
    row = json.loads(line) if line else {}
    if not isinstance(row, dict):
        raise ValueError("a line is no JSON object")
    return [*row]


def read_head(path: Path) -> tuple[list[str], str]:
    """The names of the columns of a CSV, and the delimiter."""
    with open_rows(path) as rows:
        names, delimiter = rows.fieldnames, rows.reader.dialect.delimiter
    if not names:
        raise ValueError("the first line is empty")
    return names, delimiter


def with_tables(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of pages with the column `table`. A file has the table's name in the ids only, which
    `name_fields` wrote."""
    columns = (batch.column(name).to_pylist() for name in ("id", "page", "row", "field"))
    tables = [
        id.removeprefix(f"{page}/").removesuffix(f"/{row}/{field}") if row else None
        for id, page, row, field in zip(*columns, strict=True)
    ]
    return batch.append_column("table", pa.array(tables, pa.string()))


def check_rows(path: Path, first: int, batch: pa.RecordBatch) -> None:
    """Raises `UsageError` for a row that digitq can't have written; `first` is the first's number,
    from 0."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in ("id", "review"):
            wrong, wanted = column.is_null(), "must not be empty"
        elif name == READINGS.name:
            wrong = pa.array([not are_readings(one) for one in column.to_pylist()], pa.bool_())
            wanted = "must be a JSON object from the names of readers to texts"
        elif name not in ("label", "number", "truth"):
            continue
        elif pa.types.is_string(column.type) and "field" in batch.schema.names:
            wrong, wanted = pc.invert(are_answers(column)), "is too long, or has control characters"
        elif pa.types.is_string(column.type):
            wrong, wanted = pc.invert(are_written(column)), f"must be {WRITTEN_WORDS}"
        else:
            is_digit = pc.and_(pc.greater_equal(column, 0), pc.less(column, CLASSES))
            wrong, wanted = pc.invert(is_digit), "must be a digit"
        if (index := pc.index(wrong, True).as_py()) >= 0:
            cell = column[index].as_py()
            shown = "" if cell is None else f" {in_one_line(str(cell))[:MAX_CELL_CHARACTERS]}"
            raise UsageError(f"row {first + index + 1:,} of {path}: {name}{shown} {wanted}")


def join_shares(batch: pa.RecordBatch) -> pa.Array:
    """`p0` to `p9` as a column of lists; null where one is null."""
    columns = [batch.column(name) for name in SHARES]
    mask = np.any([column.is_null().to_numpy(zero_copy_only=False) for column in columns], axis=0)
    values = np.stack([column.fill_null(0).to_numpy() for column in columns], axis=1)
    flat = pa.array(values.reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, type=PROBABILITIES, mask=pa.array(mask))


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Raises `UsageError` with the path and the reason for whatever a reader raises."""
    try:
        yield
    except UsageError:
        raise
    except READ_ERRORS as error:
        details = str(error).split("\n")[0]
        reason = getattr(error, "strerror", None) or f"it was cut off or changed ({details})"
        raise UsageError(f"can't read the rows of {path}: {reason}") from None
