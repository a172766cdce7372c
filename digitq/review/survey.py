"""All rows of a result file, counted; and the few of them that a page has room for."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from digitq.producer.counts import Counts
from digitq.protocol.asked.values import MAX_CHARACTERS
from digitq.protocol.chunk import CLASSES, answers, corrected, failures, unmarked
from digitq.protocol.settings import What
from digitq.review.scores import ScoreSink

# A page shows at most this many images
MAX_REVIEW = 500  # the least sure answers of those to review
MAX_FAILED = 100  # the first images that failed
MAX_FAILED_FIELDS = 2000  # of pages: a refused one is one card
MAX_OF_DIGIT = 100  # the page shows this many answers of a digit that need no review
MAX_SURE_NUMBERS = 200  # the least sure whole numbers that need no review
MAX_WRONG_NUMBERS = 200  # a random sample of the wrong whole numbers
MAX_BESIDE = 2000  # cells that are only shown because another of their table's row is
MAX_BLIND = 5000  # a page for a person who sees no answer has at most this many
MAX_IN_CELL = 5  # a random sample of each wrong cell of the confusion matrix
SAMPLE_SEED = 0  # a file always gives the same page
MAX_ERRORS = 1000  # different errors that are counted apart; all others count as one
OTHER_ERRORS = "other errors"
PLACE_NAMES = ("id", "page", "table", "row", "field")  # columns that say nothing of an answer
CONFIDENCE_BINS = 20

Histogram = NDArray[np.int64]
Floats = NDArray[np.float64]
Row = dict[str, Any]
NumberedRows = list[tuple[int, Row]]  # each with its number in the file, from 0
# "review", "failed", "wrong", "answers" for those that need no review, "sample" of the unmarked
Group = str


class Smallest:
    """Keeps the rows with the smallest keys, up to `limit` of each kind. With random keys they are
    a random sample."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # By kind, sorted: the key, the row's number, the row
        self._kept: defaultdict[int, list[tuple[float, int, Row]]] = defaultdict(list)

    def offer(
        self, batch: pa.RecordBatch, first: int, wanted: Any, keys: Floats, kinds: Any = 0
    ) -> None:
        """Offer the wanted rows of a batch, whose first row has the number `first`, from 0."""
        for kind in {*np.broadcast_to(kinds, wanted.shape)[wanted].tolist()}:
            kept = self._kept[kind]
            end = kept[-1][0] if len(kept) == self._limit else np.inf
            offered = np.flatnonzero(wanted & (kinds == kind) & (keys < end))
            offered = offered[np.argsort(keys[offered])[: self._limit]]
            rows = batch.take(offered).to_pylist()
            kept += zip(keys[offered].tolist(), (first + offered).tolist(), rows, strict=True)
            kept.sort(key=itemgetter(0, 1))
            del kept[self._limit :]

    def rows(self) -> NumberedRows:
        """The rows that were kept: by kind, the one with the smallest key first."""
        kinds = sorted(self._kept)
        return [(number, row) for kind in kinds for _, number, row in self._kept[kind]]


class Survey:
    """The figures of a page about all rows, in memory that does not grow with them."""

    def __init__(
        self,
        read: What,
        batches: Iterable[pa.RecordBatch] = (),
        sample: int = 0,
        has_form: bool = False,
    ) -> None:
        """Count the rows of the batches, and draw so many of the unmarked ones at random."""
        self.scores = ScoreSink(read)
        self.reasons: Counter[str] = Counter()  # why answers are to review
        self.errors: Counter[str] = Counter()
        # How many answers there are of each digit, or whole numbers of each length
        self.answers: Histogram = np.zeros(MAX_CHARACTERS + 1, np.int64)
        # How many answers have which confidence: those that need no review, and those to review
        self.sure: Histogram = np.zeros(CONFIDENCE_BINS, np.int64)
        self.unsure: Histogram = np.zeros(CONFIDENCE_BINS, np.int64)
        self._random = np.random.default_rng(SAMPLE_SEED)
        self._draws = np.random.default_rng([SAMPLE_SEED, 1])  # a row's draw depends on its number
        self.unmarked = 0  # rows of which the sample is drawn
        is_number = read == "number"
        self._kept: dict[Group, Smallest] = {
            "review": Smallest(MAX_REVIEW),
            "failed": Smallest(MAX_FAILED_FIELDS if has_form else MAX_FAILED),
            "wrong": Smallest(MAX_WRONG_NUMBERS if is_number else MAX_IN_CELL),
            "answers": Smallest(MAX_SURE_NUMBERS if is_number else MAX_OF_DIGIT),
        }
        if sample:
            self._kept["sample"] = Smallest(sample)
        for batch in batches:
            self.add(batch)

    @property
    def counts(self) -> Counts:
        return self.scores.counts

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
        is_number = self.scores.read == "number"
        shown = pc.utf8_length(answer) if is_number else answer
        self.answers += np.bincount(to_numpy(shown.drop_null()), minlength=len(self.answers))
        is_counted = answered & ~np.isnan(confidence) & ~by_person
        self.sure += count_bins(confidence[is_counted & ~review])
        self.unsure += count_bins(confidence[is_counted & review])
        unsure_first = np.nan_to_num(confidence)
        digit = 0 if is_number else to_numpy(answer.fill_null(-1))
        self._kept["review"].offer(batch, first, review, unsure_first)
        self._kept["failed"].offer(batch, first, failed, np.arange(batch.num_rows) + float(first))
        is_fine = ~(failed | review)
        self._kept["answers"].offer(batch, first, is_fine, unsure_first, digit)
        if "sample" in self._kept:
            is_unmarked = to_numpy(unmarked(batch))
            self.unmarked += int(is_unmarked.sum())
            draws = self._draws.random(batch.num_rows)
            self._kept["sample"].offer(batch, first, is_unmarked, draws)
        if "truth" in batch.schema.names:
            truth, draws = batch.column("truth"), self._random.random(batch.num_rows)
            wrong = to_numpy(pc.not_equal(answer, truth).fill_null(False))
            cell = 0 if is_number else CLASSES * to_numpy(truth.fill_null(-1)) + digit
            self._kept["wrong"].offer(batch, first, wrong, draws, cell)

    def groups(self) -> dict[Group, NumberedRows]:
        """The rows that the page shows, by why it shows them; a row may be in several groups."""
        return {group: kept.rows() for group, kept in self._kept.items()}


def choose_rows(
    batches: Iterable[pa.RecordBatch], sample: int, has_all: bool
) -> tuple[NumberedRows, int]:
    """The first `MAX_BLIND` rows to review, or of all, or so many of all at random, in the order of
    the file, with nothing but their places; and how many there are to choose from."""
    kept, random = Smallest(sample or MAX_BLIND), np.random.default_rng(SAMPLE_SEED)
    first = count = 0
    for batch in batches:
        names = [name for name in PLACE_NAMES if name in batch.schema.names]
        is_wanted = to_numpy(batch["review"]) | (has_all or sample > 0)
        end, draws = first + batch.num_rows, random.random(batch.num_rows)
        order = draws if sample else np.arange(first, end, dtype=np.float64)
        kept.offer(batch.select(names), first, is_wanted, order)
        first, count = end, count + int(is_wanted.sum())
    return sorted(kept.rows(), key=itemgetter(0)), count


def read_lines(
    batches: Iterable[pa.RecordBatch], lines: Collection[str], ids: Collection[str]
) -> NumberedRows:
    """All cells of these rows of tables, each named as in `page.png/marks/4`, and those with these
    ids."""
    cells, first = NumberedRows(), 0
    lines, ids = (pa.array([*each], pa.string()) for each in (lines, ids))
    for batch in batches:
        page, table, row = (batch.column(name) for name in ("page", "table", "row"))
        line = pc.binary_join_element_wise(page, table, row.cast(pa.string()), "/")
        is_wanted = pc.or_(pc.is_in(line, lines), pc.is_in(batch.column("id"), ids))
        found = np.flatnonzero(to_numpy(is_wanted))
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


def count_bins(confidences: Floats) -> Histogram:
    """How many confidences are in each of `CONFIDENCE_BINS` equal parts of 0 to 1."""
    return np.asarray(np.histogram(confidences, CONFIDENCE_BINS, (0, 1))[0], np.int64)
