"""What the lists of a form say of its numbers: names, and who occurs twice or never."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as new
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from digitq.producer.found_images import changed_since
from digitq.producer.provenance import Record
from digitq.producer.results import ResultFile
from digitq.protocol.asked.form_file import list_known, name_shown, parse_form_file
from digitq.protocol.chunk import ABSENT, corrected
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find_column
from digitq.protocol.text import MAX_NAMED, in_one_line, name_some, plural

OCCURS_TWICE = "occurs twice"  # the reason to review a number that belongs in one place
TO_REVIEW = ", to review"  # follows the name of a place whose number is marked


@dataclass(frozen=True, eq=False)
class People:
    """The list of a field, or of a table's column, with the columns that `show` names."""

    columns: tuple[str, ...]  # their names in a wide table
    rows: Mapping[str, tuple[str, ...]]  # the cells of these, by the number, in the list's order
    file: str = ""  # the name of the list's file
    once: bool = False  # whether each number belongs in one place

    def describe(self, number: str | None) -> str:
        """The cells beside a number, in one line; empty if the list does not have it."""
        return in_one_line(" ".join(filter(None, self.rows.get(number or "", ()))))


NOBODY = People((), {})
Where = tuple[str, str]  # a field and its table, which is "" for none
Lists = Mapping[Where, People]


def find_people(record: Record | None) -> tuple[Lists, list[str]]:
    """The lists with `show` or `once` of the form on record, and notes if they are not what they
    were.

    The names in them are read here, and never travel to workers.
    """
    lists, notes = dict[Where, People](), dict[str, None]()
    if not record or not record.form:
        return lists, []
    folder, finished = Path(record.form).parent, datetime.fromisoformat(record.finished)
    try:
        file = parse_form_file(Path(record.form))
        names = name_shown(file)
    except UsageError:  # `find_form` says why
        return lists, []
    for _, name, table, part in list_known(file):
        once = bool(part.show and not table) if part.once is None else part.once
        if not (part.show or once):
            continue
        columns, rows = tuple(names[name, one] for one in part.show), dict[str, tuple[str, ...]]()
        path = find_column(folder / (part.allowed or ""))[0]
        try:
            rows = part.read_list(folder)
            if changed_since(str(path), finished.timestamp()):
                notes[f"{in_one_line(path.name)} may have changed since the pages were read"] = None
        except UsageError as error:
            notes[f"no names from a list: {in_one_line(str(error))}"] = None
        lists[name, table] = People(columns, rows, in_one_line(path.name), once)
    return lists, [*notes]


@dataclass
class Some:
    """Places of a kind: how many there are, and the names of the first ones."""

    count: int = 0
    first: list[str] = new(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.first) <= MAX_NAMED:
            self.first.append(name)


@dataclass
class Roll:
    """Where the numbers of a list are, each of which belongs in one place."""

    where: Where
    people: People
    places: dict[str, Some] = new(default_factory=dict)  # by the number
    strange: Some = new(default_factory=Some)  # those whose number is not in the list
    empty: Some = new(default_factory=Some)  # pages without a number
    unsure: Some = new(default_factory=Some)  # those whose number is to review

    def choose(self, batch: pa.RecordBatch) -> pa.Array:
        """Which rows of a batch of `ResultFile.places` have this field."""
        field, table = self.where
        is_in_table = pc.equal(pc.fill_null(batch["table"], ""), table)
        return pc.and_(pc.equal(batch["field"], field), is_in_table)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch of `ResultFile.places`."""
        rows = batch.filter(self.choose(batch)).select(["id", "number", "review", "reason"])
        for row in rows.to_pylist():
            place, number = self.name_place(row["id"]), row["number"]
            if number and row["review"]:
                self.unsure.add(place)
                place += TO_REVIEW
            if number in self.people.rows:
                self.places.setdefault(number, Some()).add(place)
            elif number:
                self.strange.add(f"{in_one_line(number)} ({place})")
            elif not self.where[1] and row["reason"] != ABSENT:  # rows of a table may be empty
                self.empty.add(place)

    def name_place(self, id: str) -> str:
        """The page of a row, or its page, table and row."""
        return in_one_line(id.removesuffix(f"/{self.where[0]}"))

    @property
    def repeated(self) -> list[str]:
        """The numbers that are in several places, in the order of the list."""
        return [
            one for one in self.people.rows if one in self.places and self.places[one].count > 1
        ]

    def list_others(self, row: Mapping[str, str]) -> list[str]:
        """Some of the other places that have the number of a row."""
        places = self.places.get(row["number"], Some()).first
        own = self.name_place(row["id"])
        return [one for one in places if one.removesuffix(TO_REVIEW) != own]

    def describe(self) -> Iterator[str]:
        """Lines for people: who is missing or occurs twice, and what is not in the list."""
        people, (field, table) = self.people, self.where
        on, place = ("in", "row") if table else ("on", "page")
        all_of = f"{len(people.rows):,} in {people.file}"
        missing = [self.name(one) for one in people.rows if one not in self.places]
        twice = [f"{self.name(one)} ({'; '.join(self.places[one].first)})" for one in self.repeated]
        if not (missing or twice):
            yield f"{field}: each of {all_of} is read {on} one {place}"
        for names, how in ((missing, f"no {place}"), (twice, f"several {place}s")):
            if names:
                some = f"{len(names):,} of {all_of} {'is' if len(names) == 1 else 'are'}"
                yield f"{field}: {some} read {on} {how}: {name_some(names)}"
        for some_places, how in (
            (self.strange, f"is not in {people.file}"),
            (self.empty, "is missing"),
            (self.unsure, "is to review, which may change this"),
        ):
            if count := some_places.count:
                where = f"{on} {plural(count, place)}"
                yield f"{field}: {where} it {how}: {name_some(some_places.first)}"

    def name(self, number: str) -> str:
        return f"{number} {self.people.describe(number)}".rstrip()


Rolls = Mapping[Where, Roll]


def call_rolls(results: ResultFile, lists: Lists) -> Rolls:
    """Where the numbers of those lists are whose numbers belong in one place each.

    Raises `UsageError` if a row can't be read.
    """
    rolls = {
        where: Roll(where, people) for where, people in lists.items() if people.once and people.rows
    }
    for batch in results.places() if rolls else ():
        for roll in rolls.values():
            roll.add(batch)
    return rolls


def mark_repeated(batches: Iterable[pa.RecordBatch], rolls: Rolls) -> Iterator[pa.RecordBatch]:
    """The batches of `ResultFile.places`, with numbers marked that are in several places, unless a
    person gave them."""
    repeated = {where: pa.array(roll.repeated, pa.string()) for where, roll in rolls.items()}
    for batch in batches:
        for where, roll in rolls.items():
            is_here = pc.and_(roll.choose(batch), pc.is_in(batch["number"], repeated[where]))
            is_marked = pc.and_not(is_here, corrected(batch))
            reason = pc.if_else(
                is_marked, pc.coalesce(batch["reason"], OCCURS_TWICE), batch["reason"]
            )
            for name, column in (
                ("review", pc.or_(batch["review"], is_marked)),
                ("reason", reason),
            ):
                place = batch.schema.get_field_index(name)
                batch = batch.set_column(place, batch.schema.field(place), column)
        yield batch
