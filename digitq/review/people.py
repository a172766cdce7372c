"""What the lists of a form say of its numbers: names, and who occurs twice or never."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as new
from datetime import datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from digitq.producer.found_images import changed_since
from digitq.producer.results import ResultFile
from digitq.protocol.asked.form_file import list_known, name_shown, parse_form_file
from digitq.protocol.asked.known import check_numbers
from digitq.protocol.chunk import ABSENT, corrected
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find_column
from digitq.protocol.text import MAX_NAMED, in_one_line, name_some, plural

OCCURS_TWICE = "occurs twice"  # the reason to review a number that belongs in one place
TO_REVIEW = ", to review"  # follows the name of a place whose number is marked
# Kinds of places: what is wrong with their number
STRANGE, EMPTY, UNSURE = "is not in {}", "is missing", "is to review, which may change this"


@dataclass
class Places:
    """How many places there are, and the names of the first ones."""

    count: int = 0
    names: list[str] = new(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.names) <= MAX_NAMED:
            self.names.append(name)

    def join(self) -> str:
        """The first names, with an ellipsis if there are more."""
        return "; ".join([*self.names[:MAX_NAMED], *["…"] * (self.count > MAX_NAMED)])


NONE = Places()
AllPlaces = defaultdict[str, Places]


@dataclass(eq=False)
class People:
    """The list of a field, or of a table's column, with the columns that `show` names; and where
    its numbers are, if each belongs in one place."""

    field: str = ""
    table: str = ""  # "" if the field is in none
    file: str = ""  # the name of the list's file
    once: bool = False  # whether each number belongs in one place
    columns: tuple[str, ...] = ()  # their names in a wide table
    # The cells of these columns, by the number, in the order of the list
    rows: Mapping[str, tuple[str, ...]] = new(default_factory=dict)
    places: AllPlaces = new(default_factory=partial(defaultdict, Places))  # by the number
    others: AllPlaces = new(default_factory=partial(defaultdict, Places))  # by their kind

    def describe(self, number: str | None) -> str:
        """The cells beside a number, in one line; empty if the list does not have it."""
        return in_one_line(" ".join(filter(None, self.rows.get(number or "", ()))))

    def choose(self, batch: pa.RecordBatch) -> pa.Array:
        """Which rows of a batch of `ResultFile.places` have this field."""
        is_in_table = pc.equal(pc.fill_null(batch["table"], ""), self.table)
        return pc.and_(pc.equal(batch["field"], self.field), is_in_table)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch of `ResultFile.places`."""
        rows = batch.filter(self.choose(batch)).select(["id", "number", "review", "reason"])
        for row in rows.to_pylist():
            place, number = self.name_place(row["id"]), row["number"]
            if number and row["review"]:
                self.others[UNSURE].add(place)
                place += TO_REVIEW
            if number in self.rows:
                self.places[number].add(place)
            elif number:
                self.others[STRANGE].add(f"{in_one_line(number)} ({place})")
            elif not self.table and row["reason"] != ABSENT:  # rows of a table may be empty
                self.others[EMPTY].add(place)

    def name_place(self, id: str) -> str:
        """The page of a row, or its page, table and row."""
        return in_one_line(id.removesuffix(f"/{self.field}"))

    @property
    def repeated(self) -> list[str]:
        """The numbers that are in several places."""
        return [number for number, places in self.places.items() if places.count > 1]

    def list_others(self, row: Mapping[str, str]) -> list[str]:
        """Some of the other places that have the number of a row."""
        places, own = self.places.get(row.get("number") or ""), self.name_place(row["id"])
        return [one for one in (places or NONE).names if one.removesuffix(TO_REVIEW) != own]

    def call_roll(self) -> Iterator[str]:
        """Lines for people: who is missing or occurs twice, and what is not in the list."""
        on, place = ("in", "row") if self.table else ("on", "page")
        all_of = f"{len(self.rows):,} in {self.file}"
        names = {number: f"{number} {self.describe(number)}".rstrip() for number in self.rows}
        missing = [name for number, name in names.items() if number not in self.places]
        twice = [f"{names[one]} ({self.places[one].join()})" for one in self.repeated]
        if not (missing or twice):
            yield f"{self.field}: each of {all_of} is read {on} one {place}"
        for people, how in ((missing, f"no {place}"), (twice, f"several {place}s")):
            if people:
                some = f"{len(people):,} of {all_of} {'is' if len(people) == 1 else 'are'}"
                yield f"{self.field}: {some} read {on} {how}: {name_some(people)}"
        for kind in (STRANGE, EMPTY, UNSURE):
            if kind in self.others:
                where = f"{on} {plural(self.others[kind].count, place)}"
                how = kind.format(self.file)
                yield f"{self.field}: {where} it {how}: {name_some(self.others[kind].names)}"


NOBODY = People()
Lists = Mapping[tuple[str, str], People]  # by the field and its table


def find_people(results: ResultFile) -> tuple[Lists, list[str]]:
    """The lists with `show` or `once` of the form on record, and lines for people about them.

    The names are read here, and never travel to workers. Raises `UsageError` if a row can't be
    read.
    """
    lists, notes = dict[tuple[str, str], People](), dict[str, None]()
    if not (results.has_form and results.record and results.record.form):
        return lists, []
    path = Path(results.record.form)
    finished = datetime.fromisoformat(results.record.finished).timestamp()
    try:
        file = parse_form_file(path)
        names = name_shown(file)
    except UsageError:  # `find_form` says why
        return lists, []
    for _, field, table, part in list_known(file):
        once = bool(part.show and not table) if part.once is None else part.once
        if not (part.show or once):
            continue
        columns = tuple(names[field, one] for one in part.show)
        where = find_column(path.parent / (part.allowed or ""))[0]
        one = lists[field, table] = People(field, table, in_one_line(where.name), once, columns)
        try:
            listed = part.read_list(path.parent)
            if not isinstance(listed, dict):
                listed = dict.fromkeys(check_numbers(listed), ())
            one.rows = listed
            if changed_since(str(where), finished):
                notes[f"{one.file} may have changed since the pages were read"] = None
        except UsageError as error:
            notes[f"no names from a list: {in_one_line(str(error))}"] = None
            one.once = False
    called = [one for one in lists.values() if one.once]
    for batch in results.places() if called else ():
        for one in called:
            one.add(batch)
    return lists, [*notes, *(line for one in called for line in one.call_roll())]


def mark_repeated(batches: Iterable[pa.RecordBatch], people: Lists) -> Iterator[pa.RecordBatch]:
    """The batches of `ResultFile.places`, with numbers marked that are in several places, unless a
    person gave them."""
    repeated = [(one, pa.array(numbers)) for one in people.values() if (numbers := one.repeated)]
    for batch in batches:
        for one, numbers in repeated:
            is_here = pc.and_(one.choose(batch), pc.is_in(batch["number"], numbers))
            is_marked = pc.and_not(is_here, corrected(batch))
            reason = pc.coalesce(batch["reason"], OCCURS_TWICE)
            columns = dict(zip(batch.schema.names, batch.columns, strict=True)) | {
                "review": pc.or_(batch["review"], is_marked),
                "reason": pc.if_else(is_marked, reason, batch["reason"]),
            }
            batch = pa.record_batch([*columns.values()], schema=batch.schema)
        yield batch
