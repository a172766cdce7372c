"""Tables of images, pixels or paths: Parquet, CSV, and those of Arrow in memory."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from digitq.producer.sources.arrays import Build, number_pieces
from digitq.producer.sources.csv_files import (
    count_rows,
    cut_batches,
    find_delimiter,
    read_rows,
    read_schema,
)
from digitq.producer.sources.source import IN_MEMORY, EmptyError, Naming, Source
from digitq.producer.sources.table_rows import (
    TEXTS,
    build_entries,
    build_pixels,
    find_pixels,
    plain,
    read_labels,
    read_texts,
    text_columns,
)
from digitq.producer.sources.truth import ANSWER_NAMES, ID_NAMES, PATH_NAMES
from digitq.protocol.chunk import FILES_SCHEMA, PIXELS
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find_first
from digitq.protocol.settings import settings
from digitq.protocol.text import name_some, plural, too_large

TABLE_SUFFIXES = (".parquet", ".csv")
IMAGE_ROWS = 16  # this many rows are read at a time if they hold image files, which may be large
LIST_ROWS = 512  # this many rows are read at a time if they are paths
PIXEL_ROWS = 2048  # this many rows are read at a time if they hold pixels
PARQUET_BYTES = 1 << 20  # this much of a column is read at a time; Arrow would read a row group
PATH_ONLY = "the row has the path of an image, not its bytes: embed the bytes in the table"
BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())


def table_source(path: Path, naming: Naming) -> Source:
    """The images of a table. An id is that in the first column of `ID_NAMES`, or a row's number.

    The image column is called `image`, or is the only one with bytes or a struct with `bytes`, as
    in Hugging Face's data sets. Without one, 784 columns of whole numbers are pixels; without
    these, a column of paths names image files. A column of labels, numbers or text, is the truth.
    Raises `UsageError` if there are no such columns.
    """
    try:
        is_csv = path.name.lower().endswith(".csv")
        return (_csv_source if is_csv else _parquet_source)(path, naming)
    except (OSError, UnicodeError, pa.ArrowException) as error:
        raise UsageError(f"can't read {path}: {error}") from None


def _csv_source(path: Path, naming: Naming) -> Source:
    delimiter = find_delimiter(path)
    schema = read_schema(path, delimiter, (*ANSWER_NAMES, *ID_NAMES))
    plan = _plan(path, schema, naming.folder or str(path.parent), naming)
    rows = read_rows(path, delimiter, schema, plan.columns, plan.rows)
    items = number_pieces(rows, naming.prefix, plan.build, plan.read_ids)
    return Source(
        str(path), items, plan.has_truth, lambda: count_rows(path, delimiter, schema.names[0])
    )


def _parquet_source(path: Path, naming: Naming) -> Source:
    file = pq.ParquetFile(path, buffer_size=PARQUET_BYTES, pre_buffer=False)
    count = file.metadata.num_rows
    if not count:
        raise EmptyError(f"no image in {path}: it has no rows")
    plan = _plan(path, file.schema_arrow, naming.folder or str(path.parent), naming)
    parts = _read_groups(file, plan.rows, plan.columns)
    items = number_pieces(parts, naming.prefix, plan.build, plan.read_ids)
    return Source(str(path), items, plan.has_truth, lambda: count)


def arrow_source(table: Any) -> Source:
    """The images of a table in memory, such as a `pyarrow.Table` or a DataFrame; each row has one.
    Raises `UsageError` if Arrow can't read it, and as `table_source`."""
    kind = type(table).__name__
    try:
        reader = pa.RecordBatchReader.from_stream(table)
    except Exception as error:  # each kind of table has errors of its own
        reason = ": ".join(map(str, error.args)).partition("\n")[0]
        raise UsageError(
            f"a {kind} can't be read as a table: {reason}; leave out columns that Arrow can't "
            "hold; give a single column, and images that are objects, as a list: "
            "[*frame['image']], or as pairs: zip(frame['id'], frame['image'])"
        ) from None
    rows = len(table) if hasattr(table, "__len__") else None
    if rows == 0:  # its columns may have no types
        return Source(IN_MEMORY, [])
    plan = _plan(f"the {kind}", reader.schema, "", Naming())
    items = number_pieces(cut_batches(reader, plan.rows), "", plan.build, plan.read_ids)
    return Source(IN_MEMORY, items, plan.has_truth, lambda: rows)


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
    names = text_columns(schema)
    id, label = find_first(names, ID_NAMES), find_first(names, ANSWER_NAMES)
    image = choose_image(where, [field.name for field in schema if _may_be_image(field)])
    if not image and (pixels := find_pixels(where, schema, label)):
        _require_unique(where, schema, [id, label, *pixels])
        build = partial(build_pixels, pixels, label)
        return Plan(schema.names, PIXEL_ROWS, build, _ids_in(id), label is not None)
    column = image or _find_path(where, schema)
    columns = _require_unique(where, schema, [column, label, id])
    if image:
        images = partial(_build_images, column, label)
        return Plan(columns, IMAGE_ROWS, images, _ids_in(id), label is not None)
    entries = partial(build_entries, column, label, folder, naming)
    has_truth = label is not None or naming.truth_from_parent
    return Plan(columns, LIST_ROWS, entries, _ids_in(id), has_truth)


def _require_unique(where: object, schema: pa.Schema, columns: Sequence[str | None]) -> list[str]:
    """The names that are not None, each once. Raises `UsageError` if two columns have one name."""
    names, counts = [*dict.fromkeys(columns)], Counter(schema.names)
    for name in names:
        if counts[name] > 1:
            raise UsageError(f"{where} has several columns {name}")
    return [name for name in names if name is not None]


def _ids_in(column: str | None) -> Callable[[pa.RecordBatch], list[str]] | None:
    """What reads the ids of a batch's rows in this column."""
    return None if column is None else lambda batch: read_texts(batch.column(column))


def _find_path(where: object, schema: pa.Schema) -> str:
    """The name of the column of paths. Raises `UsageError`."""
    names = [field.name if plain(field.type) in TEXTS else "" for field in schema]
    if (path := find_first(names, PATH_NAMES)) is None:
        if {"id", "confidence", "review"} <= {*schema.names}:  # digitq wrote the table
            commands = "`digitq report` and `digitq evaluate`"
            raise UsageError(
                f"{where} has results, not images: {commands} take results on the disk"
            )
        raise UsageError(
            f"{where} has no image column (bytes, or a struct with `bytes`), no {PIXELS} columns "
            "of whole numbers that may be pixels, and no column `path` of image files: rename "
            f"the one that has them; its columns: {name_some(schema.names)}"
        )
    return path


def choose_image(where: object, pictures: Sequence[str]) -> str | None:
    """The column of the image among those that may have it; None if there are none. Raises
    `UsageError`."""
    if len(pictures) > 1 and pictures.count("image") != 1:
        raise UsageError(
            f"{where} has several columns that may hold images: {', '.join(pictures)}; "
            "name the one to be classified `image`"
        )
    return "image" if "image" in pictures else next(iter(pictures), None)


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
