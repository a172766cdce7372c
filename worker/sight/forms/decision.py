"""Decides the values of a page together, by what is read in each place and by the rules between.

A combination of readings is as probable as the product of their chances. It counts less for each
rule that it breaks, because most people obey the rules of their form, and not all of them.

The places that rules connect are gone through one by one. A state has the sums so far of the rules
that have begun. It stands for all combinations that lead to it, so that a table with sums takes
no more time than its rows (a forward-backward search, as in hidden Markov models). Where too many
sums are open at once, as in a wide table with sums in both directions, each rule is searched alone,
and rules tell each other what they find (loopy belief propagation). The work is counted and not
timed, so that a page has the same answers on any machine.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.broken_rules import Held, Written, find_breaches, hold_checks
from digitq.protocol.asked.form import Cell, Check
from digitq.protocol.asked.rules import Rule, read_values
from digitq.protocol.chunk import Alternative
from digitq.worker.sight.numbers.recognition import MAX_ALTERNATIVES, MIN_ALTERNATIVE
from digitq.worker.sight.numbers.weighing import Proposal

BROKEN = 0.01  # what breaks a rule counts this much of what satisfies it
NOT_HELD = 0.1  # what lacks a value of a rule counts this much of what satisfies it
MAX_READINGS = 12  # at most this many readings of a place are combined
MIN_CHANCE = 1e-9  # a reading has at least this chance
MAX_STATES = 500  # at most this many states are kept from one place to the next
MIN_WAY = BROKEN**2 / 10  # less probable combinations are dropped: two rules can't make up for it
MAX_OPEN_SUMS = 500  # at most this many, counted at each place, and rules are decided at once
MAX_VISITS = 10_000  # places that are gone through, on a page whose rules have their turns
MIN_CHANGE = 0.01  # if a probability changes by more, the rules of its place have another turn
MIXER = np.int64(-7046029254386353131)  # odd, and its bits look random
Sums = NDArray[np.float64]


class Decision(NamedTuple):
    """What is written in one place."""

    number: str
    confidence: float  # the probability of the number in all combinations
    alternatives: list[Alternative]  # up to five other numbers, the most probable first
    failed: bool  # whether a rule is broken, and this place is to look at for it


class Option(NamedTuple):
    """A reading of a place, and what it may be worth; None if it is worth nothing."""

    number: str | None  # None: it could not be read
    chance: float
    worth: Fraction | None


@dataclass(frozen=True, eq=False)
class BoundRule:
    """A rule between certain places."""

    rule: Rule
    within: Fraction
    scale: int  # a linear rule is multiplied by this, so that all of its sums are whole
    added: dict[int, Sums]  # by place: what each option adds to the sums of the rule, (K, width)

    @classmethod
    def bind(
        cls,
        held: Held,
        options: Sequence[Sequence[Option]],
    ) -> Self:
        """The rule between its places. A linear rule has one sum, another one has one for each
        key; the last column counts the values that are missing. An empty place adds 0 to a column,
        but is no digit of a number.
        """
        rule, places = held.rule, held.places
        used = [one.worth for at in held.valued for one in options[at]]
        numbers = [worth for worth in used if worth]
        numbers += rule.coefficients.values() if rule.is_linear else ()
        scale = math.lcm(*(number.denominator for number in numbers))
        added = dict[int, Sums]()
        for index, (key, value) in enumerate(rule.values.items()):
            factor = rule.coefficients[key] * scale if rule.is_linear else 1
            for place in places[key]:
                here, width = options[place], 2 if rule.is_linear else len(places) + 1
                sums = added.setdefault(place, np.zeros((len(here), width)))
                found = [value.measure(one.number, one.worth) for one in here]
                empty = math.nan if key in rule.filled else 0.0  # nothing is satisfied with NaN
                sums[:, 0 if rule.is_linear else index] += [
                    empty if one.number == "" and x is None else float(factor * (x or 0))
                    for x, one in zip(found, here, strict=True)
                ]
                sums[:, -1] += [
                    x is None and not (value.is_sum and one.number == "")
                    for x, one in zip(found, here, strict=True)
                ]
        return cls(rule, held.within, scale, added)

    @cached_property
    def first(self) -> int:
        return min(self.added)

    @cached_property
    def last(self) -> int:
        return max(self.added)

    def weigh(self, sums: Sums) -> Sums:
        """What combinations with these sums, (N, width), count: 1 if the rule is satisfied."""
        if self.rule.is_linear:
            difference = sums[:, 0] + float(self.rule.coefficients[""] * self.scale)
            is_satisfied = self.rule.compare(difference, float(self.within * self.scale))
        else:
            values = dict(zip(self.rule.keys, sums.T, strict=False))
            is_satisfied = self.rule.are_satisfied(values, float(self.within))
        return np.where(is_satisfied, 1.0, np.where(sums[:, -1] > 0, NOT_HELD, BROKEN))


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
        choose(one[0].number, dict(one)) if one else Decision("", 0.0, [], False)
        for one in readings
    ]
    held = hold_checks(cells, checks)
    checked = {at for one in held if one.rule.has_check_digit for at in one.tested}
    options = [list_options(one, at in checked) for at, one in enumerate(readings)]
    for places, rules in find_connected(BoundRule.bind(one, options) for one in held):
        read = {place: np.array([one.chance for one in options[place]]) for place in places}
        open_sums = sum(rule.first <= place <= rule.last for rule in rules for place in places)
        if open_sums <= MAX_OPEN_SUMS:
            best, shares = look_back(search(places, rules, read))
        else:
            shares = exchange(rules, read, MAX_VISITS * len(places) // len(cells))
            best = [int(one.argmax()) for one in shares]
        chosen = dict(zip(places, best, strict=True))
        for place, marginal in zip(places, shares, strict=True):
            if readings[place]:
                chances: dict[str, float] = defaultdict(float)
                for option, share in zip(options[place], marginal.tolist(), strict=True):
                    if option.number is not None:
                        chances[option.number] += share
                number = options[place][chosen[place]].number
                likeliest = max(chances, key=lambda one: chances[one])
                decisions[place] = choose(likeliest if number is None else number, chances)
    written = [
        Written(one.number if read else None) for one, read in zip(decisions, readings, strict=True)
    ]
    for breach in find_breaches(cells, written, held):
        for place in breach.cells:
            decisions[place] = decisions[place]._replace(failed=True)
    return decisions


def choose(number: str, chances: Mapping[str, float]) -> Decision:
    """The decision for one of the numbers; no alternative has more than its probability."""
    confidence = chances[number]
    others = [
        Alternative(other, min(chance, confidence))
        for other, chance in sorted(chances.items(), key=lambda one: -one[1])
        if other not in ("", number) and chance >= MIN_ALTERNATIVE
    ]
    return Decision(number, confidence, others[:MAX_ALTERNATIVES], False)


def list_options(readings: Sequence[Proposal], is_checked: bool) -> list[Option]:
    """The readings with their values. What could not be read is a value that is missing.

    So is what may be written beside the readings of a number with a check digit: of all numbers,
    one in ten has a right check digit by chance, as `NOT_HELD` says.
    """
    if not readings:
        return [Option(None, 1.0, None)]
    options = []
    for number, chance in sorted(readings, key=lambda one: -one.chance)[:MAX_READINGS]:
        values: Sequence[Fraction | None] = read_values(number) or [None]
        share = max(chance, MIN_CHANCE) / len(values)
        options += [Option(number, share, value) for value in values]
    others = 1.0 - sum(one.chance for one in options)
    if is_checked and others > MIN_CHANCE:
        options.append(Option(None, others, None))
    return options


def find_connected(rules: Iterable[BoundRule]) -> list[tuple[list[int], list[BoundRule]]]:
    """The places that rules connect, in order, and these rules."""
    groups: list[tuple[set[int], list[BoundRule]]] = []
    for rule in rules:
        near = [group for group in groups if not group[0].isdisjoint(rule.added)]
        groups = [group for group in groups if group[0].isdisjoint(rule.added)]
        places = {*rule.added}.union(*(one for one, _ in near))
        groups.append((places, [*chain(*(joined for _, joined in near)), rule]))
    return [(sorted(places), joined) for places, joined in groups]


def exchange(rules: Sequence[BoundRule], read: Mapping[int, Sums], limit: int) -> list[Sums]:
    """The probabilities of each place's options, if the rules are gone through one by one.

    A rule takes what the others have found out about its places, and tells them what it finds out
    (loopy belief propagation). It has another turn when that changes much. At most about `limit`
    places are gone through; rules that had no turn are only checked.
    """
    beliefs = {place: each / each.sum() for place, each in read.items()}
    told = {(rule, place): np.ones(len(read[place])) for rule in rules for place in rule.added}
    waiting = dict.fromkeys(rules)  # in order
    while waiting and limit > 0:
        rule = next(iter(waiting))
        del waiting[rule]
        places, moved = sorted(rule.added), set()
        limit -= len(places)
        heard = {place: beliefs[place] / told[rule, place] for place in places}
        _, marginals = look_back(search(places, [rule], heard))
        for place, marginal in zip(places, marginals, strict=True):
            factors = marginal / heard[place]
            told[rule, place] = np.maximum(factors / factors.max(), BROKEN)
            belief = heard[place] * told[rule, place]
            belief /= belief.sum()
            if abs(belief - beliefs[place]).max() > MIN_CHANGE:
                moved.add(place)
            beliefs[place] = belief
        waiting |= {one: None for one in rules if one is not rule and moved & one.added.keys()}
    return [*beliefs.values()]


def search(
    places: Sequence[int], rules: Sequence[BoundRule], chances: Mapping[int, Sums]
) -> list[Step]:
    """What may be written in places that rules connect, as far as it is probable; `chances` are
    those of each place's options."""
    steps = []
    shares: NDArray[Any] = np.ones(1)
    sums: dict[BoundRule, Sums] = {}  # (S, width) of the rules that have begun
    for place in places:
        sums |= {
            rule: np.zeros((len(shares), rule.added[place].shape[1]))
            for rule in rules
            if rule.first == place
        }
        weights = chances[place] * np.ones((len(shares), 1))
        ways = shares[:, None] * weights
        states, picks = np.nonzero(ways > MIN_WAY * ways.max())
        sums = {rule: each[states] for rule, each in sums.items()}
        factors = np.ones(len(states))  # the largest stays 1, whatever number of rules is broken
        for rule in [rule for rule in sums if place in rule.added]:
            sums[rule] += rule.added[place][picks]
            if rule.last == place:
                factors *= rule.weigh(sums.pop(rule))
                factors /= factors.max()
        weights[states, picks] *= factors
        _, firsts, merged = np.unique(
            mix(sums.values(), len(states)), return_index=True, return_inverse=True
        )
        totals = np.bincount(merged, shares[states] * weights[states, picks])
        kept = np.argsort(-totals, kind="stable")[:MAX_STATES]
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
