"""The fields of pages in the page of a result file: where they are, and which rules fail."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from digitq.form_rows import read_form_file
from digitq.producer.found_images import changed_since
from digitq.producer.provenance import Record
from digitq.protocol.asked.broken_rules import Written, find_breaches, hold_checks
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.rules import Place
from digitq.protocol.chunk import CORRECTED
from digitq.protocol.errors import UsageError
from digitq.protocol.text import in_one_line


def find_form(record: Record | None) -> tuple[Form | None, list[str]]:
    """The form on record, and notes if it is not what the pages were read with."""
    if not record or not record.form:
        return None, ["the form is not on record: its places, rules and names are not shown"]
    try:
        form = read_form_file(record.form)
    except UsageError as error:
        return None, [f"places, rules and names are not shown: {in_one_line(str(error))}"]
    if changed_since(record.form, datetime.fromisoformat(record.finished).timestamp()):
        return form, [f"{in_one_line(record.form)} may have changed since the pages were read"]
    return form, []


class BrokenRule(NamedTuple):
    """A rule that the rows of a page break."""

    rule: str
    text: str  # both sides with their values, such as `11 + 12 = 23, written 24 (confirmed)`
    ids: set[str]  # of the rows to look at
    bound: set[str]  # the ids of all rows that the rule connects
    is_confirmed: bool  # whether a person has given or confirmed the answers of all these


def find_broken_rules(
    form: Form, page: Iterable[Mapping[str, Any]], answers: Mapping[str, str] = MappingProxyType({})
) -> Iterator[BrokenRule]:
    """The rules that the result rows of a page break, if a person gives these answers by id. A
    worker has marked the rows to look at, too."""
    page = [*page]
    there = Counter(find_place(row)[1:] for row in page)
    whole = Counter(cell.place[1:] for cell in form.cells)
    # A table's row that was not found may be there in part, if a right answer is known for it
    rows = [row for row in page if there[find_place(row)[1:]] == whole[find_place(row)[1:]]]
    written = [
        Written(answers[row["id"]], True)
        if row["id"] in answers
        else Written(row["number"], bool(row.get(CORRECTED.name)))
        for row in rows
    ]
    places = [*map(find_place, rows)]
    each_page = {cell.place for cell in form.cells if cell.is_sure}
    if not each_page <= {*places} <= form.by_place.keys():
        return  # the form has changed, or the rows of a page were deleted
    cells = [form.by_place[place] for place in places]
    for breach in find_breaches(cells, written, hold_checks(cells, form.checks)):
        look_at, bound = ({rows[at]["id"] for at in each} for each in (breach.cells, breach.bound))
        is_confirmed = all(written[at].is_sure for at in breach.bound)
        text = f"{breach.text} (confirmed)" if is_confirmed else breach.text
        yield BrokenRule(breach.rule, text, look_at, bound, is_confirmed)


# What a card says of a rule that fails: a key that names it among all of the page, empty if it
# needs nobody; how it fails, empty where nobody needs to look; and the rule
Told = tuple[str, str, str]


def tell_rules(
    form: Form, page: Sequence[Mapping[str, Any]], answers: Mapping[str, str] = MappingProxyType({})
) -> dict[str, list[Told]]:
    """What the cards of a page's rows say of its rules, with these answers, by the rows' ids."""
    told: dict[str, list[Told]] = {row["id"]: [] for row in page}
    for number, one in enumerate(find_broken_rules(form, page, answers)):
        key = "" if one.is_confirmed else f"{page[0]['page']} {number}"
        for id in one.bound:
            told[id].append((key, one.text if id in one.ids else "", one.rule))
    return told


def find_place(row: Mapping[str, Any]) -> Place:
    """Where a row of `ResultFile.places` is on its page."""
    return row["field"], row["table"] or "", row["row"] or 0
