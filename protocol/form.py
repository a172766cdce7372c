"""A form: which fields and tables a page has, what their values are, and the rules between them."""

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Self

from protocol.errors import UsageError
from protocol.form_file import Align, Box, check_layout, measure_blank, parse_form_file, telling
from protocol.known import Known
from protocol.rules import bind_rule, parse_rule

MAX_BOUND = 20_000  # the rules of a page take some seconds with so many values
FORM_MAGIC = b"FORM"  # the first bytes of an encoded form


@dataclass(frozen=True)
class Field:
    """One value on a page."""

    name: str
    box: Box | None
    known: Known


@dataclass(frozen=True)
class Table:
    """Values in rows and columns."""

    name: str
    box: Box | None  # None: the largest ruled table of the page
    rows: int
    columns: tuple[str, ...]  # from left to right; "" is not read
    known: Known


@dataclass(frozen=True)
class Check:
    """A rule between values, such as `valid + invalid == total`."""

    rule: str
    within: float  # both sides of an equation may differ by this much


@dataclass(frozen=True)
class Cell:
    """One place of a page where a value is read."""

    field: str  # the name of the field, or of the column
    table: str  # "" for a field
    row: int  # from 1; 0 for a field
    known: Known

    @property
    def place(self) -> tuple[str, str, int]:
        """Where it is, for `bind_rule`."""
        return self.field, self.table, self.row

    @property
    def id(self) -> str:
        """What follows the page's id: `student`, or `marks/4/c1`."""
        return f"{self.table}/{self.row}/{self.field}" if self.table else self.field


@dataclass(frozen=True)
class Form:
    """The fields, tables and rules of a page."""

    blank: bytes | None  # the file of the empty form
    align: Align  # by the blank's printed features, or by the lines of the tables
    fields: tuple[Field, ...]
    tables: tuple[Table, ...]
    checks: tuple[Check, ...]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All that is read on a page, in order: the fields, then the tables row by row."""
        cells = [Cell(one.name, "", 0, one.known) for one in self.fields]
        for table in self.tables:
            for row in range(1, table.rows + 1):
                cells += [
                    Cell(name, table.name, row, table.known) for name in table.columns if name
                ]
        return tuple(cells)

    def encode(self) -> bytes:
        """A line of JSON, and after it the blank and what is known of each field and table."""
        known = [one.known for one in self.fields] + [one.known for one in self.tables]
        parts = [self.blank or b"", *(one.encode() for one in known)]
        head = {
            "align": self.align,
            "fields": [(one.name, one.box) for one in self.fields],
            "tables": [(one.name, one.box, one.rows, one.columns) for one in self.tables],
            "checks": [(one.rule, one.within) for one in self.checks],
            "sizes": [*map(len, parts)],  # in bytes
        }
        return b"".join([FORM_MAGIC, json.dumps(head).encode(), b"\n", *parts])

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """What `encode` encoded."""
        line, _, rest = payload.removeprefix(FORM_MAGIC).partition(b"\n")
        head = json.loads(line)
        ends = pairwise(accumulate(head["sizes"], initial=0))
        blank, *parts = (rest[start:end] for start, end in ends)
        known = map(Known.decode, parts)
        return cls(
            blank or None,
            head["align"],
            tuple(Field(name, to_box(box), next(known)) for name, box in head["fields"]),
            tuple(
                Table(name, to_box(box), rows, tuple(columns), next(known))
                for name, box, rows, columns in head["tables"]
            ),
            tuple(Check(rule, within) for rule, within in head["checks"]),
        )


def to_box(sides: list[float] | None) -> Box | None:
    if sides is None:
        return None
    left, top, right, bottom = sides
    return left, top, right, bottom


def read_form(path: Path) -> Form:
    """Read the file of a form. Raises `UsageError` with the line or the key of a mistake."""
    file = parse_form_file(path)
    blank, size = None, None
    if file.blank is not None:
        with telling(f"{path}: blank"):
            blank, size = measure_blank(path.parent / file.blank)
    elif file.align == "page":
        raise UsageError(f'{path}: blank: it is missing: without one, align must be "lines"')
    with telling(str(path)):
        check_layout(file, size)
    fields, tables = [], []
    for name, field in file.fields.items():
        with telling(f"{path}: fields.{name}"):
            fields.append(Field(name, field.box, field.check(path.parent)))
    for name, table in file.tables.items():
        with telling(f"{path}: tables.{name}"):
            known = table.check(path.parent)
            tables.append(Table(name, table.box, table.rows, tuple(table.columns), known))
    checks = tuple(Check(one.rule, one.within) for one in file.checks)
    form = Form(blank, file.align, tuple(fields), tuple(tables), checks)
    places, bound = [cell.place for cell in form.cells], 0
    for number, check in enumerate(checks, 1):
        with telling(f"{path}: checks.{number}.rule"):
            for rule in parse_rule(check.rule):
                for values in bind_rule(rule, places):
                    bound += sum(map(len, values.values()))
            if bound > MAX_BOUND:
                raise UsageError(
                    f"the rules up to here connect {bound:,} values in all, counted for each time "
                    f"that a rule is held: at most {MAX_BOUND:,} can be"
                )
    return form
