"""Reads the images of a source: gives batches of them, without those that are done."""

import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple, TypeVar

import pyarrow as pa

from digitq.producer.sources.objects import start_ahead
from digitq.producer.sources.source import Entry, Source, SourceItem, TruthGaps
from digitq.producer.sources.truth import adapt_truth, add_field_truths, take_truth
from digitq.protocol.asked.form import Cell
from digitq.protocol.asked.reading import Reading
from digitq.protocol.chunk import FILES_SCHEMA, truth_field
from digitq.protocol.errors import UsageError
from digitq.protocol.formats import UnreadableImageError
from digitq.protocol.prediction import Answer
from digitq.protocol.settings import What, settings
from digitq.protocol.text import plural, printable, too_large

T = TypeVar("T")
READ_FILES = 512  # this many files are read into one batch
GATHER_FILES_SECONDS = 1.0  # files that have waited for others this long become a batch


class Row(NamedTuple):
    id: str
    image: bytes | None
    error: str | None
    truth: str | None


def read_source(
    source: Source, reading: Reading[Answer], rows: int = 0, checksum: int = 0
) -> Iterator[pa.RecordBatch]:
    """Batches of a source's images in order, as `read_items` gives them. With a form, each image is
    a page, whose `truth` is a list of the right answers for its fields.

    The images that have the first `rows` rows of a result file are left out; their files are not
    read. `checksum` is that of the ids of these rows. Raises `UsageError` if the ids have changed,
    or if the source was read before.
    """
    items, cells = source.take(), reading.cells
    if rows:
        items = _skip(items, rows, checksum, cells, source.truths)
    if not cells:
        return read_items(items, reading.what, source.has_truth, source.gaps)
    pages = read_items(items)
    return add_field_truths(pages, cells, source.truths, source.gaps) if source.truths else pages


def read_items(
    items: Iterable[SourceItem],
    read: What = "digit",
    has_truth: bool | None = False,
    gaps: TruthGaps | None = None,
) -> Iterator[pa.RecordBatch]:
    """Batches of the images with `id`; `pixels` or `image`; `error` for files that can't be read,
    whose `image` is null; and `truth` if there are right answers.

    If `has_truth` is None, the first image says whether there are; `gaps` counts the missing ones.
    Raises what the items raise, after the batches of everything before it.
    """
    failure: list[Exception] = []

    def until_failure(some: Iterable[T]) -> Iterator[T]:
        try:
            yield from some
        except Exception as error:
            failure.append(error)

    left = until_failure(items)
    first = [] if has_truth is not None else [*islice(left, 1)]
    if has_truth is None:
        has_truth = any(isinstance(item, Entry) and item.truth is not None for item in first)
    truth = truth_field(read) if has_truth else None
    gaps = gaps or TruthGaps()
    started = start_ahead(chain(first, left), lambda item: isinstance(item, Entry) and item.read)
    for batch in _put_together(until_failure(map(_read_item, started))):  # a store may fail
        yield adapt_truth(batch, truth, gaps)
    if failure:
        raise failure[0]


def _skip(
    items: Iterable[SourceItem],
    rows: int,
    checksum: int,
    cells: Sequence[Cell],
    truths: dict[str, str],
) -> Iterator[SourceItem]:
    """The items without the images of the first rows. The files of these are not read."""
    left, seen = rows // max(1, len(cells)), 0
    first = plural(left, "page" if cells else "image")
    has_changed = UsageError(
        f"the source has changed: its first {first} are not those in the result file; "
        "--overwrite starts again"
    )
    for item in items:
        if left:
            if isinstance(item, Entry):
                ids = [item.id]
            else:
                ids = item.column("id").slice(0, left).to_pylist()
            seen = zlib.crc32("".join(ids).encode(), seen)  # equals `producer.counts.add_ids`
            for id in ids if truths else ():
                for cell in cells:
                    take_truth(truths, f"{id}/{cell.id}", id, cell.row, cell.field)
            left -= len(ids)
            if not left and seen != checksum:
                raise has_changed
            if isinstance(item, Entry) or len(ids) == item.num_rows:
                continue
            item = item.slice(len(ids))
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
            until = until if rows else time.monotonic() + GATHER_FILES_SECONDS
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
