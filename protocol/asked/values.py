"""Values as they are written, and the automata that say which of them are possible.

An automaton reads a value sign by sign. From `start`, `step` leads to the next state, or to None
where no value goes on so; `is_final` says whether a value may end there.
"""

import math
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray

from digitq.protocol.errors import UsageError

if TYPE_CHECKING:
    from greenery.rxelems import Mult, Pattern

NUMERALS, PUNCTUATION = "0123456789", ".,-+/:%"
FRACTIONS = {"½": Fraction(1, 2), "¼": Fraction(1, 4), "¾": Fraction(3, 4)}
ALPHABET = NUMERALS + PUNCTUATION + "".join(FRACTIONS)  # each is a class of the networks
DIGIT_SIGNS = NUMERALS + "".join(FRACTIONS)  # a value has at least one of these
VALUE_SIGNS = DIGIT_SIGNS + PUNCTUATION  # what a value is written with
MAX_DIGITS = 20  # a value has at most this many digits
MAX_CHARACTERS = 32  # a value has at most this many digits and signs together
BETWEEN = f"[{re.escape(PUNCTUATION)}]*"
WRITTEN = rf"^({BETWEEN}([{DIGIT_SIGNS}]{BETWEEN}){{1,{MAX_DIGITS}}})?$"
WRITTEN_WORDS = (
    f"1 to {MAX_DIGITS} digits or ½ ¼ ¾, with {PUNCTUATION} at most {MAX_CHARACTERS} characters"
)
SPELLED_OUT = re.compile(r"(\d) ([½¼¾])|(\d) ([13])[/⁄]([24])(?!\d)")  # as in 7 ½ and 7 1/2
SPELLED = {"1/2": "½", "1/4": "¼", "3/4": "¾"}
ILLEGIBLE = "illegible"  # stands for the answer if a person can't read an image
TWO_MARKS = "two marks"  # stands for it if a question with one answer has several marks
NO_VALUES = (ILLEGIBLE, TWO_MARKS)
NO_PUNCTUATION = str.maketrans("", "", PUNCTUATION)

DAY, MONTH, YEAR = r"(0?[1-9]|[12]\d|3[01])", "(0?[1-9]|1[0-2])", r"(\d{4}|\d{2})"
DATES = [rf"{DAY}{s}{MONTH}{s}{YEAR}|\d{{4}}{s}{MONTH}{s}{DAY}" for s in (r"\.", "/", "-")]
NAMED_PATTERNS = {
    "integer": r"\d+",
    "decimal": r"-?(\d+([.,]\d+)?|[.,]\d+)",
    "date": "|".join(DATES),
    "time": r"([01]?\d|2[0-3])(:[0-5]\d(:[0-5]\d)?|\.[0-5]\d(\.[0-5]\d)?)",
}
MAX_PATTERN = 200  # a pattern has at most this many characters
MAX_TERMS = 500  # a state of a pattern has at most this many terms
MAX_STEPS = 1 << 14  # an automaton remembers this many steps
MAX_FEW_STATES = 256  # a pattern or a list with at most this many states has few
MAX_NUMBERED = 1024  # at most this many states of an automaton have numbers
MAX_BEGINNINGS = 32  # about this many beginnings of values are kept while signs are put in
# What the library reads differently from Python: an escaped sign, a dash at a bracket's edge, {,n}
PYTHON_ONLY = re.compile(r"\\([^\w\s])|((?<=\[)-|(?<=\[\^)-|-(?=\]))|(?<=\{)(?=,)")


def is_written(text: str) -> bool:
    """Whether a text can be a number as it is written, such as `-12.5`, or nothing at all."""
    return len(text) <= MAX_CHARACTERS and re.fullmatch(WRITTEN, text) is not None


def tidy(text: str) -> str:
    """A value as results have it: without spaces around it, and with 7½ for `7 1/2`.

    A `1/2` alone stays as it is: it may be a date, or one of two.
    """
    return SPELLED_OUT.sub(_tidy_fraction, text.strip())


def _tidy_fraction(match: re.Match[str]) -> str:
    if match[1]:
        return f"{match[1]}{match[2]}"
    fraction = SPELLED.get(f"{match[4]}/{match[5]}")
    return f"{match[3]}{fraction}" if fraction else match[0]


class Automaton(Protocol):
    start: Any
    signs: str  # the punctuation that occurs in its values
    fractions: str  # those of ½, ¼ and ¾ that do

    def step(self, state: Any, sign: str) -> Any | None: ...

    def is_final(self, state: Any) -> bool: ...


class ValueSet:
    """Values that are known beforehand."""

    @cached_property
    def without_signs(self: Automaton) -> "DigitsAutomaton":
        return DigitsAutomaton(self)


class AnyValue:
    """The automaton of all values with some punctuation."""

    start, fractions = "", "".join(FRACTIONS)

    def __init__(self, signs: str) -> None:
        self.signs = signs

    def step(self, state: str, sign: str) -> str | None:
        return state if sign in DIGIT_SIGNS or sign in self.signs else None

    def is_final(self, state: str) -> bool:
        return True


AS_WRITTEN, DIGITS_ONLY = AnyValue(PUNCTUATION), AnyValue("")


class PatternPart(NamedTuple):
    """A part of a pattern, which is there `low` to `high` times."""

    inner: "str | tuple[Term, ...]"  # some of the signs, or one of some terms
    low: int
    high: float


Term = tuple[PatternPart, ...]  # parts that follow one another


class PatternAutomaton(ValueSet):
    """The automaton of a pattern: a state has the terms of which one must follow.

    V. Antimirov, "Partial derivatives of regular expressions", 1996. Steps are found when they are
    needed: a table of all could fill the memory.
    """

    def __init__(self, pattern: str) -> None:
        """Raises `UsageError` for a pattern that can't be read, or that no value matches."""
        self.pattern, terms = pattern, parse_pattern(pattern)
        self.start = frozenset(terms)
        self.step = lru_cache(MAX_STEPS)(self._step)
        self.is_final = lru_cache(MAX_STEPS)(self._is_final)
        self.signs, self.fractions = (
            "".join(sign for sign in part if count(terms, sign)[1])
            for part in (PUNCTUATION, FRACTIONS)
        )
        self.digits = count(terms, NUMERALS)  # the least and the most that a value has
        least, most = count(terms, DIGIT_SIGNS)
        if least > MAX_DIGITS or not most or count(terms, VALUE_SIGNS)[0] > MAX_CHARACTERS:
            limits = f"1 to {MAX_DIGITS} digits, and at most {MAX_CHARACTERS} characters"
            raise UsageError(f"nothing with {limits}, matches the pattern '{pattern}'")
        accepts(self, "0" * MAX_DIGITS)

    def _step(self, state: frozenset[Term], sign: str) -> frozenset[Term] | None:
        after: set[Term] = set()
        for term in state:
            after.update(advance(term, sign))
            if len(after) > MAX_TERMS:
                raise UsageError(f"the pattern '{self.pattern}' repeats too many repetitions")
        return frozenset(after) or None

    def _is_final(self, state: frozenset[Term]) -> bool:
        return any(not count([term], VALUE_SIGNS)[0] for term in state)


def advance(term: Term, sign: str) -> Iterator[Term]:
    """What may follow a sign with which the term begins."""
    if not term:
        return
    (inner, low, high), *rest = term
    again = [PatternPart(inner, max(low - 1, 0), high - 1)] if high > 1 else []
    if isinstance(inner, str):
        if sign in inner:
            yield (*again, *rest)
    else:
        for first in inner:
            for after in advance(first, sign):
                yield (*after, *again, *rest)
    if not low or not isinstance(inner, str) and not count(inner, VALUE_SIGNS)[0]:
        yield from advance(tuple(rest), sign)


def count(terms: Iterable[Term], signs: str) -> tuple[float, float]:
    """The least and the most of these signs in what matches one of the terms."""
    sums = []
    for term in terms:
        least, most = 0.0, 0.0
        for inner, low, high in term:
            if isinstance(inner, str):
                among = [sign in signs for sign in inner]
                few, many = float(all(among)), float(any(among))
            else:
                few, many = count(inner, signs)
            least += low * few
            most += high * many if many else 0.0
        sums.append((least, most))
    return min(few for few, _ in sums), max(many for _, many in sums)


def parse_pattern(pattern: str) -> tuple[Term, ...]:
    """The terms of a regular expression, or of a named one; a match is one of them.

    Raises `UsageError` if it is none, or if it needs what can't be read.
    """
    from greenery.parse import NoMatch, parse  # the library takes 80 ms to import

    text = NAMED_PATTERNS.get(pattern, pattern)
    if len(pattern) > MAX_PATTERN:
        raise UsageError(f"a pattern has at most {MAX_PATTERN} characters, not {len(pattern)}")
    try:
        with catch_warnings(action="ignore"):  # a later Python may read some brackets otherwise
            re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        names = ", ".join(NAMED_PATTERNS)
        raise UsageError(
            f"the pattern '{pattern}' is neither a regular expression ({error}) nor one of {names}"
        ) from None
    text = PYTHON_ONLY.sub(translate, text).removeprefix("^").removesuffix("$")
    unreadable: list[str] = []
    try:
        terms = convert(parse(text), unreadable)
    except (NoMatch, ValueError, IndexError, RecursionError):
        raise UsageError(
            f"the pattern '{pattern}' has a part that is not supported: it may have groups, |, "
            "[…], \\d, ., and ?, *, + or {…}"
        ) from None
    if not terms:
        needs = f"the pattern '{pattern}' needs {unreadable[0]!r}"
        raise UsageError(f"{needs}: a number has only {VALUE_SIGNS}")
    return terms


def convert(pattern: "Pattern", unreadable: list[str]) -> tuple[Term, ...]:
    """The terms of what the library read, but for those that need signs that no number has."""
    terms = (convert_term(term.mults, unreadable) for term in pattern.concs)
    return tuple(term for term in terms if term is not None)


def convert_term(parts: "tuple[Mult, ...]", unreadable: list[str]) -> Term | None:
    """Convert one term; None if it needs a sign that no number has, which is listed."""
    term = []
    for part in parts:
        low, high, inner = part.multiplier.min.v, part.multiplier.max.v, part.multiplicand
        if hasattr(inner, "concs"):
            found: Any = convert(inner, unreadable)
        else:
            found = "".join(filter(inner.accepts, VALUE_SIGNS))
            unreadable += [str(inner)] * (not found)
        if found and high != 0:
            term.append(PatternPart(found, low, math.inf if high is None else high))
        elif low:
            return None
    return tuple(term)


def translate(match: re.Match[str]) -> str:
    """What the library reads as Python reads the match: the code of a sign, or a 0 before {,n}."""
    sign = match[1] or match[2]
    return f"\\x{ord(sign):02x}" if sign else "0"


def list_values(automaton: Automaton, limit: int) -> list[str] | None:
    """All values of an automaton; None if there are more than `limit` beginnings of values."""
    found, beginnings = [], [("", automaton.start)]
    for text, state in beginnings:
        if text and automaton.is_final(state):
            found.append(text)
        for sign in DIGIT_SIGNS + automaton.signs if len(text) < MAX_CHARACTERS else "":
            if (after := automaton.step(state, sign)) is not None:
                beginnings.append((text + sign, after))
        if len(beginnings) > limit:
            return None
    return found


class ListAutomaton(ValueSet):
    """The automaton of the values in a list, which is sorted: it goes through its beginnings."""

    def __init__(self, values: NDArray[np.bytes_]) -> None:
        self.values = values
        self.start = "", 0, len(values)  # a beginning; the values from `low` to `high` have it
        self.step = lru_cache(MAX_STEPS)(self._step)
        counts = np.bincount(values.view(np.uint8), minlength=256)
        self.signs, self.fractions = (
            "".join(sign for sign in part if counts[ord(sign)]) for part in (PUNCTUATION, FRACTIONS)
        )

    def _step(self, state: tuple[str, int, int], sign: str) -> tuple[str, int, int] | None:
        before, low, high = state
        text = before + sign
        ends = np.array([encode(text), encode(text) + b"\xff"])  # all signs are before the last
        first, end = self.values[low:high].searchsorted(ends).tolist()
        return (text, low + first, low + end) if first < end else None

    def is_final(self, state: tuple[str, int, int]) -> bool:
        return bool(self.values[state[1]] == encode(state[0]))


def only_digits(value: str) -> str:
    """A value without its punctuation."""
    return value.translate(NO_PUNCTUATION)


def encode(value: str) -> bytes:
    """A value in Latin-1, where each of its signs is a byte."""
    return value.encode("latin-1")


class DigitsAutomaton:
    """The automaton of what is left of the values of another one without their signs.

    A state has all states of the other one that these digits, with any signs, lead to. States have
    numbers: all if they are few, else those that were met since `number_anew`. `DEAD` is the number
    where no value goes on so, and `UNKNOWN` where a step leads to a state without a number.
    """

    signs = ""
    DEAD, UNKNOWN, START = range(3)

    def __init__(self, values: Automaton) -> None:
        self.values, self.fractions = values, values.fractions
        self.digits = NUMERALS + values.fractions
        self.start = self._pass_signs({values.start})
        self.step = lru_cache(MAX_STEPS)(self._step)
        self.has_few_states = False
        self.number_anew()
        met = 0
        while met < len(self.is_counted) <= MAX_FEW_STATES:
            met = len(self.is_counted)
            self.find_steps(np.ones((met, len(self.digits)), bool))
        self.has_few_states = met == len(self.is_counted)
        after = self.steps[self.START : len(self.is_counted)]
        # whether all numbers are possible, as with the pattern `integer`, which has no fractions
        are_final = all(self.is_counted[self.START :])
        self.has_all = self.has_few_states and are_final and bool(after.all())

    def _step(self, state: frozenset[Any], digit: str) -> frozenset[Any] | None:
        after = {self.values.step(one, digit) for one in state} - {None}
        return self._pass_signs(after) or None

    def _pass_signs(self, states: set[Any]) -> frozenset[Any]:
        """These states, and those to which signs lead from them."""
        passed, left = set(states), [*states]
        while left:
            one = left.pop()
            after = {self.values.step(one, sign) for sign in self.values.signs} - {None} - passed
            passed |= after
            left += after
        return frozenset(passed)

    def is_final(self, state: frozenset[Any]) -> bool:
        return any(map(self.values.is_final, state))

    def number_anew(self) -> None:
        """Forget the numbers of the states if there are many: a sum must not depend on others."""
        if self.has_few_states:
            return
        self.numbers = {self.start: self.START}
        # for each number, whether a value may end there; none at all is always possible
        self.is_counted = [False, True, True]
        # (MAX_NUMBERED, digits): where each digit leads from a state, by their numbers
        self.steps = np.full((MAX_NUMBERED, len(self.digits)), self.UNKNOWN, np.intp)
        self.steps[self.DEAD] = self.DEAD

    def find_steps(self, is_wanted: NDArray[np.bool_]) -> None:
        """Look for steps that are unknown, of some of the first states: (N, digits)."""
        is_wanted = is_wanted & (self.steps[: len(is_wanted)] == self.UNKNOWN)
        states = [*self.numbers]
        for number, digit in np.argwhere(is_wanted[self.START :]).tolist():
            after = self.step(states[number], self.digits[digit])
            if after is not None and after not in self.numbers:
                if len(self.is_counted) == MAX_NUMBERED:
                    continue
                self.numbers[after] = len(self.is_counted)
                self.is_counted.append(self.is_final(after))
            found = self.DEAD if after is None else self.numbers[after]
            self.steps[self.START + number, digit] = found

    def put_signs_in(self, digits: str) -> tuple[list[str], bool]:
        """The values that have these digits, and whether these are all of them: there may be many,
        and then these are some of those with few signs.
        """
        begun, has_all = self._add_signs([("", self.values.start)])
        for digit in digits:
            after = [(text + digit, self.values.step(state, digit)) for text, state in begun]
            kept = [(text, state) for text, state in after if state is not None]
            begun, is_whole = self._add_signs(kept)
            has_all &= is_whole
        final = (text for text, state in begun if self.values.is_final(state))
        return [*filter(is_written, final)], has_all

    def _add_signs(self, begun: list[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], bool]:
        """Beginnings of values, and these with signs after them; and whether these are all."""
        found = [*begun]
        for text, state in found:  # it grows
            if len(found) >= MAX_BEGINNINGS:
                return found, False
            after = [(text + sign, self.values.step(state, sign)) for sign in self.values.signs]
            found += [(more, state) for more, state in after if state is not None]
        return found, True


def accepts(automaton: Automaton, number: str) -> bool:
    """Whether the number is possible."""
    state = automaton.start
    for sign in number:
        if (state := automaton.step(state, sign)) is None:
            return False
    return automaton.is_final(state)
