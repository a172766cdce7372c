"""Parquet files with a column of encoded images, or with a column for each pixel."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from producer.sources.batches import Build, number_pieces
from producer.sources.columns import (
    build_pixels,
    digits,
    find_label,
    find_pixels,
    list_columns,
    plain,
)
from producer.sources.source import EmptyError, Source, too_large
from protocol.chunk import ERROR, ID, IMAGE_FIELD, PIXELS, TRUTH
from protocol.errors import UsageError
from protocol.settings import settings
from protocol.text import plural

IMAGE_ROWS = 16  # rows read at a time if they hold image files, which may be large
PIXEL_ROWS = 2048  # rows read at a time if they hold pixels
PARQUET_BYTES = 1 << 20  # one read of a column; without it, a row group of a gigabyte is read
PATH_ONLY = "the row has the path of an image, not its bytes: embed the bytes in the table"
BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())
SCHEMA = pa.schema([ID, IMAGE_FIELD, ERROR, TRUTH])


def parquet_source(path: Path, prefix: str) -> Source:
    """The images of a Parquet file; an id is the number of its row. Raises as `table_source`."""
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
            f"of pixels; its columns: {list_columns(schema)}"
        )
    if len(images) > 1 and images.count("image") != 1:
        raise UsageError(
            f"{path} has several columns that may hold images: {', '.join(images)}; "
            "name the one to be classified `image`"
        )
    return "image" if "image" in images else str(images[0])


def _may_be_image(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return plain(kind) in BYTES


def _read_groups(
    file: pq.ParquetFile, rows: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows` rows.

    Raises `EOFError` if a row group has fewer rows than its metadata says: Arrow skips a damaged
    page silently, and later rows would get the wrong numbers.
    """
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
    columns = [ids, pc.if_else(large, None, images), errors, digits(batch, label)]
    return [pa.record_batch(columns, schema=SCHEMA)]
