"""Record batches of 28×28 images, with ids made of row numbers."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from producer.sources.source import SourceItem, unreadable_entry
from protocol.chunk import ID, PIXELS, PIXELS_FIELD, TRUTH

PIECE_ROWS = 16384  # images in one record batch
Build: TypeAlias = Callable[[pa.Array, Any], Iterable[SourceItem]]  # from ids and rows


def label_batches(prefix: str, images: np.ndarray, labels: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Images (N, 784) with their labels (N,), under the ids `<prefix>0`, `<prefix>1` …"""
    for start in range(0, len(images), PIECE_ROWS):
        pixels = images[start : start + PIECE_ROWS]
        truth = pa.array(labels[start : start + PIECE_ROWS].astype(np.int8))
        yield pixels_batch(number_ids(prefix, start, len(pixels)), pixels, truth)


def number_pieces(parts: Iterable[Any], prefix: str, build: Build) -> Iterator[SourceItem]:
    """What `build` makes of the ids and rows of each part of a file. If the file is damaged, the
    last item is an entry that can't be read."""
    start = 0
    try:
        for part in parts:
            yield from build(number_ids(prefix, start, len(part)), part)
            start += len(part)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        reason = f"the file is damaged from here on: {error}".partition("\n")[0]
        yield unreadable_entry(f"{prefix}{start}", reason)


def number_ids(prefix: str, start: int, rows: int) -> pa.Array:
    """The ids `<prefix><start>`, `<prefix><start + 1>` …"""
    numbers = pc.cast(pa.array(np.arange(start, start + rows)), pa.string())
    return pc.binary_join_element_wise(pa.scalar(prefix), numbers, "")


def pixels_batch(
    ids: pa.Array, pixels: np.ndarray, truth: pa.Array | None = None
) -> pa.RecordBatch:
    """A record batch that shares the memory of `pixels`, (N, 784) uint8; `truth` is int8 (N,)."""
    buffer = pa.py_buffer(np.ascontiguousarray(pixels))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(PIXELS), len(pixels), [None, buffer])
    columns = [ids, column] if truth is None else [ids, column, truth]
    return pa.record_batch(columns, schema=pa.schema([ID, PIXELS_FIELD, TRUTH][: len(columns)]))
