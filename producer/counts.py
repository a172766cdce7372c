"""Counts of result rows: for summaries, exit statuses, records, pages and resuming."""

import zlib
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from digitq.protocol.chunk import (
    ABSENT_KEY,
    NUMBER_TRUTH,
    answers,
    corrected,
    count_failures,
    count_reviews,
    page_starts,
)

CRC_BYTES = 4096  # with more, zlib releases Python's lock and may wait long to get it back


def add_ids(checksum: int, ids: pa.StringArray) -> int:
    """The CRC-32 of concatenated ids: `checksum` continued with more ids."""
    if not len(ids):
        return checksum
    _, offsets, characters = ids.buffers()
    ends = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    view = memoryview(characters or b"")[ends[0] : ends[-1]]
    for start in range(0, len(view), CRC_BYTES):
        checksum = zlib.crc32(view[start : start + CRC_BYTES], checksum)
    return checksum


@dataclass(frozen=True)
class Counts:
    """Counts of result rows from the first on, and a checksum of their ids."""

    images: int = 0  # one row each
    ids: int = 0  # the checksum of `add_ids`: of the images, or of the pages
    failed: int = 0  # rows without an answer, unless a person says that there is no digit
    labelled: int = 0  # rows with a truth and an answer
    correct: int = 0  # labelled rows whose answer equals the truth
    review: int = 0  # rows with an answer that a person should check
    unlabelled: int = 0  # rows without a truth, if others of the job may have one
    other_zeros: int = 0  # numbers that differ from their truth in leading zeros only
    corrected: int = 0  # answers of a person
    absent: int = 0  # rows of a job that are left out, as their pages do not have them

    @property
    def to_review(self) -> int:
        """How many rows a person should look at: those with an error, too."""
        return self.review + self.failed

    @property
    def done(self) -> int:
        """How many rows of a job these are, with those that are left out."""
        return self.images + self.absent

    def add(self, batch: pa.RecordBatch) -> Self:
        """The counts including one more result batch."""
        correct = labelled = unlabelled = other_zeros = 0
        if "truth" in batch.schema.names:
            truth = batch.column("truth")
            equal = pc.equal(answers(batch), truth)
            correct, labelled = pc.sum(equal).as_py() or 0, len(equal) - equal.null_count
            unlabelled = truth.null_count
            if truth.type == NUMBER_TRUTH.type:
                other_zeros = pc.sum(differ_in_zeros(answers(batch), truth)).as_py() or 0
        ids = batch.column("id")
        if "page" in batch.schema.names:
            ids = batch.column("page").take(pa.array(page_starts(batch), pa.int64()))
        absent = (batch.schema.metadata or {}).get(ABSENT_KEY, 0)
        return type(self)(
            self.images + batch.num_rows,
            add_ids(self.ids, ids),
            self.failed + count_failures(batch),
            self.labelled + labelled,
            self.correct + correct,
            self.review + count_reviews(batch),
            self.unlabelled + unlabelled,
            self.other_zeros + other_zeros,
            self.corrected + (pc.sum(corrected(batch)).as_py() or 0),
            self.absent + int(absent),
        )


def differ_in_zeros(numbers: pa.StringArray, others: pa.StringArray) -> pa.BooleanArray:
    """Whether two numbers differ in leading zeros only; null if either is missing."""
    stripped = (pc.utf8_ltrim(column, characters="0") for column in (numbers, others))
    is_nothing = pc.or_(pc.equal(numbers, ""), pc.equal(others, ""))
    return pc.and_not(pc.equal(*stripped), pc.or_(pc.equal(numbers, others), is_nothing))
