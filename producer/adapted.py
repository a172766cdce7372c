"""What a job needs that reads images again, with a network that has been adapted to them."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import IO, Any, Generic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from digitq.producer.chunking import cut_chunks
from digitq.producer.provenance import Record
from digitq.producer.sources.contents import read_source
from digitq.producer.sources.source import Entry, Source, SourceItem
from digitq.producer.sources.truth import has_truth
from digitq.protocol.asked.reading import AnswerT, Reading
from digitq.protocol.chunk import BEFORE, ID, PLACE, TRUTH, Chunk, answers, name_fields, unmarked
from digitq.protocol.errors import UsageError
from digitq.protocol.settings import NUMBER

# So many images, or numbers of pages, are looked at, to learn from the surest; of more, a random
# part is. The second number is that of whole numbers, whose pictures are larger
MAX_SEEN, MAX_SEEN_NUMBERS = 20_000, 3_000
MAX_SPOOLED_BYTES = 4 << 30  # what is looked at takes about so much of the disk at most
CHANGED = "the images have changed since the first reading: --overwrite starts again"
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
        answers that nobody is asked to check. Raises `UsageError` if the images are others.

        Pages are found by their names, and so are their rows: a reading may find others in them.
        """
        left = Rows(self.rows(0 if self.reading.form else rows))
        for chunk in chunks:
            if self.reading.form:
                part = left.take_pages(chunk.batch.column(PLACE[0].name))
                ids = name_fields(chunk.batch)
                is_same = part.num_rows > 0
            else:
                part, ids = left.take(chunk.rows), chunk.batch.column(ID.name)
                is_same = part.column(ID.name).equals(pa.chunked_array([ids]))
            if not is_same:
                raise UsageError(CHANGED)
            (answered,) = part.combine_chunks().to_batches()
            before = pc.cast(answers(answered), pa.string())
            if only_unmarked:
                before = pc.if_else(unmarked(answered), before, None)
            found = pc.index_in(ids, value_set=answered.column(ID.name))
            yield replace(chunk, batch=chunk.batch.append_column(BEFORE, before.take(found)))
        if not self.reading.form and left.take(1).num_rows:
            raise UsageError(CHANGED)

    def rows(self, skipped: int = 0) -> Iterator[pa.RecordBatch]:
        """The rows of the first job, without the first ones. No page is in two batches."""
        held: pa.Table | None = None
        for batch in self.first.iter_batches():
            if skipped < batch.num_rows:
                rows = pa.Table.from_batches([batch.slice(skipped)])
                held = rows if held is None else pa.concat_tables([held, rows])
                end = len(held)
                if self.reading.form:
                    pages = held.column(PLACE[0].name)
                    end = pc.index(pages, pages[-1]).as_py()
                yield from held.slice(0, end).combine_chunks().to_batches()
                held = held.slice(end)
            skipped = max(0, skipped - batch.num_rows)
        if held is not None:
            yield from held.combine_chunks().to_batches()


class Rows:
    """The rows of a result file, taken one part after the other."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._left = batches
        self._held: pa.Table | None = None

    def take(self, rows: int) -> pa.Table:
        """The next rows; fewer at the end."""
        while len(self._held or ()) < rows and self._fetch():
            pass
        return self._cut(rows)

    def take_pages(self, pages: pa.Array) -> pa.Table:
        """The next rows up to the last one of these pages. Rows of other pages may be among them;
        none are there if the file does not have the last page."""
        last = pages[-1]
        while True:
            if self._held is not None:  # no page is in two batches
                is_last = pc.equal(self._held.column(PLACE[0].name), last)
                if (place := pc.index(is_last, True).as_py()) >= 0:
                    return self._cut(place + pc.sum(is_last).as_py())
            if not self._fetch():
                return self._cut(0)

    def _fetch(self) -> bool:
        batch = next(self._left, None)
        if batch is not None:
            rows = pa.Table.from_batches([batch])
            self._held = rows if self._held is None else pa.concat_tables([self._held, rows])
        return batch is not None

    def _cut(self, rows: int) -> pa.Table:
        held = self._held
        if held is None:
            held = pa.table({ID.name: pa.array([], pa.string())})
        self._held = held.slice(rows)
        return held.slice(0, rows)


def draw_chunks(
    file: IO[bytes], source: Source, reading: Reading[Any], images: int | None, right: str = ""
) -> Iterator[Chunk]:
    """Chunks of the images to learn from, of which there are so many; the caller writes them to the
    file. All are there whose right answer matches the regular expression `right`.

    Of the others as many as are looked at are drawn by chance, or the first ones if their number
    is unknown; and none once the file has `MAX_SPOOLED_BYTES`.
    """
    source = draw_images(source, reading, images, right, lambda: file.tell() > MAX_SPOOLED_BYTES)
    return cut_chunks(read_source(source, reading), reading.model, reading.cells)


def draw_images(
    source: Source,
    reading: Reading[Any],
    images: int | None,
    right: str = "",
    is_enough: Callable[[], bool] = lambda: False,
) -> Source:
    """The source with the images of `draw_chunks`, and no others once it `is_enough`."""
    numbers = sum(not cell.known.options for cell in reading.cells) or 1  # of an image
    left = most = max(1, (MAX_SEEN_NUMBERS if reading.model == NUMBER else MAX_SEEN) // numbers)
    rng, share = np.random.default_rng(DRAWN_SEED), min(1.0, most / (images or 1))

    def is_known(entry: Entry) -> bool:
        if source.truths and reading.form:
            return has_truth(source.truths, entry.id, reading.cells)
        return bool(right and re.search(right, entry.truth or ""))

    def are_known(batch: pa.RecordBatch) -> NDArray[np.bool_]:
        if not right or TRUTH.name not in batch.schema.names:
            return np.zeros(batch.num_rows, bool)
        truths = pc.cast(batch.column(TRUTH.name), pa.string())
        return np.asarray(pc.match_substring_regex(truths, right).fill_null(False))

    def draw() -> Iterator[SourceItem]:
        nonlocal left
        for item in source.items:
            count = 1 if isinstance(item, Entry) else item.num_rows
            is_drawn = rng.random(count) < share
            is_drawn &= (is_drawn.cumsum() <= left) & (not is_enough())
            left -= int(is_drawn.sum())
            if isinstance(item, Entry):
                if is_drawn.any() or is_known(item):
                    yield item
            else:
                yield item.filter(pa.array(is_drawn | are_known(item)))

    return replace(source, items=draw())
