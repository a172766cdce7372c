"""How often two tables agree, and how many errors both may share."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from digitq.producer.readers import (
    MACHINE,
    READINGS,
    agree,
    own_answers,
    parse_readings,
    read_reader,
)
from digitq.producer.results import ResultFile
from digitq.producer.sinks.encoders import LISTS
from digitq.producer.sources.truth import take_truth
from digitq.protocol.asked.sample import Sample, bound_count
from digitq.protocol.chunk import CORRECTED, corrected
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find_column
from digitq.protocol.text import name_some, plural, printable
from digitq.review.corrections import Given, list_drawn
from digitq.review.people import mark_repeated
from digitq.review.scores import percent, wilson


@dataclass
class Comparison:
    """What another table says of the rows of a result file."""

    results: ResultFile
    name: str  # of the other reader
    unknown: dict[str, str]  # what it read in rows that the results lack, by id
    read: dict[str, str] = field(default_factory=dict)  # what it read in others
    # The rows in which both agree, by id: the answer, the truth, and whether it was to review
    agreed: dict[str, tuple[str, object, bool]] = field(default_factory=dict)
    compared: Counter[str] = field(default_factory=Counter)  # rows by field, and all as ""
    agreeing: Counter[str] = field(default_factory=Counter)
    # The ids of rows with one reading, by what is wrong with one table, and by the other one
    gaps: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: Mapping[str, Any], own: str | None) -> None:
        """Count the next row of the results, whose answer is this."""
        id, name = row["id"], row.get("field") or ""
        answer = take_truth(self.unknown, id, row.get("page") or "", row.get("row"), name)
        if answer is None:
            self.gaps[f"{self.name} lacks", self.results.path.name].append(id)
            return
        self.read[id] = answer
        if own is None:
            self.gaps[f"{self.results.path.name} has an error in", self.name].append(id)
            return
        is_same = agree([own, answer], self.results.is_text(id))
        for one in {f"{row['table']}/{name}" if row.get("table") else name, ""}:
            self.compared[one] += 1
            self.agreeing[one] += is_same
        if is_same:
            self.agreed[id] = own, row.get("truth"), row["review"]

    def tabulate(self) -> Iterator[str]:
        """The agreement of each field, and which rows one of the two lacks."""
        width = max([20, *(len(name) + 2 for name in self.compared)])
        yield f"{'agreement':{width}}{'rows':>10}{'agree':>10}{'share':>10}   95 % interval"
        fields = sorted(self.compared, key=lambda name: not name)  # all of them last
        for name in fields[:1] if len(fields) == 2 else fields:
            rows, same = self.compared[name], self.agreeing[name]
            figures = f"{rows:10,}{same:10,}{percent(same / rows):>10}"
            interval = " to ".join(map(percent, wilson(same, rows)))
            yield f"{name or 'all':{width}}{figures}   {interval}"
        for (what, of), ids in self.gaps.items():
            yield f"{what} {plural(len(ids), 'row')} of {of}: {name_some(ids)}"

    def measure_shared(self, given: Given | None) -> Sample | None:
        """What a random sample, or else the right answers in the results, say about the rows in
        which both agree; None if there are none.

        A sample was drawn from the unmarked rows of the results, or from those of the table with
        both readings, where all these rows are unmarked.
        """
        if given:
            drawn = list_drawn(self.results, given)
            known = {id: given.answers[id] or "" for id in drawn if id in self.agreed}
        else:
            truths = ((id, truth) for id, (_, truth, _) in self.agreed.items())
            known = {id: str(truth) for id, truth in truths if truth is not None}
        has_all = not given or any(self.agreed[id][2] for id in known)
        rows = sum(has_all or not is_marked for _, _, is_marked in self.agreed.values())
        pairs = ((id, [right, self.agreed[id][0]]) for id, right in known.items())
        wrong = sum(not agree(pair, self.results.is_text(id)) for id, pair in pairs)
        share = bound_count(wrong, len(known), rows) / rows if known else 1
        sample = Sample(unmarked=rows, looked_at=len(known), wrong=wrong, at_most=share)
        return sample if known else None


def count_readers(results: ResultFile) -> dict[str, list[int]]:
    """For each reader the rows: that it read; that others read, too, and in how many of them all
    agree with it; that differ and a person has decided, and how many for it."""
    counts = defaultdict[str, list[int]](lambda: [0] * 5)
    for batch in results.batches():
        if READINGS.name not in batch.schema.names:
            break
        columns = (batch["id"].to_pylist(), batch[READINGS.name].to_pylist(), own_answers(batch))
        for id, text, own, decided in zip(*columns, corrected(batch).to_pylist(), strict=True):
            readings = parse_readings(text)
            for name, read in readings.items():
                others = [[read, other] for key, other in readings.items() if key != name]
                same = [agree(pair, results.is_text(id)) for pair in others]
                is_decided = decided and not agree(readings.values(), results.is_text(id))
                favours = is_decided and agree([read, own or ""], results.is_text(id))
                found = (True, bool(others), bool(others) and all(same), is_decided, favours)
                counts[name] = [sum(both) for both in zip(counts[name], found, strict=True)]
    return counts


def compare_tables(results: ResultFile, other: Path) -> Comparison:
    """Compare a result file with another table, named as `find_column` finds it.

    Raises `UsageError` if either can't be read, if they have no row in common, if rows can't be
    told apart, or if the results have readings of this name.
    """
    path, _, column = find_column(other)
    left = read_reader(other, results.answer_column, results.find_fault)
    found = Comparison(results, printable(path.name) + f":{column}" * bool(column), left)
    met, loose = dict[str, None](), set[str]()
    for batch in mark_repeated(results, results.form):
        shown = batch.select([name for name in batch.schema.names if name not in LISTS])
        for row, own in zip(shown.to_pylist(), own_answers(batch), strict=True):
            id, key = row["id"], f"{row.get('page')}//{row.get('row')}/{row.get('field')}"
            readers = parse_readings(row.get(READINGS.name))
            if found.name in (MACHINE, CORRECTED.name, *readers):
                raise UsageError(f"{results.path} has readings of {found.name} already: rename it")
            if id in met:
                raise UsageError(f"{results.path} has {id} twice: rows are matched by id")
            if key in loose:
                raise UsageError(f"{path} needs a column `table`: two tables have a row {key}")
            met[id] = None
            loose |= {key} & left.keys() if id not in left else set()
            found.add(row, own)
    if not found.read:
        has = f"one has {name_some(found.unknown)}, the other {name_some(met)}"
        raise UsageError(f"{other} and {results.path} have no row in common: {has}")
    if found.unknown:
        found.gaps[f"{results.path.name} lacks", found.name] = [*found.unknown]
    return found
