"""What the lists of a form say of its numbers, such as the names of students."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from digitq.producer.found_images import changed_since
from digitq.producer.provenance import Record
from digitq.protocol.asked.form_file import list_known, name_shown, parse_form_file
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find_column
from digitq.protocol.text import in_one_line


@dataclass(frozen=True, eq=False)
class People:
    """The list of a field, or of a table's column, with the columns that `show` names."""

    columns: tuple[str, ...]  # their names in a wide table
    rows: Mapping[str, tuple[str, ...]]  # the cells of these, by the number, in the list's order

    def describe(self, number: str | None) -> str:
        """The cells beside a number, in one line; empty if the list does not have it."""
        return in_one_line(", ".join(filter(None, self.rows.get(number or "", ()))))


NOBODY = People((), {})
Lists = Mapping[tuple[str, str], People]  # by the field and its table, which is "" for none


def find_people(record: Record | None) -> tuple[Lists, list[str]]:
    """The lists with `show` of the form on record, and notes if they are not what they were.

    The names in them are read here, and never travel to workers.
    """
    lists, notes = dict[tuple[str, str], People](), dict[str, None]()
    if not record or not record.form:
        return lists, []
    folder, finished = Path(record.form).parent, datetime.fromisoformat(record.finished)
    try:
        file = parse_form_file(Path(record.form))
        names = name_shown(file)
    except UsageError:  # `find_form` says why
        return lists, []
    for _, name, table, part in list_known(file):
        if not part.show:
            continue
        columns, rows = tuple(names[name, one] for one in part.show), dict[str, tuple[str, ...]]()
        where = in_one_line(part.allowed or "")
        try:
            rows = part.read_shown(folder)
            if changed_since(str(find_column(folder / where)[0]), finished.timestamp()):
                notes[f"{where} may have changed since the pages were read"] = None
        except UsageError as error:
            notes[f"{', '.join(part.show)} of {where} not shown: {in_one_line(str(error))}"] = None
        lists[name, table] = People(columns, rows)
    return lists, [*notes]
