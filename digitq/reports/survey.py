"""All rows of a result file, counted; and the few of them that a page has room for."""

from collections import Counter
from collections.abc import Collection, Iterable
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from digitq.reports.scores import ScoreSink
from producer.counts import Counts
from protocol.chunk import answers, corrected, failures
from protocol.settings import What
from protocol.values import MAX_CHARACTERS

# A page shows at most this many images
MAX_REVIEW = 500  # the least sure answers of those to review
MAX_FAILED = 100  # the first images that failed
MAX_OF_DIGIT = 100  # of each digit, the least sure answers that need no review
MAX_SURE_NUMBERS = 200  # the least sure whole numbers that need no review
MAX_WRONG_NUMBERS = 200  # a random sample of the wrong whole numbers
MAX_BESIDE = 2000  # cells that are only shown because another of their table's row is
MAX_IN_CELL = 5  # a random sample of each wrong cell of the confusion matrix
SAMPLE_SEED = 0  # the same file gives the same page
MAX_ERRORS = 1000  # different errors that are counted apart; all others count as one
OTHER_ERRORS = "other errors"
CONFIDENCE_BINS = 20

Histogram = NDArray[np.int64]
Row = dict[str, Any]
NumberedRows = list[tuple[int, Row]]  # each with its number in the file, from 0
Group = str  # "review", "failed", "wrong", or "answers" for those that need no review


class Smallest:
    """Keeps the rows with the smallest keys. With random keys they are a random sample."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[tuple[float, int, Row]] = []  # sorted: the key, the row's number, the row

    def offer(self, keys: NDArray[np.float64], batch: pa.RecordBatch, first: int) -> None:
        """Offer the rows of a batch whose key is not NaN. `first` is the number of its first row,
        from 0."""
        is_full = len(self._kept) == self._limit
        offered = np.flatnonzero(keys < (self._kept[-1][0] if is_full else np.inf))
        if len(offered) > self._limit:
            offered = offered[np.argpartition(keys[offered], self._limit - 1)[: self._limit]]
        rows = batch.take(offered).to_pylist()
        self._kept += zip(keys[offered].tolist(), (first + offered).tolist(), rows, strict=True)
        self._kept.sort(key=itemgetter(0, 1))
        del self._kept[self._limit :]

    def rows(self) -> NumberedRows:
        """The rows that were kept, the one with the smallest key first."""
        return [(number, row) for _, number, row in self._kept]


class Survey:
    """The figures of a page about all rows, in memory that does not grow with them."""

    def __init__(self, read: What) -> None:
        self.scores = ScoreSink(read)
        self.reasons: Counter[str] = Counter()  # why answers are to review
        self.errors: Counter[str] = Counter()
        # How many answers there are of each digit, or whole numbers of each length
        self.answers: Histogram = np.zeros(MAX_CHARACTERS + 1, np.int64)
        # How many answers have which confidence: those that need no review, and those to review
        self.sure: Histogram = np.zeros(CONFIDENCE_BINS, np.int64)
        self.unsure: Histogram = np.zeros(CONFIDENCE_BINS, np.int64)
        self._random = np.random.default_rng(SAMPLE_SEED)
        limits = {"review": MAX_REVIEW, "failed": MAX_FAILED, "wrong": MAX_WRONG_NUMBERS}
        self._kept = {name: Smallest(most) for name, most in limits.items()}
        self._sure: dict[int, Smallest] = {}  # by digit; all whole numbers are together
        self._cells: dict[tuple[int, int], Smallest] = {}  # wrong digits by truth and answer

    @property
    def counts(self) -> Counts:
        return self.scores.counts

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
        self.scores.write(batch)
        by_person = to_numpy(corrected(batch))
        failed = to_numpy(failures(batch))
        self.reasons.update(count_values(batch.column("reason").filter(pa.array(review))))
        for text, count in count_values(batch.column("error").filter(pa.array(failed))).items():
            is_known = text in self.errors or len(self.errors) < MAX_ERRORS
            self.errors[text if is_known else OTHER_ERRORS] += count
        shown = pc.utf8_length(answer) if self.scores.read == "number" else answer
        self.answers += np.bincount(to_numpy(shown.drop_null()), minlength=len(self.answers))
        is_counted = answered & ~np.isnan(confidence) & ~by_person
        self.sure += count_bins(confidence[is_counted & ~review])
        self.unsure += count_bins(confidence[is_counted & review])
        numbers = np.arange(first, self.counts.images, dtype=np.float64)
        unsure_first = np.nan_to_num(confidence)
        self._kept["review"].offer(np.where(review, unsure_first, np.nan), batch, first)
        self._kept["failed"].offer(np.where(failed, numbers, np.nan), batch, first)
        is_number = self.scores.read == "number"
        kind = np.zeros(len(review), int) if is_number else to_numpy(answer.fill_null(-1))
        kind = np.where(failed | review, -2, kind)
        for one in {*kind.tolist()} - {-2}:
            kept = self._sure.setdefault(
                one, Smallest(MAX_SURE_NUMBERS if is_number else MAX_OF_DIGIT)
            )
            kept.offer(np.where(kind == one, unsure_first, np.nan), batch, first)
        if "truth" in batch.schema.names:
            self._keep_wrong(batch, first, self._random.random(batch.num_rows))

    def groups(self) -> dict[Group, NumberedRows]:
        """The rows that the page shows, by why it shows them; a row may be in several groups."""
        groups = {group: kept.rows() for group, kept in self._kept.items()}
        for _, cell in sorted(self._cells.items()):
            groups["wrong"] += cell.rows()
        return groups | {"answers": [row for kept in self._sure.values() for row in kept.rows()]}

    def _keep_wrong(self, batch: pa.RecordBatch, first: int, draws: NDArray[np.float64]) -> None:
        """Offer the rows whose answer is not the truth."""
        answer, truth = answers(batch), batch.column("truth")
        wrong = to_numpy(pc.not_equal(answer, truth).fill_null(False))
        if self.scores.read == "number":
            self._kept["wrong"].offer(np.where(wrong, draws, np.nan), batch, first)
            return
        truths, digits = (to_numpy(column.fill_null(-1)) for column in (truth, answer))
        for pair in {*zip(truths[wrong].tolist(), digits[wrong].tolist(), strict=True)}:
            cell = self._cells.setdefault(pair, Smallest(MAX_IN_CELL))
            is_in_cell = (truths == pair[0]) & (digits == pair[1])
            cell.offer(np.where(is_in_cell, draws, np.nan), batch, first)


def read_lines(batches: Iterable[pa.RecordBatch], lines: Collection[str]) -> NumberedRows:
    """All cells of these rows of tables, each named as in `page.png/marks/4`."""
    cells, first, wanted = NumberedRows(), 0, pa.array([*lines], pa.string())
    for batch in batches:
        line = pc.replace_substring_regex(batch.column("id"), "/[^/]*$", "")
        found = np.flatnonzero(to_numpy(pc.is_in(line, wanted)))
        cells += zip((first + found).tolist(), batch.take(found).to_pylist(), strict=True)
        first += batch.num_rows
    return cells


def to_numpy(column: pa.Array) -> NDArray[Any]:
    """A column without nulls."""
    return np.asarray(column.to_numpy(zero_copy_only=False))


def count_values(column: pa.Array) -> Counter[str]:
    """How often each value occurs; nulls do not count."""
    counts = pc.value_counts(column.drop_null())
    return Counter(dict(zip(*map(pa.Array.to_pylist, counts.flatten()), strict=True)))


def count_bins(confidences: NDArray[np.float64]) -> Histogram:
    """How many confidences are in each of `CONFIDENCE_BINS` equal parts of 0 to 1."""
    return np.asarray(np.histogram(confidences, CONFIDENCE_BINS, (0, 1))[0], np.int64)
