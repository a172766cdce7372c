"""How well whole numbers are read: counted, and in a few lines."""

from operator import eq

import pyarrow as pa

from producer.sinks.files import Sink


class ScoreSink(Sink):
    """A sink that compares numbers with the right ones and keeps no rows."""

    def __init__(self) -> None:
        self.error: str | None = None  # the first error in any row
        self.same_length = self.digits = self.right_digits = 0  # of numbers of the right length
        self.labelled_review = self.wrong = self.wrong_review = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch that have both a truth and an answer."""
        for row in batch.select(["number", "truth", "review", "error"]).to_pylist():
            number, truth = row["number"], row["truth"]
            self.error = self.error or row["error"]
            if number is None or truth is None:
                continue
            self.labelled_review += row["review"]
            self.wrong += number != truth
            self.wrong_review += number != truth and row["review"]
            if len(number) == len(truth):
                self.same_length += 1
                self.digits += len(truth)
                self.right_digits += sum(map(eq, number, truth))
        self.checkpoint = self.checkpoint.add(batch)


def tabulate_scores(sink: ScoreSink) -> str:
    """Four lines: whole numbers, digits, rows to review, and wrong numbers among these."""
    numbers = sink.checkpoint.labelled
    lengths = f", in {sink.same_length:,} numbers of the right length"
    return "\n".join(
        f"{what:20}{part / max(whole, 1):8.2%} of {whole:,}{more}"
        for what, part, whole, more in (
            ("whole numbers right", sink.checkpoint.correct, numbers, ""),
            ("digits right", sink.right_digits, sink.digits, lengths),
            ("to review", sink.labelled_review, numbers, ""),
            ("wrong, to review", sink.wrong_review, sink.wrong, ""),
        )
    )
