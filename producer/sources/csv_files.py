"""The rows of a CSV file, as Arrow reads them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from digitq.producer.sources.source import EmptyError
from digitq.producer.sources.truth import ID_NAMES
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import choose_delimiter

CSV_BLOCK_BYTES = 1 << 20  # this many bytes are parsed at a time; a row must fit in
MAX_COLUMNS = 8192  # Arrow takes 14 kB of memory for each column
MAX_CELL_CHARACTERS = 40  # a message shows at most this many characters of a cell


def find_delimiter(path: Path) -> str:
    """What separates the cells. Raises `UsageError` if there are too many columns."""
    with open(path, "rb") as file:
        lines = file.read(CSV_BLOCK_BYTES).splitlines()
    first = lines[0].decode(errors="replace") if lines else ""
    delimiter = choose_delimiter(first)
    if first.count(delimiter) >= MAX_COLUMNS:
        raise UsageError(f"{path} has over {MAX_COLUMNS:,} columns: no images have so many")
    return delimiter


def read_schema(path: Path, delimiter: str, texts: Sequence[str]) -> pa.Schema:
    """The columns, with the types that the first rows have; columns of these names are text.

    Raises `EmptyError` if there are no rows, and `UsageError` if the columns have no names.
    """
    with _open(path, delimiter) as reader:
        if next(reader, None) is None:
            raise EmptyError(f"no image in {path}: it has no rows")
        schema = reader.schema
    if len({*schema.names}) < len(schema.names) / 2:  # they are pixels, most of which are 0
        raise UsageError(
            f"the first line of {path} must name the columns, such as label,pixel0,…,pixel783"
        )
    return pa.schema(
        field.with_type(pa.string()) if field.name.strip().lower() in texts else field
        for field in schema
    )


def read_rows(
    path: Path, delimiter: str, schema: pa.Schema, columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows` rows of these columns. Raises `pa.ArrowInvalid`."""
    types = {  # anything may be in a column that is not one of pixels
        field.name: field.type if pa.types.is_integer(field.type) else pa.string()
        for field in schema
    }
    with _open(path, delimiter, types, columns) as reader:
        for batch in reader:
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if column.type != pa.string() or name.strip().lower() in ID_NAMES:
                    continue
                # An open quote makes one cell of all rows that follow
                if pc.any(pc.match_substring(column, "\n")).as_py():
                    reason = f"a cell in the column {name} has several lines: is a quote open?"
                    raise pa.ArrowInvalid(reason)
            yield from cut_batches([batch], rows)


def count_rows(path: Path, delimiter: str, column: str) -> int | None:
    """How many rows there are, counted in this column; None if not all can be read."""
    try:
        with _open(path, delimiter, {column: pa.string()}, [column]) as reader:
            return sum(int(batch.num_rows) for batch in reader)
    except (OSError, pa.ArrowException):
        return None


def cut_batches(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches of at most `rows`."""
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


@contextmanager
def _open(
    path: Path,
    delimiter: str,
    types: Mapping[str, pa.DataType] = MappingProxyType({}),
    columns: Sequence[str] = (),
) -> Iterator[pyarrow.csv.CSVStreamingReader]:
    """Arrow's reader. Its errors are raised in the words of a person who has made the table."""
    try:
        with open(path, "rb") as file:  # Arrow opens no file whose name is not UTF-8
            yield pyarrow.csv.open_csv(
                file,
                pyarrow.csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
                pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                pyarrow.csv.ConvertOptions(
                    check_utf8=False,  # the name of a file may have any bytes
                    column_types=dict(types),
                    include_columns=columns,
                ),
            )
    except pa.ArrowInvalid as error:
        text = str(error)
        reason = text.partition("\n")[0]
        if match := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", text):
            reason = f"line {match[1]} has {match[3]} cells, but the first line has {match[2]}"
        elif match := re.search(r"column #(\d+): Row #(\d+): [^']*'([^']*)", text):
            column, cell = columns[int(match[1])], match[3][:MAX_CELL_CHARACTERS]
            reason = f"line {match[2]} has {cell!r} in the column {column}: no whole number"
        raise pa.ArrowInvalid(reason) from None
