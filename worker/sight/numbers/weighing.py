"""Proposes the numbers that a line's candidates may show, each with its probability."""

from operator import itemgetter
from typing import NamedTuple

from digitq.protocol.asked.values import AS_WRITTEN, MAX_DIGITS, AnyValue, Automaton
from digitq.worker.sight.numbers.finding import Candidates, measure_overlaps

MAX_PATHS = 8  # at most this many partial numbers are kept from one candidate to the next
MIN_SHARE = 1e-4  # a partial number with less than this share of the best probability is dropped
MIN_DOUBT = 1e-3  # chances stay this far from 0 and 1, because the detector may always be wrong
MIN_OVERLAP = 0.45  # two candidates whose boxes overlap by more than this share are not both digits


class Proposal(NamedTuple):
    """A number that a line may show."""

    number: str
    chance: float


def propose_numbers(line: Candidates, automaton: Automaton = AS_WRITTEN) -> list[Proposal]:
    """The most probable numbers that a line's candidates show, the best first: digits only.

    A partial number says which of the candidates so far, from left to right, are digits. A number
    that can be read in several ways has the sum of their probabilities. The automaton leaves
    numbers out, and does not change the probability of the others.
    """
    chances = line.chances.clip(MIN_DOUBT, 1 - MIN_DOUBT).astype(float).tolist()
    shares = line.digits.astype(float).tolist()
    is_same_ink = (measure_overlaps(line.boxes) > MIN_OVERLAP).tolist()
    states = {"": automaton.start}  # the state of each partial number
    # Each partial number, its probability, and the last candidate that is a digit (-1: none yet)
    paths = [("", (1.0, -1))]
    scale = 1.0  # the product of all divisors, without which the probabilities become too small
    for candidate, chance in enumerate(chances):
        likely = [
            (str(digit), chance * share)
            for digit, share in enumerate(shares[candidate])
            if share > MIN_DOUBT
        ]
        best = max(1 - chance, *(each for _, each in likely))  # the best path had probability 1
        # if the most probable numbers may be left out, less probable ones must be kept
        bound = MIN_SHARE * best if isinstance(automaton, AnyValue) else 0.0
        longer = {number: (before * (1 - chance), last) for number, (before, last) in paths}
        for number, (before, last) in paths:
            if len(number) == MAX_DIGITS or (last >= 0 and is_same_ink[last][candidate]):
                continue
            for digit, share in likely:
                way = before * share
                if way <= bound:
                    continue
                more = number + digit
                if more in longer:  # two ways to one number: its last digit is that of the likelier
                    other, end = longer[more]
                    longer[more] = way + other, candidate if way > other else end
                elif (state := automaton.step(states[number], digit)) is not None:
                    longer[more], states[more] = (way, candidate), state
        paths = sorted(longer.items(), key=itemgetter(1), reverse=True)[:MAX_PATHS]
        best = paths[0][1][0]
        paths = [
            (number, (before / best, last))
            for number, (before, last) in paths
            if before > MIN_SHARE * best
        ]
        scale *= best
    return [
        Proposal(number, chance * scale)
        for number, (chance, _) in paths
        if number and automaton.is_final(states[number])
    ]
