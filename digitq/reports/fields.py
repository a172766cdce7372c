"""The fields of pages in the page of a result file: where they are, and which rules fail."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from itertools import chain

from digitq.form_rows import read_form_file
from producer.found_images import changed_since
from producer.record import Record
from protocol.errors import UsageError
from protocol.form import Form
from protocol.rules import Rule, bind_rule, parse_rule, read_values
from protocol.text import in_one_line


def find_form(record: Record | None) -> tuple[Form | None, list[str]]:
    """The form on record, and notes if it is not what the pages were read with."""
    if not record or not record.form:
        return None, ["the form is not on record: fields are not shown where they are"]
    try:
        form = read_form_file(record.form)
    except UsageError as error:
        return None, [f"fields are not shown where they are: {in_one_line(str(error))}"]
    if changed_since(record.form, datetime.fromisoformat(record.finished).timestamp()):
        return form, [f"{in_one_line(record.form)} may have changed since the pages were read"]
    return form, []


def find_broken_rules(form: Form, numbers: Mapping[str, str]) -> Iterator[tuple[str, set[str]]]:
    """The rules that the numbers of these cells of a page break, each with the cells that it binds.

    A worker has marked these cells: it marks all of a rule that is broken.
    """
    values = {cell: read_values(number) or [Fraction(0)] for cell, number in numbers.items()}
    for check in form.checks:
        within = Fraction(repr(check.within))
        for rule in parse_rule(check.rule):
            for places in bind_rule(rule, [cell.place for cell in form.cells]):
                ids = {key: [form.cells[one].id for one in each] for key, each in places.items()}
                cells = {*chain(*ids.values())}
                if cells <= values.keys() and not any(
                    # Each number as the first and as the last value that it may have
                    holds(rule, within, {key: [values[id][pick] for id in ids[key]] for key in ids})
                    for pick in (0, -1)
                ):
                    yield check.rule, cells


def holds(rule: Rule, within: Fraction, values: Mapping[str, Sequence[Fraction]]) -> bool:
    """Whether a rule is satisfied; `values` are by key, those of a sum are added up."""
    try:
        difference = rule.subtract({key: sum(each, Fraction(0)) for key, each in values.items()})
    except ZeroDivisionError:
        return False
    return bool(rule.compare(difference, within))
