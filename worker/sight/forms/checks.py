"""Decides the values of a page together, by what is read in each place and by the rules between.

A combination of readings is as probable as the product of their chances. It counts less for each
rule that it breaks, because most people obey the rules of their form, and not all of them.

The places that rules connect are gone through one by one. A state has the sums so far of the rules
that have begun. It stands for all combinations that lead to it, so that a table with sums takes
no more time than its rows (a forward-backward search, as in hidden Markov models).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.chunk import Alternative
from protocol.form import Cell, Check
from protocol.rules import Rule, bind_rule, parse_rule, read_values
from worker.sight.numbers.recognition import MAX_ALTERNATIVES, MIN_ALTERNATIVE
from worker.sight.numbers.weighing import Proposal

BROKEN = 0.01  # what breaks a rule counts this much of what satisfies it
NOT_HELD = 0.1  # the same where a value of the rule is missing
MAX_READINGS = 12  # at most this many readings of a place are combined
MIN_CHANCE = 1e-9  # a reading has at least this chance
MAX_STATES = 500  # at most this many states are kept from one place to the next, and at most
MAX_SUMS = 4000  # ... this many sums in all of them
MIN_WAY = BROKEN**2 / 10  # less probable combinations are dropped: two rules can't make up for it
ROUNDING = 1e-9  # sides of a rule with products are equal if they differ by this share
MIXER = np.int64(-7046029254386353131)  # odd, and its bits look random
Sums = NDArray[np.float64]


class Decision(NamedTuple):
    """What is written in one place."""

    number: str
    confidence: float  # the probability of the number in all combinations
    alternatives: list[Alternative]  # up to five other numbers, the most probable first
    failed: bool  # whether a rule of this place is broken


class Option(NamedTuple):
    """A reading of a place, and a value that it may have; None if it has none."""

    number: str
    chance: float
    value: Fraction | None


@dataclass(frozen=True, eq=False)
class BoundRule:
    """A rule between certain places."""

    rule: Rule
    places: dict[str, list[int]]  # by the keys of the rule's values
    within: Fraction
    scale: int  # a linear rule is multiplied by this, so that all of its sums are whole

    @cached_property
    def factors(self) -> dict[int, list[tuple[int, Fraction]]]:
        """By place: to which of the rule's sums its value is added, and multiplied by what."""
        found = defaultdict(list)
        for index, (key, places) in enumerate(self.places.items()):
            for place in places:
                if self.rule.is_linear:
                    found[place].append((0, self.rule.coefficients[key] * self.scale))
                else:
                    found[place].append((index, Fraction(1)))
        return found

    @cached_property
    def first(self) -> int:
        return min(self.factors)

    @cached_property
    def last(self) -> int:
        return max(self.factors)

    @property
    def width(self) -> int:
        """How many sums it has, and at last the count of the values that are missing."""
        return 2 if self.rule.is_linear else len(self.places) + 1

    def add_up(self, place: int, option: Option) -> list[float]:
        """What the option of a place adds to the sums. An empty place adds nothing to a column."""
        sums = [0.0] * self.width
        for index, factor in self.factors[place]:
            sums[index] += float(factor * (option.value or 0))
        is_single = any(self.places[name] == [place] for name in self.rule.names)
        is_missing = option.value is None and (is_single or option.number > "")
        return [*sums[:-1], float(is_missing)]

    def weigh(self, sums: Sums) -> Sums:
        """What combinations with these sums, (N, width), count: 1 if the rule is satisfied."""
        if self.rule.is_linear:
            difference = sums[:, 0] + float(self.rule.coefficients[""] * self.scale)
            is_satisfied = self.rule.compare(difference, float(self.within * self.scale))
        else:
            with np.errstate(all="ignore"):  # a division by zero satisfies nothing
                left, right = self.rule.measure(dict(zip(self.places, sums.T, strict=False)), float)
                within = float(self.within) + ROUNDING * np.maximum(abs(left), abs(right))
                is_satisfied = np.isfinite(left - right) & self.rule.compare(left - right, within)
        return np.where(is_satisfied, 1.0, np.where(sums[:, -1] > 0, NOT_HELD, BROKEN))

    def is_broken(self, chosen: Mapping[int, Option]) -> bool:
        sums = np.sum([self.add_up(place, chosen[place]) for place in self.factors], 0)
        return bool(self.weigh(sums[None])[0] == BROKEN)


class Step(NamedTuple):
    """A place of the search, with S states before it and K options."""

    shares: Sums  # (S,): the probability of each state before it
    weights: Sums  # (S, K): what each option counts there
    after: NDArray[np.intp]  # (S, K): the index of the state that follows; that of zeros if dropped


def decide(
    cells: Sequence[Cell], readings: Sequence[Sequence[Proposal]], checks: Sequence[Check]
) -> list[Decision]:
    """What is written in each cell, by its readings, the best first, and the rules of the page."""
    decisions = [
        choose(one[0].number, dict(one), False) if one else Decision("", 0.0, [], False)
        for one in readings
    ]
    options = [list_options(one) for one in readings]
    for places, rules in find_connected(bind_checks(cells, options, checks)):
        steps = search(places, rules, options)
        best, shares = look_back(steps)
        chosen = {place: options[place][one] for place, one in zip(places, best, strict=True)}
        failed = {place for rule in rules if rule.is_broken(chosen) for place in rule.factors}
        for place, marginal in zip(places, shares, strict=True):
            if readings[place]:
                chances: dict[str, float] = defaultdict(float)
                for option, share in zip(options[place], marginal.tolist(), strict=True):
                    chances[option.number] += share
                decisions[place] = choose(chosen[place].number, chances, place in failed)
    return decisions


def choose(number: str, chances: Mapping[str, float], failed: bool) -> Decision:
    """The decision for one of the numbers; no alternative has more than its probability."""
    confidence = chances[number]
    others = [
        Alternative(other, min(chance, confidence))
        for other, chance in sorted(chances.items(), key=lambda one: -one[1])
        if other not in ("", number) and chance >= MIN_ALTERNATIVE
    ]
    return Decision(number, confidence, others[:MAX_ALTERNATIVES], failed)


def list_options(readings: Sequence[Proposal]) -> list[Option]:
    """The readings with their values. What could not be read is a value that is missing."""
    if not readings:
        return [Option("?", 1.0, None)]
    options = []
    for number, chance in sorted(readings, key=lambda one: -one.chance)[:MAX_READINGS]:
        values: Sequence[Fraction | None] = read_values(number) or [None]
        share = max(chance, MIN_CHANCE) / len(values)
        options += [Option(number, share, value) for value in values]
    return options


def bind_checks(
    cells: Sequence[Cell], options: Sequence[Sequence[Option]], checks: Sequence[Check]
) -> Iterator[BoundRule]:
    """The rules of a page, each time that they are held."""
    places = [cell.place for cell in cells]
    for check in checks:
        for rule in parse_rule(check.rule):
            for bound in bind_rule(rule, places):
                used = [options[one] for indexes in bound.values() for one in indexes]
                numbers = [option.value for one in used for option in one if option.value]
                numbers += rule.coefficients.values() if rule.is_linear else ()
                scale = math.lcm(*(number.denominator for number in numbers))
                yield BoundRule(rule, bound, Fraction(repr(check.within)), scale)


def find_connected(rules: Iterable[BoundRule]) -> list[tuple[list[int], list[BoundRule]]]:
    """The places that rules connect, in order, and these rules."""
    groups: list[tuple[set[int], list[BoundRule]]] = []
    for rule in rules:
        places, joined = {*rule.factors}, [rule]
        apart = []
        for group in groups:
            if group[0] & places:
                places |= group[0]
                joined = group[1] + joined
            else:
                apart.append(group)
        groups = [*apart, (places, joined)]
    return [(sorted(places), joined) for places, joined in groups]


def search(
    places: Sequence[int], rules: Sequence[BoundRule], options: Sequence[Sequence[Option]]
) -> list[Step]:
    """What may be written in places that rules connect, as far as it is probable."""
    steps = []
    shares: NDArray[Any] = np.ones(1)
    sums: dict[BoundRule, Sums] = {}  # (S, width) of the rules that have begun
    for place in places:
        sums |= {rule: np.zeros((len(shares), rule.width)) for rule in rules if rule.first == place}
        chances = np.array([option.chance for option in options[place]])
        weights = np.tile(chances, (len(shares), 1))
        ways = shares[:, None] * weights
        states, picks = np.nonzero(ways > MIN_WAY * ways.max())
        sums = {rule: each[states] for rule, each in sums.items()}
        factors = np.ones(len(states))  # the largest stays 1, whatever number of rules is broken
        for rule in [rule for rule in sums if place in rule.factors]:
            sums[rule] += np.array([rule.add_up(place, one) for one in options[place]])[picks]
            if rule.last == place:
                factors *= rule.weigh(sums.pop(rule))
                factors /= factors.max()
        weights[states, picks] *= factors
        _, firsts, merged = np.unique(
            mix(sums.values(), len(states)), return_index=True, return_inverse=True
        )
        totals = np.bincount(merged, shares[states] * weights[states, picks])
        limit = min(MAX_STATES, MAX_SUMS // max(1, sum(rule.width for rule in sums)))
        kept = np.argsort(-totals, kind="stable")[: max(1, limit)]
        numbers = np.full(len(totals), len(kept))
        numbers[kept] = range(len(kept))
        after = np.full(weights.shape, len(kept))
        after[states, picks] = numbers[merged]
        steps.append(Step(shares, weights, after))
        shares = totals[kept] / totals[kept[0]]
        sums = {rule: each[firsts[kept]] for rule, each in sums.items()}
    return steps


def mix(sums: Iterable[Sums], rows: int) -> NDArray[np.int64]:
    """A number for each row of the arrays, equal for equal rows."""
    keys = np.zeros(rows, np.int64)
    for column in (column for each in sums for column in each.T):
        bits = (column + 0.0).view(np.int64)  # -0 becomes 0
        keys = (keys ^ bits ^ (bits >> 32)) * MIXER
        keys ^= keys >> 29
    return keys


def look_back(steps: Sequence[Step]) -> tuple[list[int], list[Sums]]:
    """The options of the most probable combination, and the probabilities of each place's."""
    chances, best = np.array([1.0, 0.0]), np.array([1.0, 0.0])  # (S + 1,): of what follows a state
    marginals, choices = [], []
    for step in reversed(steps):
        follows, ways = step.weights * chances[step.after], step.weights * best[step.after]
        marginal = (step.shares[:, None] * follows).sum(0)
        marginals.append(marginal / marginal.sum())
        choices.append(ways.argmax(1))
        chances, best = (np.append(each / each.max(), 0) for each in (follows.sum(1), ways.max(1)))
    state, combination = 0, []
    for step, choice in zip(steps, reversed(choices), strict=True):
        combination.append(int(choice[state]))
        state = step.after[state, choice[state]]
    return combination, marginals[::-1]
