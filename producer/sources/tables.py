"""Tables: Parquet files of images or pixels, and CSV files with a column for each pixel."""

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from producer.sources.arrays import Build, number_pieces
from producer.sources.columns import (
    Columns,
    build_pixels,
    find_label,
    find_pixels,
    plain,
    read_labels,
)
from producer.sources.source import EmptyError, Source
from protocol.chunk import FILES_SCHEMA, PIXELS
from protocol.errors import UsageError
from protocol.settings import settings
from protocol.text import plural, too_large

TABLE_SUFFIXES = (".parquet", ".csv")
IMAGE_ROWS = 16  # this many rows are read at a time if they hold image files, which may be large
PIXEL_ROWS = 2048  # this many rows are read at a time if they hold pixels
PARQUET_BYTES = 1 << 20  # this much of a column is read at a time; Arrow would read a row group
PATH_ONLY = "the row has the path of an image, not its bytes: embed the bytes in the table"
BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())
CSV_BYTES = 4 << 20  # this many bytes are parsed at a time
MAX_LINE_BYTES = 1 << 20  # a longer line is cut, so that a file of zeros can't fill the memory
MAX_COLUMNS = 8192  # Arrow takes 14 kB of memory for each column
MAX_ODD_COLUMNS = PIXELS // 10  # if more columns have other values, the table has no pixels
CSV_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?|nan?", re.ASCII | re.IGNORECASE)
MAX_SHOWN = 100  # a message shows at most this many characters of the column names ...
MAX_SHOWN_LENGTH = 40  # ... and of each of them
WHOLE_NUMBER = r"^-?\d{1,9}$"


def table_source(path: Path, prefix: str) -> Source:
    """The images of a table; an id is the number of a row.

    The image column is called `image`, or is the only one with bytes or a struct with `bytes`, as
    in Hugging Face's data sets. Without one, 784 columns of whole numbers are pixels. A column of
    labels, numbers or text, is the truth. Raises `UsageError` if there are no such columns.
    """
    try:
        is_csv = path.name.lower().endswith(".csv")
        return (_csv_source if is_csv else _parquet_source)(path, prefix)
    except (OSError, UnicodeError, csv.Error, pa.ArrowException) as error:
        raise UsageError(f"can't read {path}: {error}") from None


def _parquet_source(path: Path, prefix: str) -> Source:
    file = pq.ParquetFile(path, buffer_size=PARQUET_BYTES, pre_buffer=False)
    schema, count = file.schema_arrow, file.metadata.num_rows
    build: Build
    if not count:
        raise EmptyError(f"no image in {path}: it has no rows")
    if not any(map(_may_be_image, schema)) and (found := find_pixels(path, schema)):
        columns, rows, build = schema.names, PIXEL_ROWS, partial(build_pixels, found)
        label = found.label
    else:
        image, label = _find_image(path, schema), find_label(path, schema, ["label"])
        name = None if label is None else schema.names[label]
        columns, rows = [image] if label is None else [image, name], IMAGE_ROWS
        build = partial(_build_images, image, name)
    items = number_pieces(_read_groups(file, rows, columns), prefix, build)
    return Source(str(path), items, label is not None, lambda: count)


def _find_image(path: Path, schema: pa.Schema) -> str:
    """The name of the image column. Raises `UsageError`."""
    images = [field.name for field in schema if _may_be_image(field)]
    if not images:
        raise UsageError(
            f"{path} has no image column (bytes, or a struct with `bytes`) and no {PIXELS} columns "
            f"of pixels; its columns: {_list_columns(schema)}"
        )
    if len(images) > 1 and images.count("image") != 1:
        raise UsageError(
            f"{path} has several columns that may hold images: {', '.join(images)}; "
            "name the one to be classified `image`"
        )
    return "image" if "image" in images else str(images[0])


def _list_columns(schema: pa.Schema) -> str:
    cut = [name[:MAX_SHOWN_LENGTH] + "…" * (len(name) > MAX_SHOWN_LENGTH) for name in schema.names]
    names = ", ".join(cut)
    return names[:MAX_SHOWN] + "…" * (len(names) > MAX_SHOWN)


def _may_be_image(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return plain(kind) in BYTES


def _read_groups(
    file: pq.ParquetFile, rows: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows` rows. Raises `EOFError` if a row group has fewer than its metadata
    says: Arrow skips a damaged page silently, and later rows would get the wrong numbers."""
    for group in range(file.num_row_groups):
        missing = file.metadata.row_group(group).num_rows
        for batch in file.iter_batches(rows, [group], columns):
            missing -= batch.num_rows
            yield batch
        if missing:
            raise EOFError(f"{plural(missing, 'row')} missing")


def _build_images(
    image: str, label: str | None, ids: pa.Array, batch: pa.RecordBatch
) -> list[pa.RecordBatch]:
    """A batch of image files; a file over `DIGITQ_IMAGE_BYTES` is null and has an error."""
    images = column = batch.column(image)
    if pa.types.is_struct(column.type):
        images = pc.struct_field(column, "bytes")
    images = pc.cast(images, pa.binary())
    limit = settings().image_bytes
    large = pc.fill_null(pc.greater(pc.binary_length(images), limit), False)
    errors = pc.if_else(large, too_large(limit), pa.scalar(None, pa.string()))
    if pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0:
        has_path_only = pc.and_(images.is_null(), pc.struct_field(column, "path").is_valid())
        errors = pc.if_else(has_path_only, PATH_ONLY, errors)
    columns = [ids, pc.if_else(large, None, images), errors, read_labels(batch, label)]
    return [pa.record_batch(columns, schema=FILES_SCHEMA)]


def _csv_source(path: Path, prefix: str) -> Source:
    """The images of a CSV file, one for each line, whatever quotes it contains."""
    with open(path, "rb") as file:
        sample = file.read(CSV_BYTES)
    is_whole = len(sample) < CSV_BYTES
    if not is_whole and b"\r" in sample and b"\n" not in sample:  # `read_blocks` needs line feeds
        raise UsageError(rf"{path} ends its lines with \r alone: `tr '\r' '\n'` converts them")
    lines = _split_lines(sample.removeprefix(codecs.BOM_UTF8))
    header = [line.decode(errors="replace") for line in lines[:1]]
    cells = [cell.strip() for cell in next(csv.reader(header), [])]
    if len(cells) > MAX_COLUMNS:
        raise UsageError(f"{path} has over {MAX_COLUMNS:,} columns; {PIXELS} of pixels are needed")
    named = _are_names(cells)
    names = cells if named else [str(place) for place in range(len(cells))]
    rows = lines[named : len(lines) if is_whole or len(lines) == 1 else -1]
    table = pyarrow.csv.read_csv(
        pa.BufferReader(b"".join(rows).decode(errors="replace").encode()),  # Arrow wants UTF-8
        pyarrow.csv.ReadOptions(column_names=names, block_size=2 * CSV_BYTES),
        pyarrow.csv.ParseOptions(invalid_row_handler=lambda row: "skip"),
    )
    if not table.num_rows:
        raise EmptyError(f"no image in {path}: no row has as many cells as the first line")
    schema = table.schema
    found = find_pixels(path, schema, named, MAX_ODD_COLUMNS)
    if not found:
        raise UsageError(
            f"{path} has no {PIXELS} columns of whole numbers that may be pixels, separated by "
            f"commas; its columns: {_list_columns(schema)}"
        )
    types = {str(place): pa.int64() for place in found.pixels}
    if found.label is not None:
        types[str(found.label)] = pa.string()  # a row whose label is not a number keeps its image
    parts = (_parse_rows(block, len(schema), types) for block in read_blocks(path, int(named)))
    label = None if found.label is None else PIXELS
    items = number_pieces(parts, prefix, partial(build_pixels, Columns(range(PIXELS), label)))
    return Source(str(path), items, label is not None)


def _are_names(cells: Sequence[str]) -> bool:
    """Whether a first line contains names: most cells are text, or most differ from each other, as
    in `label,0,1,…,783`. (784 pixels have at most 256 different values.)"""
    texts = sum(not CSV_NUMBER.fullmatch(cell) for cell in cells if cell)
    return 2 * texts > len(cells) or 2 * len(set(cells)) > len(cells)


def read_blocks(path: Path, skip: int) -> Iterator[list[bytes]]:
    """The lines after the first `skip`, about `CSV_BYTES` at a time."""
    with open(path, "rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        while block := file.read(CSV_BYTES):
            lines = _split_lines(block + file.readline(MAX_LINE_BYTES))
            if len(lines) > skip:
                yield lines[skip:]
            skip = 0 if lines else skip


def _split_lines(block: bytes) -> list[bytes]:
    return [line for line in block.splitlines(keepends=True) if line.strip()]


def _parse_rows(lines: list[bytes], width: int, types: dict[str, pa.DataType]) -> pa.RecordBatch:
    """The columns in `types`, one row for each line; a cell that is not a number is null."""
    names = [str(place) for place in range(width)]
    read = pyarrow.csv.ReadOptions(use_threads=False, column_names=names, block_size=2 * CSV_BYTES)
    convert = pyarrow.csv.ConvertOptions(
        column_types=types, include_columns=[*types], strings_can_be_null=True
    )
    with suppress(pa.ArrowInvalid):
        content = pa.BufferReader(b"".join(lines))
        table = pyarrow.csv.read_csv(content, read, convert_options=convert)
        if table.num_rows == len(lines):  # there are fewer rows if a quote is not closed
            return table.combine_chunks().to_batches()[0]
    rows = [cells if len(cells) == width else [""] * width for cells in map(_split, lines)]
    arrays = []
    for name, kind in types.items():
        cells = pc.utf8_trim_whitespace(pa.array([row[int(name)] for row in rows]))
        if pa.types.is_integer(kind):
            is_number = pc.match_substring_regex(cells, WHOLE_NUMBER)
            cells = pc.cast(pc.if_else(is_number, cells, None), kind)
        arrays.append(cells)
    return pa.record_batch(arrays, names=[*types])


def _split(line: bytes) -> list[str]:
    """The cells of one line; none if it is not CSV."""
    try:
        return next(csv.reader([line.decode(errors="replace")]), [])
    except csv.Error:
        return []
