"""Parquet files with a column of encoded images, or with a column for each pixel."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from producer.sources.batches import number_pieces
from producer.sources.columns import (
    Build,
    build_pixels,
    digits,
    find_image,
    find_label,
    find_pixels,
    may_be_image,
)
from producer.sources.source import EmptyError, Source, SourceItem, too_large
from protocol.chunk import ERROR, ID, IMAGE_FIELD, TRUTH
from protocol.settings import settings
from protocol.text import plural

IMAGE_ROWS = 16  # rows read at a time if they hold image files, which may be large
PIXEL_ROWS = 2048  # rows read at a time if they hold pixels
PARQUET_BYTES = 1 << 20  # one read of a column; without it, a row group of a gigabyte is read
PATH_ONLY = "the row has the path of an image, not its bytes: embed the bytes in the table"


def parquet_source(path: Path, prefix: str) -> Source:
    """The images of a Parquet file; an id is the number of its row. Raises as `table_source`."""
    file = pq.ParquetFile(path, buffer_size=PARQUET_BYTES, pre_buffer=False)
    if not file.metadata.num_rows:
        raise EmptyError(f"no image in {path}: it has no rows")
    schema = file.schema_arrow
    build: Build
    if not any(map(may_be_image, schema)) and (found := find_pixels(path, schema)):
        columns, rows, build = schema.names, PIXEL_ROWS, partial(build_pixels, found)
        has_truth = found.label is not None
    else:
        image, place = find_image(path, schema), find_label(path, schema, ["label"])
        label = None if place is None else str(schema.names[place])
        columns, has_truth = [image] if label is None else [image, label], label is not None
        rows, build = IMAGE_ROWS, partial(_build_images, image, label)
    batches, count = _read_groups(file, rows, columns), file.metadata.num_rows
    return Source(str(path), number_pieces(batches, prefix, build), has_truth, lambda: count)


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
) -> Iterator[SourceItem]:
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
    columns = [ids, pc.if_else(large, None, images), errors]
    if label is None:
        yield pa.record_batch(columns, schema=pa.schema([ID, IMAGE_FIELD, ERROR]))
    else:
        columns.append(digits(batch.column(label)))
        yield pa.record_batch(columns, schema=pa.schema([ID, IMAGE_FIELD, ERROR, TRUTH]))
