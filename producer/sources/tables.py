"""Tables of images, pixels or paths: Parquet, CSV, and those of Arrow in memory."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from producer.sources.arrays import Build, number_pieces
from producer.sources.columns import (
    OWN_IDS,
    TEXTS,
    Columns,
    build_pixels,
    find_label,
    find_pixels,
    is_text_or_number,
    plain,
    read_labels,
    read_texts,
)
from producer.sources.lists import LIST_ROWS, PATH_NAMES, build_entries, list_source
from producer.sources.source import EmptyError, Naming, Source
from producer.sources.truth import ANSWER_NAMES, find_first, read_cells
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


def table_source(path: Path, naming: Naming) -> Source:
    """The images of a table. An id is that in the column `id` or `path`, or the number of a row.

    The image column is called `image`, or is the only one with bytes or a struct with `bytes`, as
    in Hugging Face's data sets. Without one, 784 columns of whole numbers are pixels; without
    these, a column of paths names image files. A column of labels, numbers or text, is the truth.
    Raises `UsageError` if there are no such columns.
    """
    try:
        is_csv = path.name.lower().endswith(".csv")
        return (_csv_source if is_csv else _parquet_source)(path, naming)
    except (OSError, UnicodeError, csv.Error, pa.ArrowException) as error:
        raise UsageError(f"can't read {path}: {error}") from None


def _parquet_source(path: Path, naming: Naming) -> Source:
    file = pq.ParquetFile(path, buffer_size=PARQUET_BYTES, pre_buffer=False)
    count = file.metadata.num_rows
    if not count:
        raise EmptyError(f"no image in {path}: it has no rows")
    plan = _plan(path, file.schema_arrow, str(path.parent), naming)
    parts = _read_groups(file, plan.rows, plan.columns)
    items = number_pieces(parts, naming.prefix, plan.build, plan.read_ids)
    return Source(str(path), items, plan.has_truth, lambda: count)


def arrow_source(table: Any) -> Source:
    """The images of a table in memory that Arrow can read, such as a `pyarrow.Table` or a
    DataFrame. Raises `UsageError` if it can't, and as `table_source`."""
    kind = type(table).__name__
    try:
        is_stream = hasattr(table, "__arrow_c_stream__")
        reader = (
            pa.RecordBatchReader.from_stream(table) if is_stream else pa.table(table).to_reader()
        )
    except Exception as error:  # each kind of DataFrame has errors of its own
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"a {kind} can't be read as a table: {reason}; give a pyarrow.Table, or pairs (id, "
            "image)"
        ) from None
    plan = _plan(f"the {kind}", reader.schema, "", Naming())
    parts = (
        batch.slice(start, plan.rows)
        for batch in reader
        for start in range(0, batch.num_rows, plan.rows)
    )
    items = number_pieces(parts, "", plan.build, plan.read_ids)
    return Source("images from Python", items, plan.has_truth)


class Plan(NamedTuple):
    """How the rows of a table become images."""

    columns: list[str]  # the names of the columns that are read
    rows: int  # this many rows are read at a time
    build: Build
    read_ids: Callable[[pa.RecordBatch], list[str]] | None  # None if a row's number is its id
    has_truth: bool


def _plan(where: object, schema: pa.Schema, folder: str, naming: Naming) -> Plan:
    """How the rows of a table with this schema become images; paths are relative to the folder.
    Raises `UsageError` if there is no column of images, pixels or paths."""
    names = [field.name if is_text_or_number(field.type) else "" for field in schema]
    own = find_first(names, OWN_IDS)
    id = None if own is None else names[own]
    has_images = any(map(_may_be_image, schema))
    if not has_images and (found := find_pixels(where, schema)):
        _require_unique(where, schema, [id])
        build, has_truth = partial(build_pixels, found), found.label is not None
        return Plan(schema.names, PIXEL_ROWS, build, _ids_in(id), has_truth)
    column = _find_image(where, schema) if has_images else _find_path(where, schema)
    place = find_label(where, schema, ["label"]) if has_images else None
    place = find_first(names, ANSWER_NAMES) if place is None else place
    label = None if place is None else names[place]
    id = id if has_images else id or column
    columns = _require_unique(where, schema, [column, label, id])
    if has_images:
        images = partial(_build_images, column, label)
        return Plan(columns, IMAGE_ROWS, images, _ids_in(id), label is not None)
    entries = partial(build_entries, column, label, folder, naming)
    has_truth = label is not None or naming.truth_from_parent
    return Plan(columns, LIST_ROWS, entries, _ids_in(id), has_truth)


def _require_unique(where: object, schema: pa.Schema, columns: Sequence[str | None]) -> list[str]:
    """The names that are not None, each once. Raises `UsageError` if two columns have one name."""
    names = [*dict.fromkeys(name for name in columns if name is not None)]
    for name in names:
        if schema.names.count(name) > 1:
            raise UsageError(f"{where} has several columns {name}")
    return names


def _ids_in(column: str | None) -> Callable[[pa.RecordBatch], list[str]] | None:
    """What reads the ids of a batch's rows in this column."""
    return None if column is None else lambda batch: read_texts(batch.column(column))


def _refuse_results(where: object, schema: pa.Schema) -> None:
    """Raises `UsageError` for a table that digitq wrote."""
    if {"id", "confidence", "review"} <= {*schema.names}:
        commands = "`digitq report` and `digitq evaluate`"
        raise UsageError(f"{where} has results, not images: {commands} take results")


def _find_path(where: object, schema: pa.Schema) -> str:
    """The name of the column of paths. Raises `UsageError`."""
    names = [field.name if plain(field.type) in TEXTS else "" for field in schema]
    if (place := find_first(names, PATH_NAMES)) is None:
        _refuse_results(where, schema)
        raise UsageError(
            f"{where} has no image column (bytes, or a struct with `bytes`), no {PIXELS} columns "
            f"of pixels and no column `path` of image files; its columns: {_list_columns(schema)}"
        )
    return names[place]


def _find_image(where: object, schema: pa.Schema) -> str:
    """The name of the image column, of which there is one at least. Raises `UsageError`."""
    images = [field.name for field in schema if _may_be_image(field)]
    if len(images) > 1 and images.count("image") != 1:
        raise UsageError(
            f"{where} has several columns that may hold images: {', '.join(images)}; "
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


def _csv_source(path: Path, naming: Naming) -> Source:
    """The images of a CSV file. If its columns are pixels, each line is one, whatever quotes it
    contains."""
    with open(path, "rb") as file:
        sample = file.read(CSV_BYTES)
    is_whole = len(sample) < CSV_BYTES
    if not is_whole and b"\r" in sample and b"\n" not in sample:  # `read_blocks` needs line feeds
        raise UsageError(rf"{path} ends its lines with \r alone: `tr '\r' '\n'` converts them")
    lines = _split_lines(sample.removeprefix(codecs.BOM_UTF8))
    header = [line.decode(errors="replace") for line in lines[:1]]
    reader = read_cells(io.StringIO("".join(header), newline=""))
    listed = [cell.strip() for cell in next(reader, [])]
    if len(listed) < PIXELS and _are_names(listed) and find_first(listed, PATH_NAMES) is not None:
        return list_source(path, listed, reader.dialect.delimiter, naming)
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
        _refuse_results(path, schema)
        raise UsageError(
            f"{path} has no {PIXELS} columns of whole numbers that may be pixels, and no column "
            f"`path` of image files, separated by commas; its columns: {_list_columns(schema)}"
        )
    types = {str(place): pa.int64() for place in found.pixels}
    if found.label is not None:
        types[str(found.label)] = pa.string()  # a row whose label is not a number keeps its image
    id = find_first(cells, OWN_IDS) if named else None
    if id is not None:
        types[str(id)] = pa.string()
    parts = (_parse_rows(block, len(schema), types) for block in read_blocks(path, int(named)))
    label = None if found.label is None else PIXELS
    build = partial(build_pixels, Columns(range(PIXELS), label))
    read_ids = _ids_in(None if id is None else str(id))
    items = number_pieces(parts, naming.prefix, build, read_ids)
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
    """The columns in `types`, one row for each line; a cell that is not a number is null. The
    rows are the same whichever of two ways reads them."""
    names = [str(place) for place in range(width)]
    read = pyarrow.csv.ReadOptions(use_threads=False, column_names=names, block_size=2 * CSV_BYTES)
    convert = pyarrow.csv.ConvertOptions(column_types=types, include_columns=[*types])
    with suppress(pa.ArrowInvalid):
        content = pa.BufferReader(b"".join(lines))
        table = pyarrow.csv.read_csv(content, read, convert_options=convert)
        if table.num_rows == len(lines):  # there are fewer rows if a quote is not closed
            return table.combine_chunks().to_batches()[0]
    rows = [cells if len(cells) == width else [""] * width for cells in map(_split, lines)]
    arrays = []
    for name, kind in types.items():
        cells = pa.array([row[int(name)] for row in rows])
        if pa.types.is_integer(kind):
            cells = pc.utf8_trim_whitespace(cells)
            is_number = pc.match_substring_regex(cells, WHOLE_NUMBER)
            cells = pc.cast(pc.if_else(is_number, cells, None), kind)
        arrays.append(cells)
    return pa.record_batch(arrays, names=[*types])


def _split(line: bytes) -> list[str]:
    """The cells of one line; none if it is not CSV."""
    try:
        return next(csv.reader([line.decode(errors="backslashreplace")]), [])
    except csv.Error:
        return []
