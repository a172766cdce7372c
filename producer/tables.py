"""Parquet files with a column of encoded images as a source."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from producer.mnist import number_ids
from producer.sources import Source
from protocol.chunk import ID, IMAGE_FIELD, TRUTH
from protocol.errors import UsageError

READ_ROWS = 256  # images may be large


def parquet_source(path: Path, prefix: str) -> Source:
    """The images of a Parquet file; an id is its row's number.

    The image column is the one called `image` or the first that can be one: bytes, or a struct
    with `bytes`, as Hugging Face's data sets have it. An integer column `label` is the truth.
    Raises `UsageError` where there is no such column.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"can't read {path}: {error}") from None
    schema = file.schema_arrow
    images = sorted((f for f in schema if _may_be_image(f)), key=lambda f: f.name != "image")
    if not images:
        raise UsageError(
            f"{path} has no image column (bytes, or a struct with `bytes`); "
            f"its columns: {', '.join(schema.names)}"
        )
    label = schema.get_field_index("label")
    has_truth = label >= 0 and pa.types.is_integer(schema.field(label).type)
    return Source(
        str(path),
        _batches(file, prefix, images[0].name, has_truth),
        has_truth,
        count=lambda: file.metadata.num_rows,
    )


def _may_be_image(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _batches(
    file: pq.ParquetFile, prefix: str, column: str, has_truth: bool
) -> Iterator[pa.RecordBatch]:
    start = 0
    columns = [column, "label"] if has_truth else [column]
    for batch in file.iter_batches(batch_size=READ_ROWS, columns=columns):
        images = batch.column(column)
        if pa.types.is_struct(images.type):
            images = pc.struct_field(images, "bytes")
        arrays = [number_ids(prefix, start, batch.num_rows), pc.cast(images, pa.binary())]
        fields = [ID, IMAGE_FIELD]
        if has_truth:
            digits = batch.column("label")
            known = pc.and_(pc.greater_equal(digits, 0), pc.less(digits, 10))
            arrays.append(pc.cast(pc.if_else(known, digits, None), pa.int8()))
            fields.append(TRUTH)
        yield pa.record_batch(arrays, schema=pa.schema(fields))
        start += batch.num_rows
