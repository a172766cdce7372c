"""Tables as a source: Parquet with a column of encoded images, and Parquet or CSV with one of each
pixel, as Kaggle's MNIST and EMNIST have them."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from producer.mnist import PIECE_ROWS, number_ids, pixels_batch
from producer.sources import Entry, Piece, Source, raise_unreadable, too_large
from protocol.chunk import ERROR, ID, IMAGE_FIELD, PIXELS, TRUTH
from protocol.errors import UsageError
from protocol.settings import settings

SUFFIXES = (".parquet", ".csv")
READ_ROWS = 16  # images may be large
CSV_BYTES = 4 << 20  # that are parsed at a time
SHOWN = 8  # names of columns
Build = Callable[[pa.Array, pa.RecordBatch], pa.RecordBatch]  # of ids and rows as they are read


def table_source(path: Path, prefix: str) -> Source:
    """The images of a table; an id is its row's number.

    The image column is the one called `image` or the only one that can be one: bytes, or a struct
    with `bytes`, as Hugging Face's data sets have it. Else 784 columns of numbers are pixels, row
    by row. A column `label` of numbers or text is the truth, where it is a digit; so is the first
    of 785 of numbers. Raises `UsageError` where there are no such columns.
    """
    try:
        return (
            _csv_source(path, prefix) if path.suffix.lower() == ".csv" else _parquet(path, prefix)
        )
    except (OSError, UnicodeError, pa.ArrowException) as error:
        raise UsageError(f"can't read {path}: {error}") from None


def _parquet(path: Path, prefix: str) -> Source:
    file = pq.ParquetFile(path)
    if not file.metadata.num_rows:
        raise UsageError(f"no image in {path}: it has no rows")
    schema = file.schema_arrow
    if _find_pixels(schema):
        build, rows, columns = _build_pixels(schema), PIECE_ROWS, schema.names
    else:
        image, label = _find_image(path, schema), _find_label(schema)
        columns = [image] + ([label] if label else [])
        build, rows = _build_images(image, label), READ_ROWS
    batches = file.iter_batches(batch_size=rows, columns=columns)
    has_truth = _find_label(schema) is not None
    return Source(
        str(path), _pieces(batches, prefix, build), has_truth, lambda: file.metadata.num_rows
    )


def _csv_source(path: Path, prefix: str) -> Source:
    with open(path, "rb") as file:
        first = file.readline().split(b",")
    has_names = not first[-1].strip().isdigit()
    reader = pyarrow.csv.open_csv(
        path,
        pyarrow.csv.ReadOptions(block_size=CSV_BYTES, autogenerate_column_names=not has_names),
    )
    if not _find_pixels(reader.schema):
        raise UsageError(
            f"{path} has no {PIXELS} columns of numbers that may be pixels; "
            f"its columns: {_list(reader.schema)}"
        )
    batches = _pieces(reader, prefix, _build_pixels(reader.schema))
    return Source(str(path), batches, _find_label(reader.schema) is not None)


def _find_image(path: Path, schema: pa.Schema) -> str:
    """The name of the column. Raises `UsageError`."""
    images = [field.name for field in schema if _may_be_image(field)]
    if not images:
        raise UsageError(
            f"{path} has no image column (bytes, or a struct with `bytes`), nor {PIXELS} of "
            f"pixels; its columns: {_list(schema)}"
        )
    if len(images) > 1 and "image" not in images:
        raise UsageError(
            f"{path} has several columns that may hold images: {', '.join(images)}; "
            "name the one to classify `image`"
        )
    return "image" if "image" in images else str(images[0])


def _list(schema: pa.Schema) -> str:
    return ", ".join(schema.names[:SHOWN]) + ", …" * (len(schema.names) > SHOWN)


def _find_pixels(schema: pa.Schema) -> list[int]:
    """Which columns are pixels, by their place; none where there are not 784 of numbers."""
    label = _find_label(schema)
    numbers = [
        place
        for place, field in enumerate(schema)
        if field.name != label and pa.types.is_integer(field.type)
    ]
    return numbers if len(numbers) == PIXELS else []


def _find_label(schema: pa.Schema) -> str | None:
    """The name of the column with the truth, where there is one."""
    if "label" in schema.names:
        return "label" if _may_be_label(schema.field("label").type) else None
    alike = len(schema) == PIXELS + 1 and all(pa.types.is_integer(kind) for kind in schema.types)
    return str(schema.names[0]) if alike else None


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


def _pieces(batches: Iterable[pa.RecordBatch], prefix: str, build: Build) -> Iterator[Piece]:
    start = 0
    try:
        for batch in batches:
            yield build(number_ids(prefix, start, batch.num_rows), batch)
            start += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        reason = f"the file is damaged from here on: {error}".partition("\n")[0]
        yield Entry(f"{prefix}{start}", lambda: raise_unreadable(reason))


def _build_pixels(schema: pa.Schema) -> Build:
    """Batches of pixels, from 784 columns of 0..255."""
    places, label = _find_pixels(schema), _find_label(schema)

    def build(ids: pa.Array, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = [pc.cast(batch.column(place), pa.uint8()) for place in places]
        if any(column.null_count for column in columns):
            raise pa.ArrowInvalid("a pixel is missing")
        pixels = np.column_stack([column.to_numpy() for column in columns])
        return pixels_batch(ids, pixels, _digits(batch.column(label)) if label else None)

    return build


def _build_images(image: str, label: str | None) -> Build:
    """Batches of files; one over `DIGITQ_IMAGE_BYTES` is null and has an error."""

    def build(ids: pa.Array, batch: pa.RecordBatch) -> pa.RecordBatch:
        images = batch.column(image)
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
        if label is None:
            return pa.record_batch(columns, schema=pa.schema([ID, IMAGE_FIELD, ERROR]))
        columns.append(_digits(batch.column(label)))
        return pa.record_batch(columns, schema=pa.schema([ID, IMAGE_FIELD, ERROR, TRUTH]))

    return build


def _digits(labels: pa.Array) -> pa.Array:
    """The labels that are digits, as numbers or as text; null for any other."""
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    digits = pa.array("0123456789" if _is_text(labels.type) else range(10), labels.type)
    return pc.cast(pc.index_in(labels, digits), pa.int8())
