"""A form: which fields and tables a page has, what their values are, and the rules between them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, PlainSerializer, PlainValidator, TypeAdapter

from digitq.protocol.asked.form_file import (
    PAGE_ROWS,
    Align,
    Box,
    ChoicePart,
    Folder,
    TablePart,
    check_layout,
    measure_blank,
    parse_form_file,
    telling,
)
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.risk import Risk
from digitq.protocol.asked.rules import Place, Value, bind_rule, parse_rule, read_values
from digitq.protocol.asked.values import encode
from digitq.protocol.errors import UsageError

MAX_BOUND = 20_000  # the rules of a page take some seconds with so many values
# Gives the rows of a table by its name, the blank, its box and the number of its columns; or 0
CountRows = Callable[[str, Path, Box, int], int]
FORM_MAGIC = b"FORM"  # the first bytes of an encoded form
FORM_VERSION = b"3"  # follows them; workers that would pass over a key of the form can't read it
# What is known of a field, which travels as it does for numbers alone
Encoded = Annotated[
    Known,
    PlainValidator(lambda text: Known.decode(encode(text))),
    PlainSerializer(lambda known: known.encode().decode("latin-1"), return_type=str),
]


@dataclass(frozen=True)
class Field:
    """One value on a page."""

    name: str
    box: Box | None
    known: Encoded
    optional: bool = False  # whether it may be empty


@dataclass(frozen=True)
class Choice:
    """Questions with bubbles or boxes, of which one or several are marked."""

    names: tuple[str, ...]  # of its questions
    known: Encoded  # the options, and whether several may be marked
    box: Box  # around all bubbles
    boxes: tuple[Box, ...] = ()  # a box for each option; or else the bubbles are even in `box`
    is_across: bool = True  # whether the options of a question are side by side
    optional: bool = True  # whether nothing may be marked


@dataclass(frozen=True)
class Table:
    """Values in rows and columns."""

    name: str
    box: Box | None  # None: the largest ruled table of the page
    rows: int  # a page may have fewer of them, see `fewest`
    columns: tuple[str, ...]  # from left to right; "" is not read
    known: Encoded
    fewest: int | None = None  # a page has at least so many rows; None: all
    head: int | None = None  # so many rows of head are above; None: a page shows whether one is
    optional: bool = True  # whether its places may be empty
    own: tuple[tuple[str, Encoded], ...] = ()  # what is known of columns that differ

    @cached_property
    def column_known(self) -> tuple[Known, ...]:
        """What is known of the values in each column."""
        own = dict(self.own)
        return tuple(own.get(name, self.known) for name in self.columns)

    @property
    def row_counts(self) -> range:
        """How many rows a page may have."""
        return range(self.fewest or self.rows, self.rows + 1)


@dataclass(frozen=True)
class Check:
    """A rule between values, such as `valid + invalid == total`."""

    rule: str
    within: float  # both sides of an equation may differ by this much


def name_place(place: Place) -> str:
    """What follows the page's id in the id of a row: `student`, or `marks/4/c1`."""
    field, table, row = place
    return f"{table}/{row}/{field}" if table else field


@dataclass(frozen=True)
class Cell:
    """One place of a page where a value is read."""

    field: str  # the name of the field, or of the column
    table: str  # "" for a field
    row: int  # from 1; 0 for a field
    known: Known
    optional: bool = False  # whether it may be empty
    is_sure: bool = True  # whether each page has such a row

    @property
    def place(self) -> Place:
        return self.field, self.table, self.row

    @property
    def id(self) -> str:
        return name_place(self.place)


@dataclass(frozen=True)
class Form:
    """The fields, tables and rules of a page."""

    __pydantic_config__: ClassVar = ConfigDict(
        ser_json_bytes="base64", val_json_bytes="base64", extra="forbid"
    )

    blank: bytes | None  # the file of the empty form
    align: Align  # by the blank's printed features, or by the lines of the tables
    fields: tuple[Field, ...]
    tables: tuple[Table, ...]
    checks: tuple[Check, ...]
    risk: Risk | None = None  # what is asked of the answers that are not marked
    network: str | None = None  # the name of the one that must answer; None for any
    second_reader: bool = False  # whether a network of another make must read the numbers, too
    choices: tuple[Choice, ...] = ()

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All that is read on a page, in order: the fields, the questions, then the tables row by
        row."""
        cells = [Cell(one.name, "", 0, one.known, one.optional) for one in self.fields]
        cells += [
            Cell(name, "", 0, one.known, one.optional) for one in self.choices for name in one.names
        ]
        for table in self.tables:
            for row in range(1, table.rows + 1):
                is_sure = row <= table.row_counts.start
                cells += [
                    Cell(name, table.name, row, known, table.optional, is_sure)
                    for name, known in zip(table.columns, table.column_known, strict=True)
                    if name
                ]
        return tuple(cells)

    @cached_property
    def by_place(self) -> dict[Place, Cell]:
        return {cell.place: cell for cell in self.cells}

    @cached_property
    def by_column(self) -> dict[tuple[str, str], Known]:
        """What is known of the values of each field, or column and table; "" is any table."""
        anywhere = {(cell.field, ""): cell.known for cell in reversed(self.cells)}
        return anywhere | {(cell.field, cell.table): cell.known for cell in self.cells}

    def known_at(self, place: Place) -> Known:
        """What is known of the values at a place; nothing if the form lacks its column."""
        return self.by_column.get(place[:2], Known())

    def known_of(self, id: str) -> Known:
        """The same for the id of a row, as in `name_place`; no field is named as a column is."""
        *_, table, row, field = ["", "", *id.split("/")]
        is_cell = row.isdecimal() and (field, table) in self.by_column
        return self.known_at((field, table if is_cell else "", 0))

    def are_numbers(self, ids: Iterable[str]) -> list[bool]:
        """Whether each of these rows has a number, and not what is ticked."""
        return [not self.known_of(id).options for id in ids]

    def encode(self) -> bytes:
        """The form as it travels, in JSON with the blank in base64."""
        return FORM_MAGIC + FORM_VERSION + ENCODER.dump_json(self)

    @staticmethod
    def decode(payload: bytes) -> "Form":
        """What `encode` encoded, also in an earlier version. Raises `ValueError` for a later one,
        and for a key that is unknown: to pass it over could give wrong answers."""
        # JSON begins with a brace, so only a version is stripped: 2, or today's
        return ENCODER.validate_json(payload.removeprefix(FORM_MAGIC).lstrip(b"2" + FORM_VERSION))


ENCODER = TypeAdapter(Form)


def read_form(
    path: Path, count_rows: CountRows = lambda *_: 0, folder: Folder | None = None
) -> Form:
    """Read the file of a form. Raises `UsageError` with the line or the key of a mistake.

    If it does not say how many rows a table with a box has, `count_rows` is asked.
    """
    file, folder, blank, size = parse_form_file(path), folder or Folder(path.parent), None, None
    if file.blank is not None:
        with telling(f"{path}: blank"):
            where = folder.find(file.blank)
            blank, size = measure_blank(where)
        for name, table in file.tables.items():
            if not table.rows and table.box:
                count = count_rows(name, where, table.box, len(table.columns))
                table.rows = (count, count) if count else None
    for table in file.tables.values():
        if not table.rows and not table.box:
            table.rows = PAGE_ROWS
    with telling(str(path)):
        check_layout(file, size)
    fields, choices, tables = [], [], []
    for name, field in file.fields.items():
        with telling(f"{path}: fields.{name}"):
            fields.append(Field(name, field.box, field.check(folder), field.optional))
    for name, choice in file.choices.items():
        choices += make_choices(choice.list_names(name), choice)
    for name, table in file.tables.items():
        with telling(f"{path}: tables.{name}"):
            tables.append(make_table(name, table, folder))
    checks = tuple(Check(one.rule, one.within) for one in file.checks)
    form = Form(
        blank,
        file.align,
        tuple(fields),
        tuple(tables),
        checks,
        second_reader=file.second_reader,
        choices=tuple(choices),
    )
    check_shown(form, path)
    check_rules(form, path)
    return form


def make_choices(names: Sequence[str], part: ChoicePart) -> list[Choice]:
    """The questions that this part of the form's file describes: a choice for each block."""
    known = Known(options=tuple(part.options), many=part.many)
    if count := part.rows or part.columns:
        blocks = [names[at : at + count] for at in range(0, len(names), count)]
        return [
            Choice(tuple(block), known, box, (), bool(part.rows), part.optional)
            for block, box in zip(blocks, part.areas, strict=True)
        ]
    lefts, tops, rights, bottoms = zip(*part.areas, strict=True)
    box = min(lefts), min(tops), max(rights), max(bottoms)
    is_across = box[2] - box[0] >= box[3] - box[1]
    return [Choice(tuple(names), known, box, tuple(part.boxes or ()), is_across, part.optional)]


def make_table(name: str, part: TablePart, folder: Folder) -> Table:
    """The table that this part of the form's file describes. Raises `UsageError`."""
    own = []
    for column in part.columns:
        if column.has_own:
            with telling(f"columns.{column.name}"):
                own.append((column.name, column.check(folder)))
    fewest, most = part.rows or (0, 0)
    return Table(
        name,
        part.box,
        most,
        tuple(column.name for column in part.columns),
        part.check(folder),
        fewest,
        part.head,
        part.optional,
        tuple(own),
    )


def check_shown(form: Form, path: Path) -> None:
    """Raises `UsageError` if two columns of a wide table would have one name."""
    names = Counter({cell.field for cell in form.cells})
    shown = {(cell.field, one) for cell in form.cells for one in cell.known.people.columns}
    names.update(one for _, one in shown)
    name, count = names.most_common(1)[0]
    if count > 1:
        raise UsageError(f"{path}: show: {name!r} is the name of two columns: rename this one")


def check_rules(form: Form, path: Path) -> None:
    """Raises `UsageError` for a rule that can't be read or held, and for too many."""
    places, bound = [cell.place for cell in form.cells], 0
    for number, check in enumerate(form.checks, 1):
        with telling(f"{path}: checks.{number}.rule"):
            for rule in parse_rule(check.rule):
                for values in bind_rule(rule, places):
                    bound += sum(map(len, values.values()))
                    for key, value in rule.values.items():
                        for at in values[key]:
                            check_value(key, value, form.cells[at])
            if bound > MAX_BOUND:
                raise UsageError(
                    f"the rules up to here connect {bound:,} values in all, counted for each time "
                    f"that a rule is held: at most {MAX_BOUND:,} can be"
                )


def check_value(key: str, value: Value, cell: Cell) -> None:
    """Raises `UsageError` if a text is no answer of its place, or the answers are no numbers."""
    known, name = cell.known, cell.field
    listed = f"{', '.join(known.options)}{', or several of them' if known.many else ''}"
    if value.text is not None and not known.can_be(value.text):
        answers = f"is one of {listed}" if known.options else f"has {known.wanted}"
        raise UsageError(f"`{key}`: {name} {answers}")
    has_worth = not known.many and all(map(read_values, known.options))
    if value.fault and known.options:
        raise UsageError(f"`{key}`: {name} is {listed}: only a number has a check digit")
    if not value.test and not has_worth:
        raise UsageError(
            f"`{key}`: {name} is no number, but {listed}: compare it, as in "
            f"({name} == {known.options[0]!r})"
        )
