"""Weighs what the candidates of a line may say: the most probable numbers, free or allowed ones."""

import heapq
from typing import NamedTuple

import numpy as np

from protocol.known import MAX_DIGITS, Known
from worker.numbers.finding import Candidates

MAX_PATHS = 64  # at most this many partial readings are kept from one candidate to the next
MIN_SHARE = 1e-6  # a partial reading that is less probable than this share of the best is dropped
MIN_DOUBT = 1e-4  # chances are kept this far from 0 and 1: the detector may always be wrong
MIN_OVERLAP = 0.45  # candidates that share more of the smaller one's box can't both be digits
NOTHING_KNOWN = Known()


class Path(NamedTuple):
    """A partial reading: some of the candidates so far are digits, and the others are not."""

    number: str
    chance: float
    taken: tuple[int, ...]  # the candidates that are digits
    low: int  # the numbers `allowed[low:high]` begin with this one
    high: int


def weigh_readings(line: Candidates, known: Known = NOTHING_KNOWN) -> list[Path]:
    """The most probable readings of a line's candidates, from left to right, the best first.

    A number that can be read in several ways has the sum of their probabilities. What is known
    leaves readings out, and does not change the probability of the others.
    """
    chances = line.chances.clip(MIN_DOUBT, 1 - MIN_DOUBT).astype(float).tolist()
    least, most = known.lengths or (1, MAX_DIGITS)
    paths = [Path("", 1.0, (), 0, 1 if known.allowed is None else len(known.allowed))]
    for candidate, chance in enumerate(chances):
        digits = line.digits[candidate]
        likely = [digit for digit in range(len(digits)) if digits[digit] > MIN_DOUBT]
        longer: dict[str, Path] = {}
        for path in paths:
            _add(longer, path._replace(chance=path.chance * (1 - chance)))
            if len(path.number) == most or _is_same_ink(line, path, candidate):
                continue
            for digit in likely:
                number = f"{path.number}{digit}"
                low, high = _narrow(known, path, number)
                if low < high:
                    share = path.chance * chance * float(digits[digit])
                    _add(longer, Path(number, share, (*path.taken, candidate), low, high))
        best = heapq.nlargest(MAX_PATHS, longer.values(), key=lambda path: path.chance)
        paths = [path for path in best if path.chance > MIN_SHARE * best[0].chance]
    return [
        path
        for path in paths
        if len(path.number) >= least
        and (known.allowed is None or known.allowed[path.low] == path.number.encode())
    ]


def _narrow(known: Known, path: Path, number: str) -> tuple[int, int]:
    """Which allowed numbers begin with a number that continues a path."""
    if known.allowed is None:
        return 0, 1
    rest = known.allowed[path.low : path.high]
    ends = np.array([number, f"{number}:"], np.bytes_)  # in ASCII, a colon follows the nine
    low, high = np.searchsorted(rest, ends).tolist()
    return path.low + low, path.low + high


def _add(paths: dict[str, Path], path: Path) -> None:
    """Add a path; two ways to one number become one, which has the more probable one's digits."""
    if other := paths.get(path.number):
        path = max(path, other, key=lambda one: one.chance)._replace(
            chance=path.chance + other.chance
        )
    paths[path.number] = path


def _is_same_ink(line: Candidates, path: Path, candidate: int) -> bool:
    """Whether a candidate covers much of the last digit of a path."""
    if not path.taken:
        return False
    last, box = line.boxes[path.taken[-1]], line.boxes[candidate]
    shared = (np.minimum(last, box)[2:] - np.maximum(last, box)[:2]).clip(0).prod()
    smaller = min((one[2:] - one[:2]).clip(1).prod() for one in (last, box))
    return bool(shared > MIN_OVERLAP * smaller)
