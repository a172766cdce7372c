"""What is known of a job's whole numbers beforehand: their length, and a list of those allowed."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocol.errors import UsageError

MAX_DIGITS = 20  # a number has at most this many digits
MAX_LIST_BYTES = 64 << 20  # a file of allowed numbers is at most this large
MAX_ALLOWED = 1_000_000  # a list of allowed numbers has at most this many
LENGTHS = re.compile(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?")
IS_NUMBER = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}").fullmatch


@dataclass(frozen=True, eq=False)
class Known:
    """What is known beforehand; by default nothing."""

    lengths: tuple[int, int] | None = None  # a number has from so many to so many digits
    allowed: NDArray[np.bytes_] | None = None  # sorted as text, each number once, in ASCII

    @property
    def is_nothing(self) -> bool:
        return self.lengths is None and self.allowed is None

    @property
    def fixes_length(self) -> bool:
        """Whether one length is known, or the numbers themselves."""
        return self.allowed is not None or bool(self.lengths and len({*self.lengths}) == 1)

    @classmethod
    def check(cls, length: str | int | None, allowed: Iterable[str] | None) -> Self:
        """Build it from what a person gives: a length such as `9` or `3-6`, and allowed numbers.

        Raises `UsageError` for a length that can't be, a line that is no number, an empty list, and
        a length that no allowed number has.
        """
        lengths = None if length is None else parse_lengths(str(length))
        if allowed is None:
            return cls(lengths)
        if isinstance(allowed, str | bytes) or not isinstance(allowed, Iterable):
            raise UsageError("`allowed` is a list of numbers, not a text or a path")
        listed = [*allowed]
        while listed and isinstance(listed[-1], str) and not listed[-1].strip():
            listed.pop()  # a file may end in blank lines
        numbers = [check_number(text, line) for line, text in enumerate(listed, 1)]
        if not numbers:
            raise UsageError("the list of allowed numbers is empty")
        if len(numbers) > MAX_ALLOWED:
            raise UsageError(
                f"{len(numbers):,} numbers are allowed: at most {MAX_ALLOWED:,} can be"
            )
        known = np.unique(np.array(numbers, np.bytes_))
        if lengths:
            digits = np.strings.str_len(known)
            known = known[(digits >= lengths[0]) & (digits <= lengths[1])]
            if not len(known):
                raise UsageError(f"no allowed number has the length {length}")
        return cls(lengths, known)

    def encode(self) -> bytes:
        """The lengths in the first line, then an allowed number in each line; empty for nothing."""
        first = b"" if self.lengths is None else b"%d-%d" % self.lengths
        numbers = [] if self.allowed is None else self.allowed.tolist()
        return b"\n".join([first, *numbers])

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """What `encode` encoded."""
        first, *numbers = payload.split(b"\n")
        lengths = parse_lengths(first.decode()) if first else None
        return cls(lengths, np.array(numbers, np.bytes_) if numbers else None)


@lru_cache(maxsize=4)
def name_known(payload: bytes) -> str:
    """A name of what is known, the same for the same lengths and list; empty for nothing."""
    return hashlib.sha256(payload).hexdigest()[:16] if payload else ""


def describe_known(payload: bytes) -> tuple[str | None, int | None]:
    """The length that is known, such as 9 or 3-6, and how many numbers are allowed."""
    first, _, rest = payload.partition(b"\n")
    shortest, _, longest = first.decode().partition("-")
    length = shortest if shortest == longest else f"{shortest}-{longest}"
    return length or None, rest.count(b"\n") + 1 if rest else None


def parse_lengths(text: str) -> tuple[int, int]:
    """The shortest and the longest length in `9` or `3-6`. Raises `UsageError`."""
    if match := LENGTHS.fullmatch(text):
        shortest = int(match[1])
        longest = int(match[2] or shortest)
        if 1 <= shortest <= longest <= MAX_DIGITS:
            return shortest, longest
    how = f"like 9 or 3-6, from 1 to {MAX_DIGITS} digits, the smaller number first"
    raise UsageError(f"the length {text!r} must be {how}")


def check_number(text: object, line: int) -> str:
    """The allowed number without spaces around it. Raises `UsageError` if it is none."""
    if not isinstance(text, str):
        raise UsageError(
            f"line {line} of the allowed numbers is {text!r}: it must be text, which keeps zeros "
            "at the beginning"
        )
    number = text.strip()
    if not IS_NUMBER(number):
        raise UsageError(
            f"line {line} of the allowed numbers is {text!r}: it must be 1 to {MAX_DIGITS} digits"
        )
    return number


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises `UsageError` if it can't be read or is too large."""
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise UsageError(f"{path} is larger than {MAX_LIST_BYTES >> 20} MB")
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not in UTF-8"
        raise UsageError(f"can't read {path}: {reason}") from None
