"""Tables as a source: Parquet with a column of encoded images, and Parquet or CSV with a column for
each pixel, as Kaggle's MNIST has them."""

import codecs
import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from producer.mnist import number_pieces, pixels_batch
from producer.sources import EmptyError, Entry, Piece, Source, raise_unreadable, too_large
from protocol.chunk import ERROR, ID, IMAGE_FIELD, PIXELS, TRUTH
from protocol.errors import UsageError
from protocol.settings import settings
from protocol.text import plural

SUFFIXES = (".parquet", ".csv")
IMAGE_ROWS, PIXEL_ROWS = 16, 2048  # that are read at a time: images may be large
PARQUET_BYTES = 1 << 20  # of a column that are read at a time: else a row group is, of a gigabyte
CSV_BYTES = 4 << 20  # that are parsed at a time
MOST_COLUMNS = 8192  # of a CSV
MOST_LINES, MOST_LINES_BYTES = 100, 1 << 20  # of one row, in a quoted cell; of one line
MOST_ODD = PIXELS // 10  # columns of pixels that have odd cells: else they are no pixels
LABELS = ("label", "class", "target", "digit", "y")  # beside pixels
INDEX = ("", "unnamed: 0", "__index_level_0__", "id")  # the first three are pandas'
SHOWN, SHOWN_LENGTH = 8, 40  # names of columns, and characters of each
ELSEWHERE = "no image in this row, but the path of one: embed its bytes in the table"
NO_PIXEL = "a pixel is missing, or no whole number from 0 to 255"
TEXTS = (pa.string(), pa.large_string(), pa.string_view())
BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())
NUMBERED = re.compile(r"(.*?)(\d{1,9})")
NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?|nan?", re.ASCII | re.IGNORECASE)
SMALL_NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)
POINT_ZERO = re.compile(r"\.0*$")


class PixelColumns(NamedTuple):
    """Which columns of a table are what, by their places."""

    pixels: Sequence[int]
    label: int | None


Build = Callable[
    [pa.Array, pa.RecordBatch], Iterable[Piece]
]  # of ids, and of rows as they are read


def table_source(path: Path, prefix: str) -> Source:
    """The images of a table; an id is its row's number.

    The image column is the one called `image` or the only one that can be one: bytes, or a struct
    with `bytes`, as Hugging Face's data sets have it. Else 784 columns of whole numbers are pixels,
    row by row. A column of labels, numbers or text, is the truth, where it is a digit. Raises
    `UsageError` where there are no such columns.
    """
    try:
        return _open_csv(path, prefix) if path.suffix.lower() == ".csv" else _open(path, prefix)
    except (OSError, UnicodeError, csv.Error, pa.ArrowException) as error:
        raise UsageError(f"can't read {path}: {error}") from None


def _open(path: Path, prefix: str) -> Source:
    file = pq.ParquetFile(path, buffer_size=PARQUET_BYTES, pre_buffer=False)
    if not file.metadata.num_rows:
        raise EmptyError(f"no image in {path}: it has no rows")
    schema = file.schema_arrow
    build: Build
    if not any(map(_may_be_image, schema)) and (found := _find_pixels(path, schema)):
        columns, rows, build = schema.names, PIXEL_ROWS, partial(_build_pixels, found)
        has_truth = found.label is not None
    else:
        image, place = _find_image(path, schema), _find_label(path, schema, ["label"])
        label = None if place is None else str(schema.names[place])
        columns, has_truth = [image] if label is None else [image, label], label is not None
        rows, build = IMAGE_ROWS, partial(_build_images, image, label)
    batches, count = _read_groups(file, rows, columns), file.metadata.num_rows
    return Source(str(path), number_pieces(batches, prefix, build), has_truth, lambda: count)


def _read_groups(
    file: pq.ParquetFile, rows: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Batches of so many rows. Raises `EOFError` where a row group has less than it says: Arrow
    passes over a damaged page without a word, and what follows would get its rows' numbers."""
    for group in range(file.num_row_groups):
        missing = file.metadata.row_group(group).num_rows
        for batch in file.iter_batches(rows, [group], columns):
            missing -= batch.num_rows
            yield batch
        if missing:
            raise EOFError(f"{plural(missing, 'row')} missing")


def _open_csv(path: Path, prefix: str) -> Source:
    with open(path, "rb") as file:
        sample = file.read(CSV_BYTES)
    all_read = len(sample) < CSV_BYTES
    if not all_read and b"\r" in sample and b"\n" not in sample:  # it is cut at line feeds
        raise UsageError(rf"{path} ends its lines with \r alone: `tr '\r' '\n'` mends that")
    sample = sample.removeprefix(codecs.BOM_UTF8)
    lines = sample.splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    cells = next(csv.reader([line.decode(errors="replace") for line in lines[first:]]), [])
    cells = [cell.strip() for cell in cells]
    if len(cells) > MOST_COLUMNS:  # of each, Arrow takes 14 kB
        raise UsageError(f"{path} has over {MOST_COLUMNS:,} columns; {PIXELS} of pixels are needed")
    named = _are_names(cells)
    names = cells if named else [str(place) for place in range(len(cells))]
    rows = lines[first + named : len(lines) if all_read or len(lines) == 1 else -1]
    try:
        table = _parse_sample(b"".join(rows), names, lines_in_cells=True)
    except pa.ArrowInvalid:  # a stray quote
        table = _parse_sample(b"".join(rows), names, lines_in_cells=False)
    if not table.num_rows:
        raise EmptyError(f"no image in {path}: it has no rows of as many cells as its first line")
    schema = table.schema
    found = _find_pixels(path, schema, named, MOST_ODD)
    if not found:
        raise UsageError(
            f"{path} has no {PIXELS} columns of whole numbers that may be pixels, separated by "
            f"commas; its columns: {_list(schema)}"
        )
    skipped = sum(map(len, lines[: first + named]))
    parts = (_parse_csv(block, schema, found) for block in _read_blocks(path, skipped))
    label = None if found.label is None else PIXELS
    pieces = number_pieces(
        parts, prefix, partial(_build_pixels, PixelColumns(range(PIXELS), label))
    )
    return Source(str(path), pieces, label is not None)


def _parse_sample(sample: bytes, names: Sequence[str], lines_in_cells: bool) -> pa.Table:
    """The first rows, to see what columns there are."""
    return pyarrow.csv.read_csv(
        pa.BufferReader(sample.decode(errors="replace").encode()),  # else a row may stop Arrow
        pyarrow.csv.ReadOptions(column_names=names),
        pyarrow.csv.ParseOptions(
            newlines_in_values=lines_in_cells, invalid_row_handler=lambda row: "skip"
        ),
    )


def _are_names(cells: Sequence[str]) -> bool:
    """Whether a first line names columns: most are text, or most differ, as in `label,0,1,…,783`.
    (Of 784 pixels at most 256 do.)"""
    texts = sum(not NUMBER.fullmatch(cell) for cell in cells if cell)
    return 2 * texts > len(cells) or 2 * len(set(cells)) > len(cells)


def _read_blocks(path: Path, skipped: int) -> Iterator[bytes]:
    """Whole rows of a file, many at a time, after so many bytes: a quoted cell may have lines."""
    with open(path, "rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        file.seek(skipped, os.SEEK_CUR)
        read_line = partial(file.readline, MOST_LINES_BYTES)
        while block := file.read(CSV_BYTES):
            parts = [block, read_line()]
            end = file.tell() + MOST_LINES_BYTES
            open_quotes = sum(part.count(b'"') for part in parts)
            while open_quotes % 2 and file.tell() < end and (line := read_line()):
                open_quotes += line.count(b'"')
                parts.append(line)
            yield b"".join(parts)


def _parse_csv(block: bytes, schema: pa.Schema, found: PixelColumns) -> pa.RecordBatch:
    """Columns of pixels, and of labels where there are some. What is no number is null."""
    names = [str(place) for place in range(len(schema))]  # no two alike
    types = {str(place): pa.int64() for place in found.pixels}
    if found.label is not None:
        types[str(found.label)] = schema.field(found.label).type
    try:
        if block.count(b'"') % 2:  # a stray one: what follows it would be one cell
            raise pa.ArrowInvalid("an open quote")
        table = pyarrow.csv.read_csv(
            pa.BufferReader(block),
            pyarrow.csv.ReadOptions(use_threads=False, column_names=names),
            pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types, include_columns=[*types], strings_can_be_null=True
            ),
        )
        return table.combine_chunks().to_batches()[0]
    except (pa.ArrowInvalid, IndexError):  # the latter where there is no row
        pass
    rows = []
    for cells in _split_rows(block.splitlines(keepends=True), len(schema)):
        whole = len(cells) == len(schema)
        rows.append([cells[int(name)].strip() if whole else "" for name in types])
    columns = [*zip(*rows, strict=True)] or [()] * len(types)
    arrays = [
        pa.array(column if kind in TEXTS else [_to_number(cell, kind) for cell in column], kind)
        for column, kind in zip(columns, types.values(), strict=True)
    ]
    return pa.record_batch(arrays, names=[*types])


def _split_rows(lines: Sequence[bytes], width: int) -> Iterator[list[str]]:
    """The cells of each row. A stray quote is its line's alone."""
    start = 0
    while start < len(lines):
        row, end = lines[start], start + 1
        while row.count(b'"') % 2 and end < min(start + MOST_LINES, len(lines)):
            row, end = row + lines[end], end + 1
        if len(cells := _split(row)) != width or row.count(b'"') % 2:
            cells, end = _split(lines[start]), start + 1
        if lines[start].strip():
            yield cells
        start = end


def _split(row: bytes) -> list[str]:
    """A row's cells; none where it is no CSV."""
    try:
        return next(csv.reader([row.decode(errors="replace")]), [])
    except csv.Error:
        return []


def _to_number(cell: str, kind: pa.DataType) -> int | None:
    """A whole number; of what need not be one, as a label, 3.0 too."""
    whole = POINT_ZERO.sub("", cell) if _is_broken(kind) else cell
    return int(whole) if SMALL_NUMBER.fullmatch(whole) else None


def _find_image(path: Path, schema: pa.Schema) -> str:
    """The name of the column. Raises `UsageError`."""
    images = [field.name for field in schema if _may_be_image(field)]
    if not images:
        raise UsageError(
            f"{path} has no image column (bytes, or a struct with `bytes`), nor {PIXELS} of "
            f"pixels; its columns: {_list(schema)}"
        )
    if len(images) > 1 and images.count("image") != 1:
        raise UsageError(
            f"{path} has several columns that may hold images: {', '.join(images)}; "
            "name the one to classify `image`"
        )
    return "image" if "image" in images else str(images[0])


def _find_pixels(
    path: Path, schema: pa.Schema, named: bool = True, most_odd: int = 0
) -> PixelColumns | None:
    """784 columns of whole numbers, in the order of the numbers that they are named by, if they
    are, and the one of labels. Raises `UsageError` where it may be any of 785."""
    if not named:
        return _find_by_place(schema, most_odd)
    label = _find_label(path, schema, LABELS)
    if numbered := _find_numbered(schema.names):
        odd = [place for place in numbered if not pa.types.is_integer(schema.field(place).type)]
        if len(odd) > most_odd:
            raise UsageError(
                f"{path} has a column {schema.names[odd[0]]} in which not all are whole numbers"
            )
        return PixelColumns(numbered, label)
    numbers = [
        place
        for place, field in enumerate(schema)
        if place != label and field.name.lower() not in INDEX and pa.types.is_integer(field.type)
    ]
    if len(numbers) == PIXELS + 1 and label is None:
        raise UsageError(
            f"{path} has {PIXELS + 1} columns of numbers: name the one of labels `label`"
        )
    return PixelColumns(numbers, label) if len(numbers) == PIXELS else None


def _find_by_place(schema: pa.Schema, most_odd: int) -> PixelColumns | None:
    """The same of columns without names: 784, or 785 of which the first is of labels, beside text
    and empty ones before and after them."""
    places = [*range(len(schema))]
    is_void = [kind in TEXTS or pa.types.is_null(kind) for kind in schema.types]
    for end in (0, -1):
        while places and is_void[places[end]]:
            places.pop(end)
    pixels = places[-PIXELS:]
    odd = [place for place in pixels if not pa.types.is_integer(schema.field(place).type)]
    if not PIXELS <= len(places) <= PIXELS + 1 or len(odd) > most_odd:
        return None
    return PixelColumns(pixels, places[0] if len(places) > PIXELS else None)


def _find_numbered(names: Sequence[str]) -> list[int]:
    """The places of 784 columns named by one word and the numbers from 0 or 1 on, in their order;
    none where there are no such."""
    groups: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for place, name in enumerate(names):
        if match := NUMBERED.fullmatch(name):
            groups[match[1]][int(match[2])] = place
    for places in groups.values():
        if len(places) == PIXELS and max(places) - min(places) == PIXELS - 1:
            return [places[number] for number in sorted(places)]
    return []


def _find_label(path: Path, schema: pa.Schema, names: Sequence[str]) -> int | None:
    """The place of the column with the truth, where there is one. Raises `UsageError` for more."""
    places = [
        place
        for place, field in enumerate(schema)
        if field.name.lower() in names and _may_be_label(field.type)
    ]
    if len(places) > 1:
        several = ", ".join(schema.names[place] for place in places)
        raise UsageError(f"{path} has several columns that may be labels: {several}")
    return places[0] if places else None


def _list(schema: pa.Schema) -> str:
    names = [
        name if len(name) <= SHOWN_LENGTH else f"{name[:SHOWN_LENGTH]}…"
        for name in schema.names[:SHOWN]
    ]
    return ", ".join(names) + ", …" * (len(schema.names) > SHOWN)


def _may_be_image(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _plain(kind.field("bytes").type) in BYTES
    return _plain(kind) in BYTES


def _may_be_label(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    return bool(pa.types.is_integer(kind)) or _is_broken(kind) or kind in TEXTS


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of a dictionary's values; any other as it is."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_broken(kind: pa.DataType) -> bool:
    """Whether its numbers need not be whole."""
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _build_pixels(found: PixelColumns, ids: pa.Array, batch: pa.RecordBatch) -> Iterator[Piece]:
    """Batches of pixels, and for a row that has other numbers, an image that can't be read."""
    columns = [batch.column(place) for place in found.pixels]
    values = np.column_stack([_to_numbers(column) for column in columns])
    wrong = ((values < 0) | (values > 255)).any(axis=1)
    pixels = values.astype(np.uint8)
    label = found.label
    truth = None if label is None else _digits(batch.column(label))
    start = 0
    for row in [*np.flatnonzero(wrong).tolist(), len(pixels)]:
        part = slice(start, row)
        if start < row:
            yield pixels_batch(ids[part], pixels[part], None if truth is None else truth[part])
        if row < len(pixels):
            answer = None if truth is None else truth[row].as_py()
            yield Entry(ids[row].as_py(), partial(raise_unreadable, NO_PIXEL), answer)
        start = row + 1


def _to_numbers(column: pa.Array) -> np.ndarray:
    """−1 where there is none."""
    if column.null_count:
        column = pc.fill_null(pc.cast(column, pa.int64()), -1)
    numbers: np.ndarray = column.to_numpy()
    return numbers


def _build_images(
    image: str, label: str | None, ids: pa.Array, batch: pa.RecordBatch
) -> Iterator[Piece]:
    """A batch of files; one over `DIGITQ_IMAGE_BYTES` is null and has an error."""
    images = column = batch.column(image)
    if pa.types.is_struct(column.type):
        images = pc.struct_field(column, "bytes")
    images = pc.cast(images, pa.binary())
    limit = settings().image_bytes
    large = pc.fill_null(pc.greater(pc.binary_length(images), limit), False)
    errors = pc.if_else(large, too_large(limit), pa.scalar(None, pa.string()))
    if pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0:
        is_elsewhere = pc.and_(images.is_null(), pc.struct_field(column, "path").is_valid())
        errors = pc.if_else(is_elsewhere, ELSEWHERE, errors)
    columns = [ids, pc.if_else(large, None, images), errors]
    if label is None:
        yield pa.record_batch(columns, schema=pa.schema([ID, IMAGE_FIELD, ERROR]))
    else:
        columns.append(_digits(batch.column(label)))
        yield pa.record_batch(columns, schema=pa.schema([ID, IMAGE_FIELD, ERROR, TRUTH]))


def _digits(labels: pa.Array) -> pa.Array:
    """The labels that are digits, as numbers or as text; null for any other."""
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    if _is_broken(labels.type):
        labels = pc.cast(labels, pa.float64())
    if labels.type in TEXTS:
        labels = pc.cast(labels, pa.string())  # of views, index_in knows nothing
    digits = pa.array("0123456789" if labels.type in TEXTS else range(10), labels.type)
    return pc.cast(pc.index_in(labels, digits), pa.int8())
