"""From a source's pieces to chunks: reads the files, and cuts at a number of rows and of bytes."""

import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from producer.options import plural
from producer.sources import Entry, Piece, UnreadableImageError, too_large
from producer.written import Written, add_ids
from protocol.chunk import ERROR, ID, IMAGE_FIELD, TRUTH, Chunk
from protocol.errors import UsageError
from protocol.settings import TILE_ROWS, settings
from protocol.text import printable

FILES_SCHEMA = pa.schema([ID, IMAGE_FIELD, ERROR, TRUTH])
READ_FILES = 512  # at a time
LEAST_FILES, MOST_FILES = 32, 2048  # in a chunk: they must be decoded, which may take long
UNKNOWN_SHARE = 8  # as `SHARE`, where it isn't known how long
CHUNK_SECONDS = 0.2  # that a worker takes for a chunk of files, about: others may have to wait
PENDING_SECONDS = 1.0  # images wait for others; longer where the next are not there yet
SHARE = 32  # a later chunk holds at most this part of what came before it


class Row(NamedTuple):
    """An image as it was read, in the order of `FILES_SCHEMA`."""

    id: str
    image: bytes | None
    error: str | None
    truth: int | None


def cut_chunks(
    pieces: Iterable[Piece],
    has_truth: bool = False,
    resume: Written = Written(),  # noqa: B008 (frozen)
    model: str = "",
    ask_pace: Callable[[], float] = lambda: 0.0,
) -> Iterator[Chunk]:
    """Chunks of at most `DIGITQ_CHUNK_ROWS` rows, or fewer where the model is a slow one, and about
    `DIGITQ_CHUNK_BYTES` bytes; of files, as many as take `CHUNK_SECONDS`, but `LEAST_FILES`, where
    each takes as long as `ask_pace` says, in seconds, or 0 where nobody knows yet.

    `resume` is what of the source is written already. Raises `UsageError` where its images up to
    there have other ids than they had; and what the source raises, after all that it gave.
    """
    failure: list[Exception] = []
    remaining = _until_failure(_skip(pieces, resume), failure)
    first_row = resume.rows
    limits = Limits(settings().most_rows(model), ask_pace)
    slices = _slices(_read(remaining), has_truth, first_row, limits)
    for batch in _join(slices, first_row, limits):
        yield Chunk(first_row, batch)
        first_row += batch.num_rows
    if failure:
        raise failure[0]


def _until_failure(pieces: Iterator[Piece], failure: list[Exception]) -> Iterator[Piece]:
    """The pieces before one that the source raises at; what it raises is noted."""
    try:
        yield from pieces
    except Exception as error:
        failure.append(error)


@dataclass(frozen=True)
class Limits:
    """How many rows a chunk may have."""

    most: int
    ask_pace: Callable[[], float]

    def max_rows(self, schema: pa.Schema, first_row: int) -> int:
        """Of one that begins with this row of the job. The first hold few, so that small jobs are
        shared out; of pixels they are whole tiles, unless settings say otherwise."""
        share = first_row // SHARE // TILE_ROWS * TILE_ROWS
        if "image" not in schema.names:
            return min(max(TILE_ROWS, share), self.most)
        pace = self.ask_pace()
        timely = int(CHUNK_SECONDS / pace) if pace else first_row // UNKNOWN_SHARE
        files = min(max(READ_FILES, share), MOST_FILES, max(LEAST_FILES, timely))
        return min(files, self.most)


def _skip(pieces: Iterable[Piece], resume: Written) -> Iterator[Piece]:
    """The pieces after the resumed row. Skipped files are not read."""
    left, seen = resume.rows, 0
    for piece in pieces:
        if left:
            if isinstance(piece, Entry):
                used, seen = 1, zlib.crc32(piece.id.encode(), seen)  # as `add_ids`
            else:
                used = min(left, piece.num_rows)
                seen = add_ids(seen, piece.column("id").slice(0, used))
            left -= used
            if not left:
                _require(seen == resume.ids, resume)
            if isinstance(piece, Entry) or used == piece.num_rows:
                continue
            piece = piece.slice(used)
        yield piece
    _require(left == 0, resume)


def _require(holds: bool, resume: Written) -> None:
    if not holds:
        raise UsageError(
            f"the source has changed: its first {plural(resume.rows, 'image')} are no longer those "
            "that are written; --overwrite starts again"
        )


def _read(pieces: Iterator[Piece]) -> Iterator[pa.RecordBatch]:
    """Batches pass through; entries are read and become batches."""
    rows: list[Row] = []
    size, since = 0, 0.0
    for piece in pieces:
        if isinstance(piece, pa.RecordBatch):
            if rows:
                yield _batch_rows(rows)
                rows, size = [], 0
            yield piece
            continue
        row = _read_entry(piece)
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


def _slices(
    batches: Iterator[pa.RecordBatch], has_truth: bool, first_row: int, limits: Limits
) -> Iterator[pa.RecordBatch]:
    """Slices within the limits of a chunk, but for a single image over the limit of bytes."""
    max_bytes = settings().chunk_bytes
    for batch in batches:
        batch = _with_truth(batch) if has_truth else _without_truth(batch)
        start = 0
        while start < batch.num_rows:
            left, rows = batch.num_rows - start, limits.max_rows(batch.schema, first_row)
            if "image" in batch.schema.names:
                rows = ceil(left / ceil(left / rows))  # evenly: the rest may be too large to join
            piece = batch.slice(start, rows)
            if piece.nbytes > max_bytes and piece.num_rows > 1:
                piece = piece.slice(0, _rows_within(piece, max_bytes))
            yield piece
            start += piece.num_rows
            first_row += piece.num_rows


def _join(
    slices: Iterator[pa.RecordBatch], first_row: int, limits: Limits
) -> Iterator[pa.RecordBatch]:
    """Small slices of one schema put together, as far as a chunk's limits let them."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    since = 0.0
    for batch in slices:
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if pending and (
            rows > limits.max_rows(batch.schema, first_row)
            or size > settings().chunk_bytes
            or batch.schema != pending[0].schema
            or _is_long_ago(since)
        ):
            yield _concat(pending)
            first_row += rows - batch.num_rows
            pending, rows, size = [], batch.num_rows, batch.nbytes
        since = since if pending else time.monotonic()
        pending.append(batch)
    if pending:
        yield _concat(pending)


def _concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch; a single one is not copied, as Arrow would."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _rows_within(batch: pa.RecordBatch, max_bytes: int) -> int:
    """How many of the first rows hold at most `max_bytes` of images; at least one."""
    column = batch.column(1)
    sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
    return max(1, int(np.searchsorted(np.cumsum(sizes), max_bytes, side="right")))


def _with_truth(batch: pa.RecordBatch) -> pa.RecordBatch:
    if "truth" in batch.schema.names:
        return batch
    return batch.append_column(TRUTH, pa.nulls(batch.num_rows, pa.int8()))


def _without_truth(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.drop_columns(["truth"]) if "truth" in batch.schema.names else batch
