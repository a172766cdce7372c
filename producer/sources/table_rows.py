"""The columns of a table that are pixels or labels."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from digitq.producer.sources.objects import find_reader
from digitq.producer.sources.source import Entry, Naming, SourceItem, unreadable
from digitq.producer.sources.truth import ID_NAMES
from digitq.protocol.chunk import PIXELS, pixels_batch
from digitq.protocol.errors import UsageError

NOT_PIXELS = ("", "unnamed: 0", "__index_level_0__", *ID_NAMES)  # pandas writes the first three
NO_PIXEL = "a pixel is missing, or is not a whole number from 0 to 255"
TEXTS = (pa.string(), pa.large_string(), pa.string_view())
NUMBERED = re.compile(r"(.*?)(\d{1,9})")
WHOLE_FLOAT = r"^(-?\d+)\.0*$"  # a number without a fraction, as decimals are written
MAX_WHOLE = 2.0**63  # less than this is an int64


def find_pixels(where: object, schema: pa.Schema, label: str | None) -> list[str]:
    """The names of 784 columns of whole numbers, beside which this one may have labels; none if
    there are no pixels.

    Columns that are named by numbers are in the order of those numbers. Raises `UsageError` if
    785 columns may be pixels.
    """
    whole = [field.name for field in schema if pa.types.is_integer(field.type)]
    if numbered := _find_numbered(schema.names):
        for name in numbered:
            if name not in whole:
                raise UsageError(f"{where} has a column {name} that is not of whole numbers")
        return numbered
    numbers = [name for name in whole if name != label and name.lower() not in NOT_PIXELS]
    if len(numbers) == PIXELS + 1 and label is None:
        raise UsageError(f"{where} has {PIXELS + 1} number columns: name the label column `label`")
    return numbers if len(numbers) == PIXELS else []


def _find_numbered(names: Sequence[str]) -> list[str]:
    """784 of the names, those of a word and consecutive numbers, in that order, or []."""
    groups: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        if match := NUMBERED.fullmatch(name):
            groups[match[1]][int(match[2])] = name
    for group in groups.values():
        if len(group) == PIXELS and max(group) - min(group) == PIXELS - 1:
            return [group[number] for number in sorted(group)]
    return []


def text_columns(schema: pa.Schema) -> list[str]:
    """The names of the columns that may hold labels or ids, as text or numbers; "" for others."""
    are_numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return [
        field.name if kind in TEXTS or any(test(kind) for test in are_numbers) else ""
        for field in schema
        for kind in [plain(field.type)]
    ]


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of a dictionary's values; any other type unchanged."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def build_pixels(
    names: Sequence[str], label: str | None, ids: pa.Array, batch: pa.RecordBatch
) -> Iterator[SourceItem]:
    """Batches of pixels, and an unreadable entry for each row with a number that is not a pixel."""
    values = np.column_stack([_to_numbers(batch.column(name)) for name in names])
    wrong = np.flatnonzero(((values < 0) | (values > 255)).any(axis=1))
    pixels, truth = values.astype(np.uint8), read_labels(batch, label)
    start = 0
    for row in [*wrong.tolist(), len(pixels)]:
        part = slice(start, row)
        if start < row:
            yield pixels_batch(ids[part], pixels[part], truth[part])
        if row < len(pixels):
            yield Entry(ids[row].as_py(), unreadable(NO_PIXEL), truth[row].as_py())
        start = row + 1


def build_entries(
    path: str, label: str | None, folder: str, naming: Naming, ids: pa.Array, batch: pa.RecordBatch
) -> Iterator[Entry]:
    """An image for each row of a batch; `path` and `label` are the names of its columns."""
    truths = read_labels(batch, label).to_pylist()
    files = read_texts(batch.column(path))
    for id, file, truth in zip(ids.to_pylist(), files, truths, strict=True):
        read = find_reader(file, folder) if file.strip() else unreadable("the row has no path")
        if truth is None:
            truth = naming.find_truth(os.path.abspath(os.path.join(folder, file)))
        yield Entry(id, read, truth)


def _to_numbers(column: pa.Array) -> np.ndarray:
    """The whole numbers of a column, −1 for null."""
    if column.null_count:
        column = pc.fill_null(pc.cast(column, pa.int64()), -1)
    return cast(np.ndarray, column.to_numpy())


def read_labels(batch: pa.RecordBatch, label: str | None) -> pa.StringArray:
    """The labels in a column as text, `3` for the number 3.0; null if there is no such column, and
    for an empty text, unless the column is `number`, where it says that nothing is written."""
    if label is None:
        return pa.nulls(batch.num_rows, pa.string())
    texts = pc.utf8_trim_whitespace(_to_text(_decode(batch.column(label))))
    is_missing = pc.and_(pc.equal(texts, ""), label.strip().lower() != "number")
    return pc.if_else(is_missing, None, texts)


def read_texts(column: pa.Array) -> list[str]:
    """The cells of a column as text, `3` for the number 3.0, and "" for null. Bytes that are not
    UTF-8 become surrogates, as in file names."""
    column = _decode(column)
    if not pa.types.is_binary(column.type):
        column = pc.cast(_to_text(column), pa.binary())
    return [(cell or b"").decode(errors="surrogateescape") for cell in column.to_pylist()]


def _to_text(column: pa.Array) -> pa.Array:
    """Text as it is, and numbers as text: `3` for 3.0, and all digits of large ones."""
    texts = pc.cast(column, pa.string())
    if column.type in TEXTS:
        return texts
    if pa.types.is_floating(column.type):
        column = pc.cast(column, pa.float64())
        is_whole = pc.and_(pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), MAX_WHOLE))
        whole = pc.cast(pc.if_else(is_whole, column, None), pa.int64())
        return pc.coalesce(pc.cast(whole, pa.string()), texts)
    return pc.replace_substring_regex(texts, WHOLE_FLOAT, r"\1")


def _decode(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
