"""From a source's pieces to chunks: reads the files, and cuts at a number of rows and of bytes."""

import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from producer.checkpoint import Checkpoint, add_ids
from producer.sources.source import Entry, SourceItem, UnreadableImageError, too_large
from protocol.chunk import ERROR, ID, IMAGE_FIELD, TILE_ROWS, TRUTH, Chunk, Kind, kind_of, most_rows
from protocol.errors import UsageError
from protocol.settings import settings
from protocol.text import plural, printable

FILES_SCHEMA = pa.schema([ID, IMAGE_FIELD, ERROR, TRUTH])
READ_FILES = 512  # at a time
CHUNK_SECONDS = 0.2  # that a worker takes for a chunk, about: others may have to wait
PENDING_SECONDS = 1.0  # images wait for others; longer where the next are not there yet
SHARE = 32  # a later chunk holds at most this part of what came before it
UNKNOWN_SHARE = 8  # as `SHARE`, of files of which nobody knows how long they take


class Row(NamedTuple):
    """An image as it was read, in the order of `FILES_SCHEMA`."""

    id: str
    image: bytes | None
    error: str | None
    truth: int | None


def cut_chunks(
    items: Iterable[SourceItem],
    has_truth: bool = False,
    resume: Checkpoint = Checkpoint(),  # noqa: B008 (frozen)
    model: str = "",
    ask_pace: Callable[[Kind], float] = lambda kind: 0.0,
) -> Iterator[Chunk]:
    """Chunks of at most `DIGITQ_CHUNK_ROWS` images and `DIGITQ_CHUNK_BYTES` bytes of them, but for
    one image that has more; and of as many as take about `CHUNK_SECONDS`, where each takes as long
    as `ask_pace` says, in seconds, or 0 where nobody knows yet.

    `resume` is what of the source is written already. Raises `UsageError` where its images up to
    there have other ids than they had; and what the source raises, after all that it gave.
    """
    failure: list[Exception] = []
    remaining = _until_failure(_skip(items, resume), failure)
    first_row = resume.rows
    adapt = _with_truth if has_truth else _without_truth
    for batch in _cut(map(adapt, _read(remaining)), Limits(model, ask_pace)):
        yield Chunk(first_row, batch)
        first_row += batch.num_rows
    if failure:
        raise failure[0]


def _until_failure(items: Iterator[SourceItem], failure: list[Exception]) -> Iterator[SourceItem]:
    """The pieces before one that the source raises at; what it raises is noted."""
    try:
        yield from items
    except Exception as error:
        failure.append(error)


class Bounds(NamedTuple):
    """Numbers of a chunk's images, of one kind."""

    least: int  # however long they take
    first: int  # at most, in the first chunks: so that small jobs are shared out
    grain: int  # they are a multiple of it, unless settings say otherwise


BOUNDS: dict[Kind, Bounds] = {
    "pixels": Bounds(128, TILE_ROWS, 128),  # the smallest tile of a network
    "image": Bounds(32, 512, 1),
}
MAX_FILES = 2048  # in a chunk, however fast the last were: the next may take longer


@dataclass(frozen=True)
class Limits:
    """How many images a chunk may have."""

    model: str
    ask_pace: Callable[[Kind], float]

    def max_rows(self, kind: Kind, before: int) -> int:
        """Of one that comes after so many images of its kind."""
        least, first, grain = BOUNDS[kind]
        share = max(first, before // SHARE // TILE_ROWS * TILE_ROWS)
        timely = max(least, self._find_timely(kind, before) // grain * grain)
        most = MAX_FILES if kind == "image" else timely
        return min(share, timely, most, settings().chunk_rows)

    def _find_timely(self, kind: Kind, before: int) -> int:
        """How many take `CHUNK_SECONDS`, as far as is known."""
        if pace := self.ask_pace(kind):
            return int(CHUNK_SECONDS / pace)
        usual = most_rows(self.model)
        return usual if kind == "pixels" else min(usual, before // UNKNOWN_SHARE)


def _skip(items: Iterable[SourceItem], resume: Checkpoint) -> Iterator[SourceItem]:
    """The pieces after the resumed row. Skipped files are not read."""
    left, seen = resume.rows, 0
    for item in items:
        if left:
            if isinstance(item, Entry):
                used, seen = 1, zlib.crc32(item.id.encode(), seen)  # as `add_ids`
            else:
                used = min(left, item.num_rows)
                seen = add_ids(seen, item.column("id").slice(0, used))
            left -= used
            if not left:
                _require(seen == resume.ids, resume)
            if isinstance(item, Entry) or used == item.num_rows:
                continue
            item = item.slice(used)
        yield item
    _require(left == 0, resume)


def _require(holds: bool, resume: Checkpoint) -> None:
    if not holds:
        raise UsageError(
            f"the source has changed: its first {plural(resume.rows, 'image')} are no longer those "
            "that are written; --overwrite starts again"
        )


def _read(items: Iterator[SourceItem]) -> Iterator[pa.RecordBatch]:
    """Batches pass through; entries are read and become batches."""
    rows: list[Row] = []
    size, since = 0, 0.0
    for item in items:
        if isinstance(item, pa.RecordBatch):
            if rows:
                yield _batch_rows(rows)
                rows, size = [], 0
            yield item
            continue
        row = _read_entry(item)
        size += len(row.image or b"")
        if rows and (
            len(rows) == READ_FILES or size > settings().chunk_bytes or _is_long_ago(since)
        ):
            yield _batch_rows(rows)
            rows, size = [], len(row.image or b"")
        since = since if rows else time.monotonic()
        rows.append(row)
    if rows:
        yield _batch_rows(rows)


def _is_long_ago(since: float) -> bool:
    """Whether what was read then, of a source that is slow, need wait no longer for more."""
    return time.monotonic() - since > PENDING_SECONDS


def _read_entry(entry: Entry) -> Row:
    id = entry.id
    try:
        content, limit = entry.read(), settings().image_bytes
        if len(content) > limit:
            raise UnreadableImageError(too_large(limit))
        return Row(id, content, None, entry.truth)
    except UnreadableImageError as error:
        reason = str(error)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = f"can't be read: {getattr(error, 'strerror', None) or error}"
    return Row(id, None, printable(reason), entry.truth)  # a name in it may be no UTF-8


def _batch_rows(rows: list[Row]) -> pa.RecordBatch:
    columns = [
        pa.array(values, field.type)
        for values, field in zip(zip(*rows, strict=True), FILES_SCHEMA, strict=True)
    ]
    return pa.record_batch(columns, schema=FILES_SCHEMA)


def _cut(batches: Iterable[pa.RecordBatch], limits: Limits) -> Iterator[pa.RecordBatch]:
    """The same rows in batches that fill a chunk, each of one schema."""
    before: Counter[Kind] = Counter()  # images
    pending: list[pa.RecordBatch] = []
    rows_left = bytes_left = 0
    since = 0.0
    for batch in batches:
        if pending and (batch.schema != pending[0].schema or _is_long_ago(since)):
            yield _concat(pending)
            pending = []
        kind = kind_of(batch)
        while batch.num_rows:
            if not pending:
                rows_left = limits.max_rows(kind, before[kind])
                bytes_left, since = settings().chunk_bytes, time.monotonic()
            ends = _find_ends(batch.slice(0, rows_left))
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


def _concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch; a single one is not copied, as Arrow would."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _find_ends(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """How many bytes of images there are up to the end of each row."""
    sizes = pc.fill_null(pc.binary_length(batch.column(kind_of(batch))), 0)
    return np.cumsum(sizes.to_numpy(zero_copy_only=False), dtype=np.int64)


def _with_truth(batch: pa.RecordBatch) -> pa.RecordBatch:
    if "truth" in batch.schema.names:
        return batch
    return batch.append_column(TRUTH, pa.nulls(batch.num_rows, pa.int8()))


def _without_truth(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.drop_columns(["truth"]) if "truth" in batch.schema.names else batch
