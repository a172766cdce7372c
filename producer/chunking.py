"""Cuts batches of images into chunks, at limits of rows and bytes."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from digitq.protocol.asked.form import Cell
from digitq.protocol.chunk import (
    ERROR,
    ID,
    PLACE,
    TILE_ROWS,
    TRUTH,
    Chunk,
    Kind,
    kind_of,
    untimed_rows,
)
from digitq.protocol.settings import settings

CHUNK_SECONDS = 0.2  # how long a worker may take for a chunk; single calls may have to wait for it
PENDING_SECONDS = 1.0  # images that have waited for others this long become a chunk
CHUNK_SHARE = 32  # a later chunk has at most 1/32 as many images as came before it
UNTIMED_SHARE = 8  # while the pace of files is unknown, it has at most 1/8 as many


def cut_chunks(
    batches: Iterable[pa.RecordBatch],
    model: str = "",
    cells: Sequence[Cell] = (),
    first_row: int = 0,
    ask_pace: Callable[[Kind], float] = lambda kind: 0.0,
) -> Iterator[Chunk]:
    """Cut batches of images into chunks, of which the first one begins with this row of the job.

    A chunk has at most `DIGITQ_CHUNK_ROWS` images and `DIGITQ_CHUNK_BYTES` bytes, unless one image
    is larger. It takes a worker about `CHUNK_SECONDS`: `ask_pace` gives the seconds for one image
    of a kind, 0 if unknown. With the `cells` of a form, each image is a page and becomes a row for
    each cell, all in one chunk. Raises what the batches raise, after the chunks of everything
    before it.
    """
    usual, rows = untimed_rows(model), max(1, len(cells))
    failure: list[Exception] = []

    def until_failure() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except Exception as error:
            failure.append(error)

    def max_images(kind: Kind, before: int) -> int:
        return max(1, _max_rows(kind, before * rows, usual, ask_pace(kind)) // rows)

    for batch in _cut(until_failure(), max_images):
        truth = None
        if TRUTH.name in batch.schema.names:
            truth, batch = batch.column(TRUTH.name), batch.drop_columns([TRUTH.name])
        if cells:
            batch, truth = _split_pages(batch, cells), truth if truth is None else truth.flatten()
        yield Chunk(first_row, batch, truth)
        first_row += batch.num_rows
    if failure:
        raise failure[0]


# How many images of a kind a chunk may have: this many even if they take long; at most this many
# among the first chunks, so that small jobs use all workers; and only multiples of this, unless the
# settings allow fewer. 128 is the smallest tile of a network.
BOUNDS: dict[Kind, tuple[int, int, int]] = {"pixels": (128, TILE_ROWS, 128), "image": (32, 512, 1)}
MAX_FILES = 2048  # a chunk has at most this many files: if the last were fast, the next may be slow


def _max_rows(kind: Kind, before: int, usual: int, pace: float) -> int:
    """How many images the next chunk may hold, after `before` images of its kind. One image takes
    `pace` seconds; if this is 0, about `usual` images take `CHUNK_SECONDS`."""
    minimum, first, multiple = BOUNDS[kind]
    if pace:
        timely = int(CHUNK_SECONDS / pace)
    else:
        timely = usual if kind == "pixels" else min(usual, before // UNTIMED_SHARE)
    timely = max(minimum, timely // multiple * multiple)
    share = max(first, before // CHUNK_SHARE // TILE_ROWS * TILE_ROWS)
    most = MAX_FILES if kind == "image" else timely
    return min(share, timely, most, settings().chunk_rows)


def _split_pages(batch: pa.RecordBatch, cells: Sequence[Cell]) -> pa.RecordBatch:
    """A row for each cell of each page, of which only the first has the page."""
    pages, places = np.divmod(np.arange(batch.num_rows * len(cells)), len(cells))
    tables, rows = [cell.table or None for cell in cells], [cell.row or None for cell in cells]
    in_page = zip(PLACE[1:], (tables, rows, [cell.field for cell in cells]), strict=True)
    kind = kind_of(batch)
    columns = {
        PLACE[0]: batch.column(ID.name).take(pages),
        **{field: pa.array(names, field.type).take(places) for field, names in in_page},
        batch.schema.field(kind): batch.column(kind).take(pa.array(pages, mask=places > 0)),
    }
    if ERROR.name in batch.schema.names:
        columns[ERROR] = batch.column(ERROR.name).take(pages)
    return pa.record_batch([*columns.values()], schema=pa.schema([*columns]))


def _cut(
    batches: Iterable[pa.RecordBatch], max_rows: Callable[[Kind, int], int]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches that each fill a chunk and have one schema."""
    before: Counter[Kind] = Counter()  # how many images came so far
    pending: list[pa.RecordBatch] = []
    rows_left, bytes_left, until = 0, 0, 0.0
    for batch in batches:
        if pending and (batch.schema != pending[0].schema or time.monotonic() > until):
            yield _concat(pending)
            pending = []
        kind = kind_of(batch)
        while batch.num_rows:
            if not pending:
                rows_left = max_rows(kind, before[kind])
                bytes_left, until = settings().chunk_bytes, time.monotonic() + PENDING_SECONDS
            sizes = pc.fill_null(pc.binary_length(batch.column(kind).slice(0, rows_left)), 0)
            ends = np.cumsum(sizes.to_numpy(zero_copy_only=False), dtype=np.int64)  # (N,), in bytes
            rows = int(np.searchsorted(ends, bytes_left, side="right")) or int(not pending)
            if rows:
                pending.append(batch.slice(0, rows))
                batch = batch.slice(rows)
                before[kind] += rows
                rows_left -= rows
                bytes_left -= int(ends[rows - 1])
            if batch.num_rows or not rows_left:
                yield _concat(pending)
                pending = []
    if pending:
        yield _concat(pending)


def _concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:  # Arrow would copy a single one
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
