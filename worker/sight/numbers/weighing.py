"""Proposes the numbers that a line's candidates may show, each with its probability."""

from operator import itemgetter
from typing import NamedTuple

import numpy as np

from protocol.known import MAX_DIGITS, Known
from worker.sight.numbers.finding import Candidates, measure_overlaps

MAX_PATHS = 8  # at most this many partial numbers are kept from one candidate to the next
MIN_SHARE = 1e-4  # a partial number with less than this share of the best probability is dropped
MIN_DOUBT = 1e-3  # chances stay this far from 0 and 1, because the detector may always be wrong
MIN_OVERLAP = 0.45  # two candidates whose boxes overlap by more than this share are not both digits
NOTHING_KNOWN = Known()


class Proposal(NamedTuple):
    """A number that a line may show."""

    number: str
    chance: float


def propose_numbers(line: Candidates, known: Known = NOTHING_KNOWN) -> list[Proposal]:
    """The most probable numbers that a line's candidates show, the best first.

    A partial number says which of the candidates so far, from left to right, are digits. A number
    that can be read in several ways has the sum of their probabilities. `known` leaves numbers out,
    and does not change the probability of the others.
    """
    chances = line.chances.clip(MIN_DOUBT, 1 - MIN_DOUBT).astype(float).tolist()
    shares = line.digits.astype(float).tolist()
    is_same_ink = (measure_overlaps(line.boxes) > MIN_OVERLAP).tolist()
    min_length, max_length = known.lengths or (1, MAX_DIGITS)
    prefixes = Prefixes(known)
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
        # `known` may leave out the most probable numbers, so less probable ones must be kept
        bound = MIN_SHARE * best if known.is_nothing else 0.0
        longer = {number: (before * (1 - chance), last) for number, (before, last) in paths}
        for number, (before, last) in paths:
            if len(number) == max_length or (last >= 0 and is_same_ink[last][candidate]):
                continue
            for digit, share in likely:
                way = before * share
                if way <= bound:
                    continue
                more = number + digit
                if more in longer:  # two ways to one number: its last digit is that of the likelier
                    other, end = longer[more]
                    longer[more] = way + other, candidate if way > other else end
                elif known.allowed is None or prefixes.allow(more):
                    longer[more] = way, candidate
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
        if len(number) >= min_length and prefixes.is_whole(number)
    ]


class Prefixes:
    """Tells whether any allowed number begins with some digits."""

    def __init__(self, known: Known) -> None:
        self.allowed = known.allowed
        # the numbers `allowed[low:high]` begin with the key
        self._spans = {"": (0, 1 if known.allowed is None else len(known.allowed))}

    def allow(self, number: str) -> bool:
        """Whether an allowed number begins so. Ask for the number without its last digit before."""
        if self.allowed is None:
            return True
        if number not in self._spans:
            start, stop = self._spans[number[:-1]]
            ends = np.array([number, f"{number}:"], np.bytes_)  # in ASCII, a colon follows the nine
            low, high = self.allowed[start:stop].searchsorted(ends).tolist()
            self._spans[number] = start + low, start + high
        low, high = self._spans[number]
        return low < high

    def is_whole(self, number: str) -> bool:
        """Whether the number is an allowed one. Ask `allow` for it before."""
        return self.allowed is None or self.allowed[self._spans[number][0]] == number.encode()
