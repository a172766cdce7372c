"""The fields of pages in the page of a result file: where they are, and which rules fail."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from itertools import chain, groupby
from pathlib import Path

from digitq.reports.page_image import PageImage
from producer.found_images import changed_since
from producer.record import Record
from protocol.errors import UsageError
from protocol.form import Check, Form, read_form
from protocol.rules import Rule, bind_rule, parse_rule, read_values
from protocol.text import in_one_line


def find_form(record: Record | None) -> tuple[Form | None, list[str]]:
    """The form on record, and notes if it is not what the pages were read with."""
    if not record or not record.form:
        return None, ["the form is not on record: fields are not shown where they are"]
    try:
        form = read_form(Path(record.form))
    except UsageError as error:
        return None, [f"fields are not shown where they are: {in_one_line(str(error))}"]
    if changed_since(record.form, datetime.fromisoformat(record.finished).timestamp()):
        return form, [f"{in_one_line(record.form)} may have changed since the pages were read"]
    return form, []


def sort_by_page(images: Sequence[PageImage]) -> list[PageImage]:
    """The images of a page together, in the order of the file; the page of the first one first."""
    pages = {image.page: place for place, image in reversed([*enumerate(images)])}
    return sorted(images, key=lambda image: (pages[image.page], image.number))


def tell_failed_rules(images: Sequence[PageImage], form: Form) -> None:
    """Put the rules that fail beside the fields that they bind.

    A worker has marked all values of a rule that fails.
    """
    cells = form.cells
    bound = [
        (check, rule, {key: [cells[place].id for place in each] for key, each in one.items()})
        for check in form.checks
        for rule in parse_rule(check.rule)
        for one in bind_rule(rule, [cell.place for cell in cells])
    ]
    for _, page in groupby(images, lambda image: image.page):
        failed = {image.cell: image for image in page if image.reason == "check failed"}
        for check, rule, places in bound:
            ids = {*chain(*places.values())}
            if ids <= failed.keys():
                values = {id: read_values(failed[id].answer or "") for id in ids}
                if not any(holds(check, rule, places, values, pick) for pick in (0, -1)):
                    for id in ids:
                        failed[id].rules[check.rule] = None


def holds(
    check: Check,
    rule: Rule,
    places: Mapping[str, Sequence[str]],
    values: Mapping[str, Sequence[Fraction]],
    pick: int,
) -> bool:
    """Whether a rule is satisfied by one of the values that each place may have."""
    sums = {
        key: sum(((values[id] or [Fraction(0)])[pick] for id in ids), Fraction(0))
        for key, ids in places.items()
    }
    try:
        return bool(rule.compare(rule.subtract(sums), Fraction(repr(check.within))))
    except ZeroDivisionError:
        return False
