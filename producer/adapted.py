"""What a job needs that reads images again, with a network that has been adapted to them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from digitq.producer.provenance import Record
from digitq.protocol.asked.reading import AnswerT, Reading
from digitq.protocol.chunk import BEFORE, ID, Chunk, answers, name_fields, unmarked
from digitq.protocol.errors import UsageError
from digitq.protocol.settings import NUMBER

# So many images, or fields of pages, are looked at, to learn from the surest; of more, a random
# part is. The second number is that of whole numbers, whose pictures are larger
MAX_SEEN, MAX_SEEN_NUMBERS = 20_000, 3_000
CHANGED = "the images are others than those that were read first"
DRAWN_SEED = 0  # the same images are drawn each time


@dataclass(frozen=True)
class Adapted(Generic[AnswerT]):
    """What the second job needs."""

    reading: Reading[AnswerT]  # with the network that has learned
    first: pq.ParquetFile  # the rows of the first job, open: the file may be removed
    record: Record  # what made them
    why: str = ""  # why nothing was gained, so that the first answers stay

    @property
    def images(self) -> int:
        """How many rows the network was adapted to; 0 if nothing was gained."""
        return 0 if self.why else self.record.counts.images

    def add_before(
        self, chunks: Iterable[Chunk], rows: int = 0, only_unmarked: bool = False
    ) -> Iterator[Chunk]:
        """The chunks with what the first job answered, without its first rows; on demand only the
        answers that nobody is asked to check. Raises `UsageError` if the images are others."""
        left = self.rows(rows)
        pending: pa.Table | None = None
        for chunk in chunks:
            while (pending is None or pending.num_rows < chunk.rows) and (row := next(left, None)):
                more = pa.Table.from_batches([row])
                pending = more if pending is None else pa.concat_tables([pending, more])
            ids = name_fields(chunk.batch) if self.reading.form else chunk.batch.column(ID.name)
            if pending is None:
                raise UsageError(CHANGED)
            (part,) = pending.slice(0, chunk.rows).combine_chunks().to_batches()
            found = pc.index_in(ids, value_set=part.column(ID.name))
            known = found.drop_null()  # a table of a page may have rows that the page lacks
            is_whole = len(known) == chunk.rows or bool(self.reading.form)
            if not (is_whole and known.equals(pa.array(range(len(known)), known.type))):
                raise UsageError(CHANGED)
            before = pc.cast(answers(part), pa.string())
            if only_unmarked:
                before = pc.if_else(unmarked(part), before, None)
            yield replace(chunk, batch=chunk.batch.append_column(BEFORE, before.take(found)))
            pending = pending.slice(len(known))

    def rows(self, skipped: int = 0) -> Iterator[pa.RecordBatch]:
        """The rows of the first job, without the first ones."""
        for batch in self.first.iter_batches():
            if skipped < batch.num_rows:
                yield batch.slice(skipped)
            skipped = max(0, skipped - batch.num_rows)


def draw_images(
    chunks: Iterable[Chunk], reading: Reading[Any], rows: int | None
) -> Iterator[Chunk]:
    """Of these chunks, which have so many rows, the images to look at: those with a right answer,
    and others that are drawn by chance. If there are few, or their number is unknown, all are."""
    most = MAX_SEEN_NUMBERS if reading.model == NUMBER else MAX_SEEN
    rng, of_image = np.random.default_rng(DRAWN_SEED), reading.rows_of_image
    for chunk in chunks:
        is_drawn = rng.random(chunk.rows // of_image) < most / max(1, rows or 0)
        if chunk.truth is not None:
            labelled = pc.fill_null(pc.not_equal(pc.cast(chunk.truth, pa.string()), ""), False)
            is_drawn |= np.asarray(labelled).reshape(-1, of_image).any(1)
        drawn = pa.array(np.flatnonzero(is_drawn.repeat(of_image)))
        if len(drawn) == chunk.rows:
            yield chunk
        elif len(drawn):
            truth = chunk.truth if chunk.truth is None else chunk.truth.take(drawn)
            yield replace(chunk, batch=chunk.batch.take(drawn), truth=truth)
