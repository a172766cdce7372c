"""How often two tables agree, and how many errors both may share."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from digitq.producer.reader_tables import read_reader
from digitq.producer.results import ResultFile
from digitq.producer.several_readings import MACHINE, READINGS, agree, own_answers, parse_readings
from digitq.producer.sources.truth import take_truth
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.sample import Sample, bound_count
from digitq.protocol.chunk import CORRECTED
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find_column
from digitq.protocol.text import name_some, plural, printable
from digitq.review.corrections import Given, check_draw, list_drawn
from digitq.review.people import mark_repeated
from digitq.review.scores import percent, wilson


class Agreed(NamedTuple):
    """A row in which both tables agree."""

    answer: str
    truth: str | None
    is_marked: bool  # whether it was to review in the results


@dataclass
class Comparison:
    """What another table says of the rows of a result file."""

    results: ResultFile
    path: Path  # of the other table
    name: str  # of its reader
    unknown: dict[str, str]  # what it read in rows that the results lack, by id
    read: dict[str, str] = field(default_factory=dict)  # what it read in others
    agreed: dict[str, Agreed] = field(default_factory=dict)  # by id
    compared: Counter[str] = field(default_factory=Counter)  # rows by field, and all as ""
    agreeing: Counter[str] = field(default_factory=Counter)
    lacking: list[str] = field(default_factory=list)  # the ids that the other table lacks
    unread: list[str] = field(default_factory=list)  # those that the results have no answer for

    def add(self, row: Mapping[str, Any], own: str | None) -> None:
        """Count the next row of the results, whose answer is this."""
        id, name = row["id"], row.get("field") or ""
        answer = take_truth(self.unknown, id, row.get("page") or "", row.get("row"), name)
        if answer is None:
            self.lacking.append(id)
            return
        self.read[id] = answer
        if own is None:
            self.unread.append(id)
            return
        is_same = agree([own, answer], self.results.is_text(id))
        label = f"{row['table']}/{name}" if row.get("table") else name
        for one in dict.fromkeys([label, ""]):
            self.compared[one] += 1
            self.agreeing[one] += is_same
        if is_same:
            truth = row.get("truth")
            self.agreed[id] = Agreed(own, None if truth is None else str(truth), row["review"])

    @property
    def differing(self) -> int:
        return len(self.read) - len(self.agreed)

    def tabulate(self) -> Iterator[str]:
        """The agreement of each field, and which rows one of the two lacks."""
        width = max(20, *(len(name) + 2 for name in self.compared))
        yield f"{'agreement':{width}}{'rows':>10}{'agree':>10}{'share':>10}   95 % interval"
        fields = sorted(self.compared, key=lambda name: not name)  # all of them last
        for name in fields[:1] if len(fields) == 2 else fields:
            rows = self.compared[name]
            right = self.agreeing[name]
            interval = " to ".join(map(percent, wilson(right, rows)))
            share = percent(right / rows)
            yield f"{name or 'all':{width}}{rows:10,}{right:10,}{share:>10}   {interval}"
        path = self.results.path.name
        for ids, what in (
            (self.lacking, f"{self.name} lacks {{}} of {path}"),
            (self.unknown, f"{path} lacks {{}} of {self.name}"),
            (self.unread, f"{path} has an error in {{}} of {self.name}"),
        ):
            if ids:
                yield f"{what.format(plural(len(ids), 'row'))}: {name_some(ids)}"

    def measure_truth(self) -> Sample | None:
        """What the right answers in the results say about all rows in which both agree."""
        known = [(one.answer, one.truth) for one in self.agreed.values() if one.truth is not None]
        wrong = sum(answer != truth for answer, truth in known)
        return measure_shared(wrong, len(known), len(self.agreed))

    def measure_drawn(self, given: Given) -> Sample | None:
        """What a random sample says about the unmarked rows in which both agree. It was drawn from
        the results, or else from the rows with both readings, where all these are unmarked."""
        check_draw(self.results, given)
        drawn = [id for id in list_drawn(given) if id in self.agreed]
        is_of_both = any(self.agreed[id].is_marked for id in drawn)
        rows = sum(is_of_both or not one.is_marked for one in self.agreed.values())
        wrong = sum(
            not agree([given.answers[id] or "", self.agreed[id].answer], self.results.is_text(id))
            for id in drawn
        )
        return measure_shared(wrong, len(drawn), rows)


def measure_shared(wrong: int, looked_at: int, rows: int) -> Sample | None:
    """What these say about all rows in which both agree; None if no row was looked at."""
    if not looked_at:
        return None
    share = bound_count(wrong, looked_at, rows) / rows
    return Sample(unmarked=rows, looked_at=looked_at, wrong=wrong, at_most=share)


def compare_tables(results: ResultFile, other: Path, form: Form | None) -> Comparison:
    """Compare a result file with another table, named as `find_column` finds it.

    Raises `UsageError` if either can't be read, if they have no row in common, if rows can't be
    told apart, or if the results have this reader already.
    """
    path, _, column = find_column(other)
    left = read_reader(
        other, results.answer_column, lambda id, answer: results.find_fault(id, answer, form)
    )
    found = Comparison(results, path, name_reader(path, column), left)
    met, loose = set[str](), set[str]()
    for batch in mark_repeated(results, form):
        check_names(batch, found.name, results.path)
        for row, own in zip(
            batch.select(list_columns(batch)).to_pylist(), own_answers(batch), strict=True
        ):
            id, key = row["id"], f"{row.get('page')}//{row.get('row')}/{row.get('field')}"
            if id in met:
                raise UsageError(f"{results.path} has {id} twice: rows are matched by id")
            if key in loose:
                raise UsageError(f"{path} needs a column `table`: two tables have a row {key}")
            met.add(id)
            if key in left and id not in left:
                loose.add(key)
            found.add(row, own)
    if not found.read:
        has = f"one has {name_some(found.unknown)}, the other {name_some(found.lacking)}"
        raise UsageError(f"{other} and {results.path} have no row in common: {has}")
    return found


def name_reader(path: Path, column: str) -> str:
    """What the readings of a table are called. Raises `UsageError` if it is the results' own."""
    name = printable(path.name) + f":{column}" * bool(column)
    if name in (MACHINE, CORRECTED.name):
        raise UsageError(f"{path} has the name of the results' own readings: rename it")
    return name


def check_names(batch: pa.RecordBatch, name: str, path: Path) -> None:
    """Raises `UsageError` if rows have readings of this name already."""
    if READINGS.name in batch.schema.names:
        texts = batch[READINGS.name].drop_null().to_pylist()
        if any(name in parse_readings(text) for text in texts):
            raise UsageError(f"{path} has readings of {name} already: rename the other table")


def list_columns(batch: pa.RecordBatch) -> list[str]:
    """The columns that say which row it is, and what is known of it."""
    names = ("id", "page", "table", "row", "field", "truth", "review")
    return [name for name in names if name in batch.schema.names]
