"""What of a job is written so far: the counts that a summary, an exit code and a resume need."""

from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Written:
    """Counts of rows in source order, from the job's first; `last_id` is the last row's."""

    rows: int = 0
    last_id: str | None = None
    failed: int = 0
    known: int = 0  # rows with a truth and an answer
    right: int = 0  # of those, the ones whose answer is the truth
    review: int = 0  # rows with an answer that a person should look at

    def add(self, batch: pa.RecordBatch) -> Self:
        """The counts with one more result batch."""
        right = known = 0
        if "truth" in batch.schema.names:
            equal = pc.equal(batch.column("label"), batch.column("truth"))
            right, known = pc.sum(equal).as_py() or 0, len(equal) - equal.null_count
        failed = batch.column("label").null_count
        return type(self)(
            self.rows + batch.num_rows,
            batch.column("id")[-1].as_py(),
            self.failed + failed,
            self.known + known,
            self.right + right,
            self.review + (pc.sum(batch.column("review")).as_py() or 0) - failed,
        )
