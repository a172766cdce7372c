"""What is known of a job's whole numbers beforehand: a pattern, and a list of those allowed."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as new
from functools import cached_property, lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from digitq.protocol.asked.risk import RISK, Risk
from digitq.protocol.asked.values import (
    MAX_DIGITS,
    NO_VALUES,
    PUNCTUATION,
    WRITTEN_WORDS,
    AnyValue,
    Automaton,
    ListAutomaton,
    PatternAutomaton,
    accepts,
    encode,
    is_written,
    tidy,
)
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find, find_column, is_workbook, open_rows
from digitq.protocol.host.regular_files import read_regular
from digitq.protocol.text import in_one_line, name_some

MAX_LIST_BYTES = 64 << 20  # a file of allowed numbers is at most this large
MAX_ALLOWED = 1_000_000  # a list of allowed numbers has at most this many
FILL_MARKS = "X-/"
TEXT_PATTERNS = ("date", "time")  # values that are no amounts: a time may be written as 9.30
TICK = ("1",)  # the only option of a box that is ticked or not
OPTION_SEPARATOR = ","  # between several options that are marked
LENGTHS = re.compile(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?")


@dataclass(frozen=True, eq=False)
class People:
    """A list of people: what is shown beside their numbers."""

    file: Path = Path()
    columns: tuple[str, ...] = ()  # of the list, by their names
    rows: Mapping[str, tuple[str, ...]] = new(default_factory=dict)  # their cells, by the number

    def show(self, number: str | None) -> dict[str, str]:
        """The cells beside a number, by the name of the column; none if the list lacks it."""
        return dict(zip(self.columns, self.rows.get(number or "", ()), strict=False))

    def describe(self, number: str | None) -> str:
        """The same in one line."""
        return in_one_line(" ".join(filter(None, self.show(number).values())))


NOBODY = People()


NAME = TypeAdapter(str | None)  # reads what JSON has of a name


@dataclass(frozen=True, eq=False)
class Known:
    """What is known beforehand; by default nothing."""

    pattern: str | None = None  # a regular expression, or the name of one
    allowed: NDArray[np.bytes_] | None = None  # sorted as text, each number once, in Latin-1
    fill: str = ""  # those of `FILL_MARKS` that fill unused boxes, and are passed over
    risk: Risk | None = None  # what is asked of the answers that are not marked
    network: str | None = None  # the name of the one that must answer; None for any
    second_reader: bool = False  # whether a network of another make must read it, too
    options: tuple[str, ...] = ()  # the answer is the text of what is marked, and no number
    many: bool = False  # whether several options may be marked
    people: People = NOBODY  # those of the list of allowed numbers; they stay where it was read

    @property
    def is_nothing(self) -> bool:
        return self.pattern is None and self.allowed is None

    @property
    def is_text(self) -> bool:
        """Whether values are names, dates or times, whose worth says nothing."""
        return self.allowed is not None or self.pattern in TEXT_PATTERNS

    @property
    def in_words(self) -> str:
        """What a value looks like; empty if nothing is known."""
        if self.allowed is not None:
            return f"one of {len(self.allowed):,} in a list"
        length = re.fullmatch(r"\\d\{(\d+),?(\d*)\}", self.pattern or "")  # see `write_pattern`
        return (
            f"{' to '.join(filter(None, length.groups()))} digits" if length else self.pattern or ""
        )

    @property
    def no_values(self) -> Sequence[str]:
        """What a person may say in place of an answer."""
        has_one = len(self.options) > 1 and not self.many
        return NO_VALUES if has_one else NO_VALUES[:1]

    def can_be(self, answer: str) -> bool:
        """Whether a person's answer can be this one, perhaps against the pattern or the list."""
        if not self.options:
            return is_written(answer)
        marked = answer.split(OPTION_SEPARATOR) if answer else []
        return answer == self.join(marked) and len(marked) <= (
            len(self.options) if self.many else 1
        )

    def join(self, marked: Collection[str]) -> str:
        """The answer if these options are marked."""
        return OPTION_SEPARATOR.join(one for one in self.options if one in marked)

    @property
    def wanted(self) -> str:
        """What a person's answer must be, in words."""
        if self.options == TICK:
            return "1 if it is ticked"
        if self.options:
            how = f", or several with {OPTION_SEPARATOR} between" if self.many else ""
            return f"one of {', '.join(self.options)}{how}"
        return WRITTEN_WORDS

    @cached_property
    def automaton(self) -> Automaton:
        """What says which numbers are possible."""
        if self.allowed is not None:  # `check` has left out what the pattern does not match
            return ListAutomaton(self.allowed)
        if self.pattern is not None:
            return PatternAutomaton(self.pattern)
        return AnyValue("".join(sign for sign in PUNCTUATION if sign not in self.fill))

    @property
    def fixes_length(self) -> bool:
        """Whether the count of digits is known, or the numbers themselves."""
        automaton = self.automaton
        if isinstance(automaton, PatternAutomaton):
            return automaton.digits[0] == automaton.digits[1]
        return self.allowed is not None

    @classmethod
    def check(
        cls,
        length: str | int | tuple[int, int] | None = None,
        allowed: Iterable[str | int] | None = None,
        pattern: str | None = None,
        fill: str | None = None,
    ) -> Self:
        """Build it from what a person gives, see `numbers`.

        Raises `UsageError` for a length, a pattern or marks that can't be, a line that is no
        number, an empty list, and a pattern that no allowed number matches.
        """
        if length is not None:
            if pattern is not None:
                raise UsageError("a length is a pattern of digits: give one of the two")
            parts = length if isinstance(length, tuple | list) else [length]  # JSON has lists
            pattern = write_pattern("-".join(map(str, parts)))
        for name, given in (("pattern", pattern), ("fill", fill)):
            if given is not None and not isinstance(given, str):
                raise UsageError(f"the {name} is {given!r}: it must be text")
        fill = (fill or "").upper()
        if not set(fill) <= set(FILL_MARKS):
            raise UsageError(f"the fill {fill!r} must be some of {', '.join(FILL_MARKS)}")
        known = cls(pattern, None, fill)
        automaton = known.automaton
        if allowed is None:
            return known
        numbers = check_numbers(allowed)
        if pattern is not None:
            numbers = [number for number in numbers if accepts(automaton, number)]
            if not numbers:
                what = f"the pattern {pattern}" if length is None else f"the length {length}"
                raise UsageError(f"no allowed number has {what}")
        return cls(pattern, np.unique(np.array([*map(encode, numbers)])), fill)

    def encode(self) -> bytes:
        """What is known and asked as JSON in the first line, then an allowed number in each line;
        empty for nothing."""
        asked: list[Any] = [self.pattern, self.fill]
        asked += self.risk and asdict(self.risk), self.network
        asked.append([self.options, self.many] if self.options else None)
        asked.append(self.second_reader or None)
        while asked[2:] and asked[-1] is None:
            asked.pop()
        first = json.dumps(asked).encode() if any(asked) else b""
        numbers = [] if self.allowed is None else self.allowed.tolist()
        return b"\n".join([first, *numbers])

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """What `encode` encoded."""
        first, *numbers = payload.split(b"\n")
        pattern, fill, *asked = json.loads(first or b'[null, ""]')
        risk, network, choice, second_reader = [*asked, *[None] * 4][: max(4, len(asked))]
        options, many = choice or ((), False)
        allowed = np.array(numbers, np.bytes_) if numbers else None
        return cls(
            pattern,
            allowed,
            fill,
            None if risk is None else RISK.validate_python(risk),
            NAME.validate_python(network),
            bool(second_reader),
            tuple(options),
            many,
        )


@lru_cache(maxsize=4)
def name_known(payload: bytes) -> str:
    """A name of what is known, the same for the same pattern and list; empty for nothing."""
    return hashlib.sha256(payload).hexdigest()[:16] if payload else ""


def describe_known(payload: bytes) -> tuple[str | None, int | None]:
    """The pattern that is known, and how many numbers are allowed."""
    first, _, rest = payload.partition(b"\n")
    return json.loads(first or b"[null]")[0], rest.count(b"\n") + 1 if rest else None


def write_pattern(length: str) -> str:
    """The pattern of numbers with as many digits as `9` or `3-6` says. Raises `UsageError`."""
    if match := LENGTHS.fullmatch(length):
        shortest, longest = int(match[1]), int(match[2] or match[1])
        if 1 <= shortest <= longest <= MAX_DIGITS:
            return rf"\d{{{shortest}}}" if not match[2] else rf"\d{{{shortest},{longest}}}"
    how = f"like 9 or 3-6, from 1 to {MAX_DIGITS} digits, the smaller number first"
    raise UsageError(f"the length {length!r} must be {how}")


def check_numbers(allowed: Iterable[str | int]) -> list[str]:
    """The allowed numbers without spaces around them. Raises `UsageError` as `Known.check`."""
    if isinstance(allowed, str | bytes) or not isinstance(allowed, Iterable):
        raise UsageError("`allowed` is a list of numbers, not a text or a path")
    listed = [*allowed]
    while listed and isinstance(listed[-1], str) and not listed[-1].strip():
        listed.pop()  # a file may end in blank lines
    if not listed:
        raise UsageError("the list of allowed numbers is empty")
    if len(listed) > MAX_ALLOWED:
        raise UsageError(f"{len(listed):,} numbers are allowed: at most {MAX_ALLOWED:,} can be")
    return [check_number(text, line) for line, text in enumerate(listed, 1)]


def check_number(text: object, line: int) -> str:
    """The allowed number without spaces around it. Raises `UsageError` if it is none."""
    if isinstance(text, Integral) and not isinstance(text, bool):
        text = str(text)
    if not isinstance(text, str):
        raise UsageError(
            f"line {line} of the allowed numbers is {text!r}: it must be a whole number, or text, "
            "which keeps zeros at the beginning"
        )
    number = tidy(text)
    if not number or not is_written(number):
        raise UsageError(
            f"line {line} of the allowed numbers is {text!r}: it must be {WRITTEN_WORDS}",
            repr(text),
        )
    return number


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises `UsageError` as `read_text`."""
    return read_text(path).splitlines()


def read_text(path: Path) -> str:
    """The text of a file. Raises `UsageError` if it can't be read or is too large."""
    try:
        return read_regular(path, MAX_LIST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = "it is not in UTF-8" if isinstance(error, UnicodeError) else str(error)
        reason = getattr(error, "strerror", None) or reason
        raise UsageError(f"can't read {path}: {reason}") from None


def read_allowed(where: str) -> list[str]:
    """The allowed numbers in a file: one on each line, or those of `read_people`. Raises
    `UsageError` if they can't be read, or one is no number."""
    name, _, column = find_column(where)
    if not column and not is_workbook(name):
        return read_lines(name)
    return [*read_people(where).rows]


def read_people(where: str, show: Sequence[str] = ()) -> People:
    """The numbers in the column of a table that `find_column` finds, without the empty cells, and
    the cells of the columns `show`.

    Raises `UsageError` if they can't be read, if one is no number, if a column is missing, and if
    a number is there twice with different cells.
    """
    name, sheet, column = find_column(where)
    listed = dict[str, tuple[str, ...]]()
    with open_rows(name, sheet, MAX_LIST_BYTES) as rows:
        names: list[str] = rows.fieldnames or []
        if not column:
            quote = f"it has {name_some(names)}"
            raise UsageError(f"name the column, as in '{name}:COLUMN'; {quote}", quote)
        found, *beside = (find(name, names, [one.strip().lower()]) for one in (column, *show))
        for row in rows:
            number = tidy(row[found] or "")
            if not is_written(number):
                raise UsageError(
                    f"line {rows.line_num} of {name} has {number!r} in the column {column}: "
                    f"it must be {WRITTEN_WORDS}",
                    repr(number),
                )
            cells = tuple((row[one] or "").strip() for one in beside)
            if number and listed.setdefault(number, cells) != cells:
                raise UsageError(
                    f"line {rows.line_num} of {name} has {number} again, with other cells",
                    f"has {number}",
                )
    return People(name, tuple(show), listed)
