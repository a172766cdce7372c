"""Weighs what the candidates of a line may say: the most probable numbers, free or allowed ones."""

from operator import itemgetter
from typing import NamedTuple

import numpy as np

from protocol.known import MAX_DIGITS, Known
from worker.sight.numbers.finding import Candidates, measure_overlaps

MAX_PATHS = 8  # at most this many partial readings are kept from one candidate to the next
MIN_SHARE = 1e-4  # a partial reading that is less probable than this share of the best is dropped
MIN_DOUBT = 1e-3  # chances are kept this far from 0 and 1: the detector may always be wrong
MIN_OVERLAP = 0.45  # candidates that share more of the smaller one's box can't both be digits
NOTHING_KNOWN = Known()


class Reading(NamedTuple):
    """What a line may say."""

    number: str
    chance: float


def weigh_readings(line: Candidates, known: Known = NOTHING_KNOWN) -> list[Reading]:
    """The most probable readings of a line's candidates, from left to right, the best first.

    A number that can be read in several ways has the sum of their probabilities. What is known
    leaves readings out, and does not change the probability of the others.
    """
    chances = line.chances.clip(MIN_DOUBT, 1 - MIN_DOUBT).astype(float).tolist()
    shares = line.digits.astype(float).tolist()
    is_same_ink = (measure_overlaps(line.boxes) > MIN_OVERLAP).tolist()
    least, most = known.lengths or (1, MAX_DIGITS)
    prefixes = Prefixes(known)
    # Partial readings: some of the candidates so far are digits, and the others are not. Each
    # number with its probability, and the last candidate that is a digit; -1 if none is
    paths = [("", (1.0, -1))]
    scale = 1.0  # multiplies all probabilities; they are divided, so that none is too small
    for candidate, chance in enumerate(chances):
        likely = [
            (str(digit), chance * share)
            for digit, share in enumerate(shares[candidate])
            if share > MIN_DOUBT
        ]
        # What is known may leave out the most probable readings, so that no bound is known.
        best = max(1 - chance, *(each for _, each in likely))  # times that of the first path, 1
        bound = MIN_SHARE * best if known.is_nothing else 0.0
        longer = {number: (before * (1 - chance), last) for number, (before, last) in paths}
        for number, (before, last) in paths:
            if len(number) == most or (last >= 0 and is_same_ink[last][candidate]):
                continue
            for digit, share in likely:
                way = before * share
                if way <= bound:
                    continue
                more = number + digit
                if more in longer:  # two ways to one number; it goes on as the more probable one
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
        Reading(number, chance * scale)
        for number, (chance, _) in paths
        if len(number) >= least and prefixes.is_whole(number)
    ]


class Prefixes:
    """Which partial numbers an allowed number begins with."""

    def __init__(self, known: Known) -> None:
        self.allowed = known.allowed
        # The numbers `allowed[low:high]` begin with this one
        self._spans = {"": (0, 1 if known.allowed is None else len(known.allowed))}

    def allow(self, number: str) -> bool:
        """Whether an allowed number begins so; the same must have been asked of all but its end."""
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
        """Whether the number, of which `allow` was asked, is an allowed one."""
        return self.allowed is None or self.allowed[self._spans[number][0]] == number.encode()
