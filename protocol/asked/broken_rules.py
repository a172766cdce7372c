"""Which rules of a form are broken by what is written on a page, and where a person should look.

A worker asks this for what it has read, and `correct` again for a person's answers.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import chain, islice, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.both_sides import tell_sides
from digitq.protocol.asked.form import Cell, Check
from digitq.protocol.asked.known import TICK, Known
from digitq.protocol.asked.rules import Rule, bind_rule, parse_rule, read_values
from digitq.protocol.asked.values import PatternAutomaton, list_values

MAX_COMBINATIONS = 256  # so many combinations of values are tried, where numbers have several
MAX_TRIED = 15_000  # a place is tried with all values of its pattern if there are no more


@dataclass(frozen=True)
class Written:
    """What a place of a page shows."""

    number: str | None  # "" if nothing is seen there; None if it could not be read
    is_sure: bool = False  # whether a person says so: an empty place is 0, and nothing else


@dataclass(frozen=True)
class Held:
    """A rule, and where it is held."""

    check: Check
    rule: Rule
    places: dict[str, list[int]]  # by the keys of the rule's values: the indexes of cells

    @property
    def within(self) -> Fraction:
        return Fraction(repr(self.check.within))

    @cached_property
    def tested(self) -> set[int]:
        """The cells of which it counts what is written there, not only what that is worth."""
        return {at for key, one in self.rule.values.items() if one.test for at in self.places[key]}

    @cached_property
    def valued(self) -> set[int]:
        """The cells of which it counts what the number is worth."""
        values = self.rule.values.items()
        return {at for key, one in values if not one.test for at in self.places[key]}

    @cached_property
    def single(self) -> set[int]:
        """The cells in whose place a number may be wanted, if they are empty."""
        alone = [key for key, one in self.rule.values.items() if not (one.is_sum or one.test)]
        return {at for key in alone for at in self.places[key]}

    def measure(self, written: Sequence[Written], worth: Sequence[Fraction]) -> dict[str, Fraction]:
        """The rule's values by their keys, if what is written in each cell is worth so much."""
        return {
            key: Fraction(
                sum(one.measure(written[at].number, worth[at]) or 0 for at in self.places[key])
            )
            for key, one in self.rule.values.items()
        }

    def is_satisfied(self, written: Sequence[Written], worth: Sequence[Fraction]) -> bool:
        """Whether it is, if what is written in each cell is worth so much."""
        try:
            difference = self.rule.subtract(self.measure(written, worth))
            return bool(self.rule.compare(difference, self.within))
        except ZeroDivisionError:
            return False

    def tell(self, written: Sequence[Written], worth: Sequence[Fraction], gaps: set[int]) -> str:
        """How it is broken, if what is written in each cell is worth so much. `gaps` are cells
        that are empty and must not be."""
        if gaps and self.is_satisfied(written, worth):
            names = [key for key, places in self.places.items() if not gaps.isdisjoint(places)]
            return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} empty"
        numbers = {
            one.names[0] if one.test else key: [written[at].number for at in self.places[key]]
            for key, one in self.rule.values.items()
        }
        is_whole = all(one is not None for each in numbers.values() for one in each)
        values = self.measure(written, worth) if is_whole else None
        return tell_sides(self.rule, numbers, values, self.within)

    def find_factor(self, at: int) -> Fraction:
        """What the worth of a cell is multiplied by in a linear rule."""
        factors = self.rule.coefficients
        values = self.rule.values.items()
        counts = {key: self.places[key].count(at) for key, one in values if not one.test}
        return sum((factors[key] * count for key, count in counts.items()), Fraction(0))


class Breach(NamedTuple):
    """A rule that is broken."""

    rule: str
    text: str  # both sides with their values, and the number that is wanted
    cells: set[int]  # the indexes of those to look at
    bound: set[int]  # the indexes of all that the rule connects
    wanted: str = ""  # the number that the rule wants in the only one to look at, if it is known


def hold_checks(cells: Sequence[Cell], checks: Iterable[Check]) -> list[Held]:
    """The rules of a page, each time that they are held."""
    places = [cell.place for cell in cells]
    return [
        Held(check, rule, bound)
        for check in checks
        for rule in parse_rule(check.rule)
        for bound in bind_rule(rule, places)
    ]


def find_breaches(
    cells: Sequence[Cell], written: Sequence[Written], held: Iterable[Held]
) -> Iterator[Breach]:
    """The rules that what is written in the cells breaks.

    If something may be written in an empty place with which a rule would be satisfied, only this
    place is to look at, else all of the rule.
    """
    values = [
        read_values(one.number) if one.number else [Fraction(0)] for one in written
    ]  # none if a number has no value
    for one in held:
        if breach := find_breach(one, cells, written, values):
            yield breach


def find_breach(
    held: Held, cells: Sequence[Cell], written: Sequence[Written], values: list[list[Fraction]]
) -> Breach | None:
    """The breach of one rule, if it is broken."""
    places = {*chain(*held.places.values())}
    # A box that is not ticked is no empty place
    ticks = {at for at in places if cells[at].known.options == TICK and written[at].number == ""}
    is_written = ticks or any(written[at].number for at in places)
    if not all(values[at] for at in held.valued) or not is_written:
        return None  # there is nothing to compare
    combinations = [*combine(values, sorted(held.valued))]
    empty = {at for at in held.single if written[at].number == "" and not written[at].is_sure}
    empty -= ticks
    gaps = empty & {at for key in held.rule.filled for at in held.places[key]}
    if not gaps and any(held.is_satisfied(written, one) for one in combinations):
        return None
    unread = {at for at in places if written[at].number is None}
    free = sorted(empty | unread)
    text = held.tell(written, combinations[0], gaps)
    if not free or not any(can_hold(held, cells, free, written, one) for one in combinations):
        return Breach(held.check.rule, text, places, places)
    if not empty:
        return None  # what could not be read is to be looked at anyway
    found = {""}
    if len(free) == 1:
        found = {find_wanted(held, free[0], written, one) for one in combinations}
    wanted = found.pop() if len(found) == 1 else ""
    text += f": {wanted} is missing" if wanted else ""
    return Breach(held.check.rule, text, empty, places, wanted)


def combine(
    values: Sequence[Sequence[Fraction]], places: Sequence[int]
) -> Iterator[list[Fraction]]:
    """Values of all cells, in each combination of those that these places may have: 12.500 may be
    twelve and a half, or twelve thousand five hundred."""
    several = [at for at in places if len(values[at]) > 1]
    first = [one[0] if one else Fraction(0) for one in values]
    for chosen in islice(product(*(values[at] for at in several)), MAX_COMBINATIONS):
        combination = first.copy()
        for at, value in zip(several, chosen, strict=True):
            combination[at] = value
        yield combination


def can_hold(
    held: Held,
    cells: Sequence[Cell],
    free: Sequence[int],
    written: Sequence[Written],
    worth: Sequence[Fraction],
) -> bool:
    """Whether the rule may be satisfied with what is possible in these cells, whose worth is 0."""
    values = held.measure(written, worth)
    if not held.tested.isdisjoint(free):
        return True  # as far as is known
    possible = list_possible(cells[free[0]].known) if len(free) == 1 else None
    if possible is not None:
        tried = {
            key: float(value) + held.places[key].count(free[0]) * possible
            for key, value in values.items()
        }
        return bool(held.rule.are_satisfied(tried, float(held.within)).any())
    if not held.rule.is_linear:
        return True
    low = high = float(held.rule.subtract(values))
    for at in free:
        factor = held.find_factor(at)
        ends = [float(factor * end) if end else 0.0 for end in bound_possible(cells[at].known)]
        low, high = low + min(0.0, *ends), high + max(0.0, *ends)
    # Only an equation needs a value between them
    differences = (low, high, 0.0) if low < 0 < high else (low, high)
    return any(held.rule.compare(one, float(held.within)) for one in differences)


def find_wanted(held: Held, at: int, written: Sequence[Written], worth: Sequence[Fraction]) -> str:
    """The number that a linear equation wants in a cell whose worth is 0; "" if it is not known."""
    is_solvable = held.rule.is_equation and held.rule.is_linear and at not in held.tested
    if not (is_solvable and (factor := held.find_factor(at))):
        return ""
    value = -held.rule.subtract(held.measure(written, worth)) / factor
    text = f"{float(value):.15g}"
    return text if Fraction(text) == value else ""


@lru_cache(maxsize=64)
def list_possible(known: Known) -> NDArray[np.float64] | None:
    """The values that a number may have, by what is known of it; None if there are too many."""
    texts = known.options or list_values(known.automaton, MAX_TRIED)
    if texts is None:
        return None
    return np.array([float(value) for text in texts for value in read_values(text)])


def bound_possible(known: Known) -> tuple[float, float]:
    """Between which values a number is, by what is known of it."""
    possible = list_possible(known)
    if possible is not None and possible.size:
        return float(possible.min()), float(possible.max())
    automaton = known.automaton
    most = automaton.digits[1] if isinstance(automaton, PatternAutomaton) else math.inf
    high = 10.0 ** min(most, 300)
    return -high if "-" in automaton.signs else 0.0, high
