"""Parquet files with a column of encoded images as a source."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from producer.mnist import number_ids
from producer.sources import Entry, Piece, Source, raise_unreadable, too_large
from protocol.chunk import ERROR, ID, IMAGE_FIELD, TRUTH
from protocol.errors import UsageError
from protocol.settings import settings

READ_ROWS = 16  # images may be large
SHOWN = 8  # names of columns


def parquet_source(path: Path, prefix: str) -> Source:
    """The images of a Parquet file; an id is its row's number.

    The image column is the one called `image` or the only one that can be one: bytes, or a struct
    with `bytes`, as Hugging Face's data sets have it. A column `label` of numbers or text is the
    truth, where it is a digit. Raises `UsageError` where there is no such column.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, UnicodeError, pa.ArrowException) as error:
        raise UsageError(f"can't read {path}: {error}") from None
    schema = file.schema_arrow
    images = [field.name for field in schema if _may_be_image(field)]
    if not images:
        raise UsageError(
            f"{path} has no image column (bytes, or a struct with `bytes`); "
            f"its columns: {', '.join(schema.names[:SHOWN])}{', …' * (len(schema.names) > SHOWN)}"
        )
    if len(images) > 1 and "image" not in images:
        raise UsageError(
            f"{path} has several columns that may hold images: {', '.join(images)}; "
            "name the one to classify `image`"
        )
    if not file.metadata.num_rows:
        raise UsageError(f"no image in {path}: it has no rows")
    label = schema.get_field_index("label")
    has_truth = label >= 0 and _may_be_label(schema.field(label).type)
    return Source(
        str(path),
        _batches(file, prefix, "image" if "image" in images else images[0], has_truth),
        has_truth,
        count=lambda: file.metadata.num_rows,
    )


def _may_be_image(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)


def _may_be_label(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_number = pa.types.is_integer(kind) or kind in (pa.float32(), pa.float64())
    return is_number or _is_text(kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _batches(file: pq.ParquetFile, prefix: str, column: str, has_truth: bool) -> Iterator[Piece]:
    start = 0
    columns = [column, "label"] if has_truth else [column]
    try:
        for batch in file.iter_batches(batch_size=READ_ROWS, columns=columns):
            ids = number_ids(prefix, start, batch.num_rows)
            truth = _digits(batch.column("label")) if has_truth else None
            yield _build_batch(ids, batch.column(column), truth)
            start += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        reason = f"the file is damaged from here on: {error}".partition("\n")[0]
        yield Entry(f"{prefix}{start}", lambda: raise_unreadable(reason))


def _build_batch(ids: pa.Array, images: pa.Array, truth: pa.Array | None) -> pa.RecordBatch:
    """The chunk's columns; an image over `DIGITQ_IMAGE_BYTES` is null and has an error."""
    if pa.types.is_struct(images.type):
        images = pc.struct_field(images, "bytes")
    images = pc.cast(images, pa.binary())
    limit = settings().image_bytes
    large = pc.fill_null(pc.greater(pc.binary_length(images), limit), False)
    columns = [
        ids,
        pc.if_else(large, None, images),
        pc.if_else(large, too_large(limit), pa.scalar(None, pa.string())),
    ]
    if truth is None:
        return pa.record_batch(columns, schema=pa.schema([ID, IMAGE_FIELD, ERROR]))
    return pa.record_batch([*columns, truth], schema=pa.schema([ID, IMAGE_FIELD, ERROR, TRUTH]))


def _digits(labels: pa.Array) -> pa.Array:
    """The labels that are digits, as numbers or as text; null for any other."""
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    digits = pa.array("0123456789" if _is_text(labels.type) else range(10), labels.type)
    return pc.cast(pc.index_in(labels, digits), pa.int8())
