"""Which columns of a wide table are numbers in an Excel file, and what their values are worth."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from digitq.protocol.asked.form import Form
from digitq.protocol.asked.rules import NO_AMOUNT, SEPARATOR, read_values

NO_FIELDS = ("page", "table", "row", "checks", "review")  # columns of a wide table


@dataclass
class Amounts:
    """What the values of a column show: whether all are numbers, and what their signs mean."""

    has_numbers: bool = False
    has_text: bool = False
    points: set[str] = field(default_factory=set)  # signs before decimals
    separators: set[str] = field(default_factory=set)  # signs between thousands
    unclear: set[str] = field(
        default_factory=set
    )  # signs of values such as 12.500, which may be either

    def add(self, number: str) -> None:
        """Take another value of the column into account."""
        values, signs = read_values(number), find_signs(number)
        if not values or NO_AMOUNT.match(number):
            self.has_text = True
            return
        self.has_numbers = True
        if len(values) > 1:
            self.unclear |= {*signs}
        elif signs and number.isascii():  # in 1.234½ the point is not before decimals
            *others, last = signs
            (self.separators if last in others else self.points).add(last)
            self.separators |= {*others}

    @property
    def are_clear(self) -> bool:
        """Whether each value of the column is worth one number."""
        known = self.points ^ self.separators  # a sign that is both says nothing
        return self.has_numbers and not self.has_text and self.unclear <= known

    def measure(self, number: str | None) -> float | None:
        """What a value of the column is worth; None if nothing is written."""
        if not number:
            return None
        values = read_values(number)  # the first is the one with thousands
        return float(values[-1 if self.points & {*find_signs(number)} else 0])


def find_signs(number: str) -> list[str]:
    """The points and commas between the digits of a number."""
    return SEPARATOR.findall(number.rstrip(".,-%"))


def find_amounts(batches: Iterable[pa.RecordBatch], form: Form | None) -> dict[str, Amounts]:
    """The fields of a wide table whose values are numbers in all of its rows.

    A value such as 12.500 may be worth two numbers. Other values of its column say which, or else
    the column stays text. So do numbers of a list, dates and times.
    """
    texts = {
        cell.field for cell in (form.cells if form else ()) if cell.known.is_text or cell.known.many
    }
    found: dict[str, Amounts] = {}
    for batch in batches:
        for name in batch.schema.names:
            if name not in NO_FIELDS and name not in texts:
                amounts = found.setdefault(name, Amounts())
                for number in filter(None, batch.column(name).to_pylist()):
                    amounts.add(number)
    return {name: amounts for name, amounts in found.items() if amounts.are_clear}


def measure_columns(
    batches: Iterable[pa.RecordBatch], columns: dict[str, Amounts]
) -> Iterator[pa.RecordBatch]:
    """The rows, with numbers in these columns."""
    for batch in batches:
        for name, amounts in columns.items():
            worth = pa.array(map(amounts.measure, batch.column(name).to_pylist()), pa.float64())
            batch = batch.set_column(batch.schema.get_field_index(name), name, worth)
        yield batch
