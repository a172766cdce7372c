"""The file that describes a form: what it may say, and the mistakes in it that are told."""

import io
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal
from warnings import catch_warnings

import PIL.Image
import PIL.ImageOps
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from digitq.protocol.asked.known import (
    NOBODY,
    OPTION_SEPARATOR,
    TICK,
    Known,
    read_allowed,
    read_people,
    read_text,
)
from digitq.protocol.asked.rules import MAX_NUMBER
from digitq.protocol.asked.values import NO_VALUES
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find_column
from digitq.protocol.formats.pdf import PDF, PageError, measure_page
from digitq.protocol.host.regular_files import read_regular
from digitq.protocol.settings import settings

MAX_CELLS = 2000  # a page has at most this many values, whose rows travel together
MAX_HEAD = 5  # a table has at most this many rows of head
PAGE_ROWS = 1, 100  # a table that is found by its lines has so many rows if the form does not say
# Columns of the wide table that are no fields, and those that are written in another way
RESULT_NAMES = ("page", "table", "row", "digits", "alternatives", "probabilities")
RESERVED_NAMES = (*RESULT_NAMES, "review", "checks")  # columns of results and of wide tables
MAX_BUBBLES = 4000  # a form has at most this many, in all of its questions
MIN_MARK_SIDE = 5  # px of the blank: a smaller box shows no mark
MAX_MARK_SHAPE = 20  # a box to mark is at most so many times as long as wide
MAX_OPTIONS = 64  # a question has at most this many options
MAX_SHOWN = 200  # a message shows at most so many characters of what a key says
MAX_OPTION = 32  # the text of an option has at most this many characters
Align = Literal["page", "lines"]
Kind = Literal["number", "mark"]  # what is in a field or a cell: a mark is there or not
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
# Left, top, right and bottom in px of the blank
SidesOfBox = tuple[NotNegative, NotNegative, NotNegative, NotNegative]


def check_name(name: str) -> str:
    if "/" in name or name != name.strip() or not name.isprintable():
        raise ValueError("a name has no /, and no space around it")
    return name


def refuse_column(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError("a column of results has this name: choose another one")
    return name


def check_area(box: SidesOfBox) -> SidesOfBox:
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError("a box is left, top, right, bottom, and has an area")
    return box


def read_rows(rows: Any) -> tuple[int, int]:
    """The fewest and the most rows that `14` or `"1-40"` says."""
    text = str(rows) if type(rows) in (int, str) else ""
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text, re.ASCII)
    fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= fewest <= most <= MAX_CELLS:
        raise ValueError(f'rows are like 14 or "1-40", from 1 to {MAX_CELLS:,}')
    return fewest, most


Box = Annotated[SidesOfBox, AfterValidator(check_area)]
Column = Annotated[str, AfterValidator(check_name), AfterValidator(refuse_column)]
Name = Annotated[str, Field(min_length=1), AfterValidator(check_name)]
FieldName = Annotated[Name, AfterValidator(refuse_column)]


def check_option(option: str) -> str:
    if option in NO_VALUES:
        raise ValueError("this word says that there is no value")
    if OPTION_SEPARATOR in option or option != option.strip() or not option.isprintable():
        raise ValueError(f"an option has no {OPTION_SEPARATOR}, and no space around it")
    return option


def check_names(names: list[str]) -> list[str]:
    named = [name for name in names if name]
    if not named or len({*named}) < len(named):
        raise ValueError("there must be a name, and none twice")
    return names


Option = Annotated[str, Field(min_length=1, max_length=MAX_OPTION), AfterValidator(check_option)]


@dataclass(frozen=True)
class Folder:
    """Where the files are that a form names."""

    path: Path
    is_closed: bool = False  # whether it may only name those below, and `given`
    given: Path | None = None

    def find(self, name: str) -> Path:
        """A file that the form names. Raises `UsageError` if it may not."""
        found = self.path / name
        if self.is_closed:
            real = Path(os.path.realpath(find_column(found)[0]) if "\0" not in name else "")
            homes = [os.path.realpath(one) for one in (self.path, self.given) if one]
            if not any(real.is_relative_to(home) for home in homes):
                raise UsageError(
                    f"{name} is outside of the form's folder, where the editor reads no file"
                )
        return found


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid")


class KnownPart(StrictModel):
    """What is known of values, as the options of the command line say it."""

    length: Any = None  # `Known.check` tells what is wrong with it
    pattern: str | None = None
    fill: str | None = None
    allowed: str | None = None  # a file, or `FILE.csv:COLUMN`, relative to the form's file
    show: Annotated[
        list[FieldName], Field(max_length=MAX_CELLS), AfterValidator(check_names)
    ] = []  # columns of this table
    kind: Kind = "number"

    def check(self, folder: Folder) -> Known:
        if self.kind == "mark":
            if told := [name for name in KNOWN_KEYS if getattr(self, name)]:
                raise UsageError(f"a mark has no {told[0]}: that is of numbers")
            return Known(options=TICK)
        if self.allowed is None and self.show:
            raise UsageError('`show` needs a list: allowed = "FILE.csv:COLUMN"')
        where = str(folder.find(self.allowed or ""))
        people = read_people(where, self.show) if self.show else NOBODY
        allowed = [*people.rows] or (None if self.allowed is None else read_allowed(where))
        known = Known.check(self.length, allowed, self.pattern, self.fill)
        return replace(known, people=people)


KNOWN_KEYS = [name for name in KnownPart.model_fields if name != "kind"]


class FieldPart(KnownPart):
    box: Box
    optional: Annotated[bool, Field(strict=True)] = False


class ChoicePart(StrictModel):
    """Questions with bubbles or boxes: those of one, or of one in each row or column."""

    options: Annotated[list[Option], Field(max_length=MAX_OPTIONS), AfterValidator(check_names)]
    # A box for each option of one question; with `rows` or `columns`, one around each block
    boxes: Annotated[list[Box], Field(max_length=MAX_BUBBLES)] | None = None
    box: Box | None = None  # around all bubbles, which are evenly spread in it
    many: Annotated[bool, Field(strict=True)] = False
    rows: Annotated[int, Field(strict=True, ge=1, le=MAX_CELLS)] | None = None
    columns: Annotated[int, Field(strict=True, ge=1, le=MAX_CELLS)] | None = None
    optional: Annotated[bool, Field(strict=True)] = True

    def check_boxes(self) -> None:
        """Raises `UsageError` if it is not clear where the bubbles are."""
        if bool(self.boxes) == bool(self.box):
            raise UsageError(
                "where are its bubbles? Give `boxes`, one for each option, or the `box` around them"
            )
        if self.rows and self.columns:
            raise UsageError(
                "rows are questions below each other, columns are questions side by side: give one"
            )
        if self.boxes is None or self.rows or self.columns:
            return
        if len(self.boxes) != len(self.options):
            count = f"{len(self.options)} options and {len(self.boxes)} boxes"
            raise UsageError(f"there are {count}: each option has one")

    @property
    def areas(self) -> list[SidesOfBox]:
        """What it has of the page: a box for each option, or one around all bubbles."""
        return [*(self.boxes or ()), *([self.box] if self.box else ())]

    def list_single(self) -> list[SidesOfBox]:
        """The boxes of which each is one bubble."""
        return [] if self.rows or self.columns else [*(self.boxes or ())]

    @property
    def count(self) -> int:
        """How many questions there are; 0 for one without a number."""
        return (self.rows or self.columns or 0) * len(self.areas)

    def list_names(self, name: str) -> list[str]:
        """The names of the questions: of one that of the choice, of several with a number."""
        return [f"{name}{number}" for number in range(1, self.count + 1)] or [name]


class ColumnPart(KnownPart):
    """A column of a table. What is known of its values is that of the table, or its own."""

    name: Column

    @property
    def has_own(self) -> bool:
        """Whether it says itself what is known of its values."""
        return self.model_fields_set > {"name"}


def name_column(column: Any) -> Any:
    return {"name": column} if isinstance(column, str) else column


def check_columns(columns: list[ColumnPart]) -> list[ColumnPart]:
    check_names([column.name for column in columns])
    return columns


class TablePart(KnownPart):
    box: Box | None = None
    rows: Annotated[tuple[int, int], BeforeValidator(read_rows)] | None = None
    head: Annotated[int, Field(strict=True, ge=0, le=MAX_HEAD)] | None = None
    optional: Annotated[bool, Field(strict=True)] = True
    columns: Annotated[
        list[Annotated[ColumnPart, BeforeValidator(name_column)]],
        Field(max_length=MAX_CELLS),
        AfterValidator(check_columns),
    ]


class CheckPart(StrictModel):
    rule: str
    within: Annotated[NotNegative, Field(le=MAX_NUMBER)] = 0.0


class FormFile(StrictModel):
    blank: str | None = None
    align: Align = "page"
    fields: dict[FieldName, FieldPart] = {}
    choices: dict[FieldName, ChoicePart] = {}
    tables: dict[Name, TablePart] = {}
    checks: Annotated[list[CheckPart], Field(max_length=MAX_CELLS)] = []
    second_reader: bool = False
    key: dict[str, Any] | None = None  # `read_key` tells what is wrong with it


KINDS_OF_PART: dict[str, type[StrictModel]] = {
    "fields": FieldPart,
    "choices": ChoicePart,
    "tables": TablePart,
    "checks": CheckPart,
}


def parse_form_file(path: Path) -> FormFile:
    """What the file says. Raises `UsageError` with the line or the key of a mistake."""
    try:
        text = read_text(path)
    except UsageError as error:
        raise UsageError(f"{error}; `digitq form new` makes a form's file") from None
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    with telling(str(path)):
        return validate_form(content)


def validate_form(content: Any) -> FormFile:
    """A form as its file says it. Raises `UsageError` with the key of a mistake."""
    try:
        file = FormFile.model_validate(content)
    except ValidationError as error:
        # An unknown key tells more than the one that it is a misspelling of, and that is missing
        mistake = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        keys = [one + 1 if isinstance(one, int) else one for one in mistake["loc"]]  # from 1
        where = [str(one) for one in keys if one != "[key]"]
        is_column = "columns" in where[2:]
        where = where[:-1] if is_column and where[-1] == "name" else where
        match mistake["type"]:
            case "missing":
                message = "it is missing"
            case "extra_forbidden":
                kind = KINDS_OF_PART[where[0]] if where[1:] else FormFile
                known = (ColumnPart if is_column else kind).model_fields
                message = f"there is no such key; there are {', '.join(known)}"
            case _:
                reason = mistake["msg"].removeprefix("Value error, ")
                message = f"{mistake['input']!r:.{MAX_SHOWN}}: {reason}"
        raise UsageError(f"{'.'.join(where)}: {message}") from None
    check_counts(file)
    return file


@contextmanager
def telling(where: str) -> Iterator[None]:
    """Puts the file and the key before the text of a `UsageError`."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{where}: {error}", error.quote) from None


def measure_blank(path: Path) -> tuple[bytes, tuple[int, int]]:
    """An empty form's bytes, and its width and height in px. Raises `UsageError`."""
    try:
        content = read_regular(path, settings().image_bytes)
        if content.startswith(PDF):
            return content, measure_page(content)
        with catch_warnings(action="ignore"):
            image = PIL.Image.open(io.BytesIO(content), formats=["PNG", "JPEG"])
            return content, PIL.ImageOps.exif_transpose(image).size
    except OSError as error:
        reason = error.strerror or "it is no PNG, JPEG or PDF, or damaged"
    except PageError as error:
        reason = str(error)
    except (PIL.Image.DecompressionBombError, RuntimeError, SyntaxError, ValueError):
        reason = "it is damaged or too large"
    raise UsageError(f"can't read {path}: {reason}")


def list_fields(file: FormFile) -> list[str]:
    """The names of fields and questions. Raises `UsageError` if one is there twice."""
    names = [*file.fields]
    for key, choice in file.choices.items():
        for name in choice.list_names(key):
            if name in names:
                raise UsageError(f"choices.{key}: {name!r} is the name of another field, too")
            names.append(name)
    return names


def check_layout(file: FormFile, size: tuple[int, int] | None) -> None:
    """Raises `UsageError` with the key of what does not fit. `size` is that of the blank in px."""
    check_counts(file)  # of the rows that were found, too
    if file.align == "page" and not size:
        raise UsageError('blank: it is missing: without one, align must be "lines"')
    places: list[tuple[str, SidesOfBox | None]]
    places = [(f"fields.{name}", part.box) for name, part in file.fields.items()]
    places += [(f"tables.{name}", part.box) for name, part in file.tables.items()]
    places += list_choices(file)
    without = [key for key, box in places if not box]
    if without[file.align == "lines" :]:
        only = 'only with align = "lines" one table, the largest, needs none'
        raise UsageError(f"{without[-1]}.box: it is missing: {only}")
    for key, box in places:
        if box and not size:
            raise UsageError(f"{key}.box: a box is in px of the blank, and there is none")
        if box and size and (box[2] > size[0] or box[3] > size[1]):
            raise UsageError(f"{key}.box: it is outside of the blank of {size[0]}×{size[1]} px")
    for name, choice in file.choices.items():
        with telling(f"choices.{name}"):
            choice.check_boxes()
    check_marks(file)
    check_values(file, size is not None)


def check_values(file: FormFile, has_blank: bool) -> None:
    """Raises `UsageError` for a name that is there twice, unclear rows, and a form of nothing."""
    names = list_fields(file)
    for name, table in file.tables.items():
        check_rows(name, table, has_blank)
        if both := [column.name for column in table.columns if column.name in names]:
            raise UsageError(f"tables.{name}.columns: {both[0]!r} is the name of a field, too")
    if not names and not file.tables:
        raise UsageError("the form has no field")


def check_counts(file: FormFile) -> None:
    """Raises `UsageError` for too many values or bubbles, before all that takes long for many."""
    count = len(file.fields) + sum(one.count or 1 for one in file.choices.values())
    for table in file.tables.values():
        count += sum(bool(column.name) for column in table.columns) * (table.rows or (1, 1))[1]
    if count > MAX_CELLS:
        raise UsageError(f"a form has at most {MAX_CELLS:,} values, not {count:,}")
    bubbles = sum(
        max(len(one.options) * (one.count or 1), len(one.areas)) for one in file.choices.values()
    )
    if bubbles > MAX_BUBBLES:
        raise UsageError(f"a form has at most {MAX_BUBBLES:,} bubbles, not {bubbles:,}")


def list_choices(file: FormFile) -> list[tuple[str, SidesOfBox]]:
    """The areas of all questions, with their keys."""
    return [(f"choices.{name}", box) for name, part in file.choices.items() for box in part.areas]


def check_marks(file: FormFile) -> None:
    """Raises `UsageError` for marks that would be read in two places, or are too thin."""
    marks = [(f"fields.{name}", one.box) for name, one in file.fields.items() if one.kind == "mark"]
    single = [
        (f"choices.{name}", box) for name, one in file.choices.items() for box in one.list_single()
    ]
    for name, (left, top, right, bottom) in [*marks, *single]:
        short, long = sorted([right - left, bottom - top])
        if short < MIN_MARK_SIDE or long > MAX_MARK_SHAPE * short:
            raise UsageError(f"{name}: a box to mark is at least {MIN_MARK_SIDE} px wide and high")
    for (name, one), (other, box) in combinations([*marks, *list_choices(file)], 2):
        if one[0] < box[2] and box[0] < one[2] and one[1] < box[3] and box[1] < one[3]:
            raise UsageError(f"{other}: the box {[*box]} overlaps {[*one]} of {name}")


def check_rows(name: str, table: TablePart, has_blank: bool) -> None:
    """Raises `UsageError` if it is not clear which rows a table has."""
    if not table.rows:
        raise UsageError(
            f"tables.{name}.rows: it is missing, and no lines of a blank show it: give it, or "
            "have `digitq form new` propose the table"
        )
    if not table.box and all(
        (one if one.has_own else table).kind == "mark" for one in table.columns if one.name
    ):
        raise UsageError(
            f"tables.{name}.box: it is missing: only numbers show which way up a table is"
        )
    is_open = table.rows[0] < table.rows[1]
    if table.box and is_open:
        raise UsageError(
            f"tables.{name}.rows: a table with a box has as many rows as on the blank: give their "
            'number, or leave out the box with align = "lines"'
        )
    if table.box and table.head is not None:
        raise UsageError(f"tables.{name}.head: a box is without the head: leave this out")
    if is_open and table.head is None and not has_blank:
        raise UsageError(
            f"tables.{name}.head: it is missing: where the number of rows is open, and no blank "
            "shows the head, give how many rows of head are above, such as 0 or 1"
        )
