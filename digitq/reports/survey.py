"""All rows of a result file, counted; and the few of them that a page has room for."""

import heapq
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from digitq.reports.scores import ScoreSink
from producer.counts import Counts
from protocol.chunk import answers, corrected, failures
from protocol.known import MAX_DIGITS
from protocol.reading import What

SHOWN_REVIEW = 500  # a page shows so many of the answers to review, the least sure ones
SHOWN_FAILED = 100  # the first of the images that failed
SHOWN_REST = 200  # drawn at random from all others
SHOWN_WRONG_NUMBERS = 200  # drawn at random from the wrong whole numbers
SHOWN_OF_CELL = 5  # drawn at random from each wrong cell of the confusion matrix
SAMPLE_SEED = 0  # the same file gives the same page
MAX_ERRORS = 1000  # so many different errors are counted; all others count as one
OTHER_ERRORS = "other errors"
CONFIDENCE_BINS = 20

Histogram = NDArray[np.int64]
Row = dict[str, Any]
Group = str  # "review", "failed", "rest", or "wrong"


class Sampled(NamedTuple):
    """A row of the file, and its number, from 0."""

    number: int
    row: Row


class Smallest:
    """Keeps the rows with the smallest keys. With random keys they are a random sample."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[float, int, Row]] = []  # negated, so that the largest key is first

    def offer(self, keys: NDArray[np.float64], batch: pa.RecordBatch, first: int) -> None:
        """Offer the rows of a batch that have a key that is a number; `first` is its first row."""
        full = len(self._heap) == self._limit
        places = np.flatnonzero(keys < (-self._heap[0][0] if full else np.inf))
        if len(places) > self._limit:
            places = places[np.argpartition(keys[places], self._limit - 1)[: self._limit]]
        for place, row in zip(places.tolist(), batch.take(places).to_pylist(), strict=True):
            item = (-float(keys[place]), -(first + place), row)
            if len(self._heap) < self._limit:
                heapq.heappush(self._heap, item)
            else:
                heapq.heappushpop(self._heap, item)

    def rows(self) -> list[Sampled]:
        """The rows that were kept, the one with the smallest key first."""
        kept = sorted(self._heap, key=lambda item: (-item[0], -item[1]))
        return [Sampled(-number, row) for _, number, row in kept]


class Survey:
    """What a page says of all rows, in memory that does not grow with them."""

    def __init__(self, read: What) -> None:
        self.counts = Counts()
        self.scores = ScoreSink(read)  # of the rows with a truth
        self.reasons: Counter[str] = Counter()  # of answers to review
        self.errors: Counter[str] = Counter()
        # How many answers there are of each digit, or whole numbers of each length
        self.answers: Histogram = np.zeros(MAX_DIGITS + 1, np.int64)
        self.sure: Histogram = np.zeros(CONFIDENCE_BINS, np.int64)  # by confidence: not to review
        self.unsure: Histogram = np.zeros(CONFIDENCE_BINS, np.int64)
        self._random = np.random.default_rng(SAMPLE_SEED)
        self._review = Smallest(SHOWN_REVIEW)
        self._failed = Smallest(SHOWN_FAILED)
        self._rest = Smallest(SHOWN_REST)
        self._wrong_numbers = Smallest(SHOWN_WRONG_NUMBERS)
        self._cells: dict[tuple[int, int], Smallest] = {}

    @classmethod
    def of(cls, read: What, batches: Iterable[pa.RecordBatch]) -> "Survey":
        """The survey of all rows."""
        survey = cls(read)
        for batch in batches:
            survey.add(batch)
        return survey

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch, and keep some of them."""
        answer = answers(batch)
        answered = to_numpy(answer.is_valid())
        confidence = to_numpy(batch.column("confidence").cast(pa.float64()).fill_null(np.nan))
        review = to_numpy(batch.column("review")) & answered
        first = self.counts.images
        self.counts = self.counts.add(batch)
        by_person = to_numpy(corrected(batch))
        failed = to_numpy(failures(batch))
        self.reasons.update(count_values(batch.column("reason").filter(pa.array(review))))
        self._count_errors(batch.column("error").filter(pa.array(failed)))
        if pa.types.is_string(answer.type):
            shown = pc.utf8_length(answer).fill_null(0)
        else:
            shown = answer.fill_null(-1)
        shown_places = to_numpy(shown)[answered].astype(np.int64)
        self.answers += np.bincount(shown_places, minlength=len(self.answers))
        known = answered & ~np.isnan(confidence) & ~by_person
        self.sure += count_bins(confidence[known & ~review], CONFIDENCE_BINS)
        self.unsure += count_bins(confidence[known & review], CONFIDENCE_BINS)

        numbers = np.arange(first, self.counts.images, dtype=np.float64)
        self._review.offer(np.where(review, np.nan_to_num(confidence), np.nan), batch, first)
        self._failed.offer(np.where(failed, numbers, np.nan), batch, first)
        draws = self._random.random(batch.num_rows)
        self._rest.offer(np.where(failed | review, np.nan, draws), batch, first)
        if "truth" in batch.schema.names:
            self.scores.write(batch)
            self._keep_wrong(batch, first, draws)

    def groups(self) -> dict[Group, list[Sampled]]:
        """The rows that the page shows, by why it shows them; a row may be in several groups."""
        rest = sorted(self._rest.rows(), key=lambda sampled: sampled.row["confidence"] or 0)
        wrong = self._wrong_numbers.rows()
        for _, cell in sorted(self._cells.items()):
            wrong += cell.rows()
        return {
            "review": self._review.rows(),
            "failed": self._failed.rows(),
            "wrong": wrong,
            "rest": rest,
        }

    def _count_errors(self, errors: pa.Array) -> None:
        for text, count in count_values(errors).items():
            is_known = text in self.errors or len(self.errors) < MAX_ERRORS
            self.errors[text if is_known else OTHER_ERRORS] += count

    def _keep_wrong(self, batch: pa.RecordBatch, first: int, draws: NDArray[np.float64]) -> None:
        """Offer the rows whose answer is not the truth."""
        answer, truth = answers(batch), batch.column("truth")
        wrong = to_numpy(pc.not_equal(answer, truth).fill_null(False))
        if pa.types.is_string(answer.type):
            self._wrong_numbers.offer(np.where(wrong, draws, np.nan), batch, first)
            return
        true, given = (to_numpy(column.fill_null(-1)) for column in (truth, answer))
        for pair in {*zip(true[wrong].tolist(), given[wrong].tolist(), strict=True)}:
            cell = self._cells.setdefault(pair, Smallest(SHOWN_OF_CELL))
            is_in = (true == pair[0]) & (given == pair[1])
            cell.offer(np.where(is_in, draws, np.nan), batch, first)


def to_numpy(column: pa.Array) -> NDArray[Any]:
    """A column without nulls."""
    return np.asarray(column.to_numpy(zero_copy_only=False))


def count_values(column: pa.Array) -> Counter[str]:
    """How often each value occurs; nulls do not count."""
    counts = pc.value_counts(column.drop_null())
    return Counter(dict(zip(*map(pa.Array.to_pylist, counts.flatten()), strict=True)))


def count_bins(confidences: NDArray[np.float64], bins: int) -> Histogram:
    """How many confidences are in each of so many equal parts of 0 to 1."""
    return np.asarray(np.histogram(confidences, bins, (0, 1))[0], np.int64)
