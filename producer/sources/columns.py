"""Which columns of a table are images, pixels or labels."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from producer.sources.batches import pixels_batch
from producer.sources.source import Entry, SourceItem, raise_unreadable
from protocol.chunk import PIXELS
from protocol.errors import UsageError

LABELS = ("label", "class", "target", "digit", "y")  # beside pixels
INDEX = ("", "unnamed: 0", "__index_level_0__", "id")  # the first three are pandas'
SHOWN, SHOWN_LENGTH = 8, 40  # names of columns, and characters of each
NO_PIXEL = "a pixel is missing, or no whole number from 0 to 255"
TEXTS = (pa.string(), pa.large_string(), pa.string_view())
BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())
NUMBERED = re.compile(r"(.*?)(\d{1,9})")
Build = Callable[
    [pa.Array, pa.RecordBatch], Iterable[SourceItem]
]  # of ids, and of rows as they are read


class PixelColumns(NamedTuple):
    """Which columns of a table are what, by their places."""

    pixels: Sequence[int]
    label: int | None


def find_image(path: Path, schema: pa.Schema) -> str:
    """The name of the column. Raises `UsageError`."""
    images = [field.name for field in schema if may_be_image(field)]
    if not images:
        raise UsageError(
            f"{path} has no image column (bytes, or a struct with `bytes`), nor {PIXELS} of "
            f"pixels; its columns: {list_columns(schema)}"
        )
    if len(images) > 1 and images.count("image") != 1:
        raise UsageError(
            f"{path} has several columns that may hold images: {', '.join(images)}; "
            "name the one to classify `image`"
        )
    return "image" if "image" in images else str(images[0])


def find_pixels(
    path: Path, schema: pa.Schema, named: bool = True, most_odd: int = 0
) -> PixelColumns | None:
    """784 columns of whole numbers, in the order of the numbers that they are named by, if they
    are, and the one of labels. Raises `UsageError` where it may be any of 785."""
    if not named:
        return _find_by_place(schema, most_odd)
    label = find_label(path, schema, LABELS)
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


def find_label(path: Path, schema: pa.Schema, names: Sequence[str]) -> int | None:
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


def list_columns(schema: pa.Schema) -> str:
    names = [
        name if len(name) <= SHOWN_LENGTH else f"{name[:SHOWN_LENGTH]}…"
        for name in schema.names[:SHOWN]
    ]
    return ", ".join(names) + ", …" * (len(schema.names) > SHOWN)


def may_be_image(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _plain(kind.field("bytes").type) in BYTES
    return _plain(kind) in BYTES


def _may_be_label(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    return bool(pa.types.is_integer(kind)) or is_broken(kind) or kind in TEXTS


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of a dictionary's values; any other as it is."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_broken(kind: pa.DataType) -> bool:
    """Whether its numbers need not be whole."""
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def build_pixels(found: PixelColumns, ids: pa.Array, batch: pa.RecordBatch) -> Iterator[SourceItem]:
    """Batches of pixels, and for a row that has other numbers, an image that can't be read."""
    columns = [batch.column(place) for place in found.pixels]
    values = np.column_stack([_to_numbers(column) for column in columns])
    wrong = ((values < 0) | (values > 255)).any(axis=1)
    pixels = values.astype(np.uint8)
    label = found.label
    truth = None if label is None else digits(batch.column(label))
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


def digits(labels: pa.Array) -> pa.Array:
    """The labels that are digits, as numbers or as text; null for any other."""
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    if is_broken(labels.type):
        labels = pc.cast(labels, pa.float64())
    if labels.type in TEXTS:
        labels = pc.utf8_trim_whitespace(pc.cast(labels, pa.string()))
        labels = pc.replace_substring_regex(labels, r"\.0*$", "")
    digits = pa.array("0123456789" if labels.type in TEXTS else range(10), labels.type)
    return pc.cast(pc.index_in(labels, digits), pa.int8())
