"""Makes chunks of a source's items: reads the files, and cuts at limits of rows and bytes."""

import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from digitq.producer.counts import Counts, add_ids
from digitq.producer.sources.objects import start_ahead
from digitq.producer.sources.source import (
    Entry,
    Source,
    SourceItem,
    TruthGaps,
)
from digitq.producer.sources.truth import adapt_truth, take_truth
from digitq.protocol.asked.reading import Reading
from digitq.protocol.chunk import (
    ERROR,
    FILES_SCHEMA,
    ID,
    NUMBER_TRUTH,
    TILE_ROWS,
    Chunk,
    Kind,
    kind_of,
    truth_field,
    untimed_rows,
)
from digitq.protocol.errors import UsageError
from digitq.protocol.formats import UnreadableImageError
from digitq.protocol.settings import read_by, settings
from digitq.protocol.text import plural, printable, too_large

T = TypeVar("T")
READ_FILES = 512  # this many files are read into one batch
CHUNK_SECONDS = 0.2  # how long a worker may take for a chunk; single calls may have to wait for it
PENDING_SECONDS = 1.0  # images that have waited for others this long become a chunk
CHUNK_SHARE = 32  # a later chunk has at most 1/32 as many images as came before it
UNTIMED_SHARE = 8  # while the pace of files is unknown, it has at most 1/8 as many


def cut_source(
    source: Source,
    reading: Reading,
    resume: Counts = Counts(),  # noqa: B008 (frozen)
    ask_pace: Callable[[Kind], float] = lambda kind: 0.0,
) -> Iterator[Chunk]:
    """Cut a source into chunks that are to be read like this. See `cut_chunks`."""
    return cut_chunks(
        source.take(),
        bool(source.truths) if reading.form else source.has_truth,
        resume,
        reading.model,
        ask_pace,
        source.gaps,
        reading.cells,
        source.truths,
    )


class Row(NamedTuple):
    id: str
    image: bytes | None
    error: str | None
    truth: str | None


def cut_chunks(
    items: Iterable[SourceItem],
    has_truth: bool | None = False,
    resume: Counts = Counts(),  # noqa: B008 (frozen)
    model: str = "",
    ask_pace: Callable[[Kind], float] = lambda kind: 0.0,
    gaps: TruthGaps | None = None,
    cells: Sequence[str] = (),
    truths: dict[str, str] | None = None,
) -> Iterator[Chunk]:
    """Cut the items into chunks, without the images that `resume` counts.

    A chunk has at most `DIGITQ_CHUNK_ROWS` images and `DIGITQ_CHUNK_BYTES` bytes, unless one image
    is larger. It takes a worker about `CHUNK_SECONDS`: `ask_pace` gives the seconds for one image
    of a kind, 0 if unknown. If `has_truth` is None, the first image says whether the job has
    right answers; `gaps` counts the missing ones. With the ids of a form's `cells`, each image is a
    page and becomes a row for each cell, all in one chunk; `truths` has their right answers.
    Raises `UsageError` if the ids of the images that `resume` counts have changed, and what the
    source raises, after the chunks of everything before it.
    """
    failure: list[Exception] = []

    def until_failure(some: Iterable[T]) -> Iterator[T]:
        try:
            yield from some
        except Exception as error:
            failure.append(error)

    first_row, usual = resume.images, untimed_rows(model)
    left = until_failure(_skip(items, resume, cells, truths))
    first = [] if has_truth is not None else [*islice(left, 1)]
    if has_truth is None:
        has_truth = any(isinstance(item, Entry) and item.truth is not None for item in first)
    truth = truth_field(read_by(model)) if has_truth else None
    gaps = gaps or TruthGaps()
    rows, of_images = max(1, len(cells)), None if cells else truth
    started = start_ahead(chain(first, left), lambda item: isinstance(item, Entry) and item.read)
    read = until_failure(map(_read_item, started))  # a store may fail at any object
    batches = (adapt_truth(batch, of_images, gaps) for batch in _put_together(read))

    def max_images(kind: Kind, before: int) -> int:
        return max(1, _max_rows(kind, before * rows, usual, ask_pace(kind)) // rows)

    for batch in _cut(batches, max_images):
        if cells:
            batch = adapt_truth(_split_pages(batch, cells, truths), truth, gaps)
        yield Chunk(first_row, batch)
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


def _name_cells(ids: Iterable[str], cells: Sequence[str]) -> list[str]:
    """The ids of all rows of these images."""
    return [f"{id}/{cell}" for id in ids for cell in cells] if cells else [*ids]


def _split_pages(
    batch: pa.RecordBatch, cells: Sequence[str], truths: dict[str, str] | None
) -> pa.RecordBatch:
    """A row for each cell of each page, of which only the first has the page."""
    ids = _name_cells(batch.column("id").to_pylist(), cells)
    pages, places = np.divmod(np.arange(len(ids)), len(cells))
    kind = kind_of(batch)
    columns = {
        ID: pa.array(ids, ID.type),
        batch.schema.field(kind): batch.column(kind).take(pa.array(pages, mask=places > 0)),
    }
    if ERROR.name in batch.schema.names:
        columns[ERROR] = batch.column(ERROR.name).take(pa.array(pages))
    if truths is not None:
        found = [take_truth(truths, id) for id in ids]
        columns[NUMBER_TRUTH] = pa.array(found, NUMBER_TRUTH.type)
    return pa.record_batch([*columns.values()], schema=pa.schema([*columns]))


def _skip(
    items: Iterable[SourceItem], resume: Counts, cells: Sequence[str], truths: dict[str, str] | None
) -> Iterator[SourceItem]:
    """The items that `resume` does not count. The files of the others are not read."""
    rows = max(1, len(cells))
    left, seen = resume.images, 0
    first = plural(resume.images // rows, "page" if cells else "image")
    has_changed = UsageError(
        f"the source has changed: its first {first} are not those in the result file; "
        "--overwrite starts again"
    )
    for item in items:
        if left:
            if isinstance(item, Entry):
                used = 1
                named = _name_cells([item.id], cells)
                seen = zlib.crc32("".join(named).encode(), seen)  # equals `add_ids`
            else:
                used = min(left // rows, item.num_rows)
                ids = item.column("id").slice(0, used)
                named = _name_cells(ids.to_pylist(), cells) if cells else []
                seen = add_ids(seen, pa.array(named, ID.type) if cells else ids)
            for id in named if cells else ():
                take_truth(truths or {}, id)
            left -= used * rows
            if not left and seen != resume.ids:
                raise has_changed
            if isinstance(item, Entry) or used == item.num_rows:
                continue
            item = item.slice(used)
        yield item
    if left:
        raise has_changed


def _put_together(items: Iterable[Row | pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Put the rows of files into batches; other batches pass through."""
    rows: list[Row] = []
    size, until = 0, 0.0
    for item in chain(items, [None]):  # None is the end
        row = item if isinstance(item, Row) else None
        size += len(row.image or b"") if row else 0
        is_full = len(rows) == READ_FILES or size > settings().chunk_bytes
        if rows and (row is None or is_full or time.monotonic() > until):
            yield pa.record_batch([*zip(*rows, strict=True)], schema=FILES_SCHEMA)
            rows, size = [], len(row.image or b"") if row else 0
        if row:
            until = until if rows else time.monotonic() + PENDING_SECONDS
            rows.append(row)
        elif item is not None:
            yield item


def _read_item(entry: SourceItem) -> Row | pa.RecordBatch:
    """The row of a file; a batch as it is. Raises `StoreError`."""
    if not isinstance(entry, Entry):
        return entry
    id = entry.id
    try:
        content, limit = entry.read(), settings().image_bytes
        if len(content) > limit:
            raise UnreadableImageError(too_large(limit))
        return Row(id, content, None, entry.truth)
    except UnreadableImageError as error:
        reason = str(error)
    except (OSError, ValueError) as error:  # a 0 byte in a path raises ValueError
        reason = f"can't be read: {getattr(error, 'strerror', None) or error}"
    return Row(id, None, printable(reason), entry.truth)  # a name in it may not be UTF-8


def _cut(
    batches: Iterable[pa.RecordBatch], max_rows: Callable[[Kind, int], int]
) -> Iterator[pa.RecordBatch]:
    """The same rows in batches that each fill a chunk and have one schema."""
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
