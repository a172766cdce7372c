"""Weighs what the candidates of a line may say: the most probable numbers, free or allowed ones."""

import heapq
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.known import MAX_DIGITS, Known
from worker.numbers.finding import Candidates

MAX_PATHS = 32  # at most this many partial readings are kept from one candidate to the next
MIN_SHARE = 1e-4  # a partial reading that is less probable than this share of the best is dropped
MIN_DOUBT = 1e-4  # chances are kept this far from 0 and 1: the detector may always be wrong
MIN_OVERLAP = 0.45  # candidates that share more of the smaller one's box can't both be digits
NOTHING_KNOWN = Known()


class Path(NamedTuple):
    """A partial reading: some of the candidates so far are digits, and the others are not."""

    number: str
    chance: float
    last: int  # the last candidate that is a digit; -1 if none is
    low: int  # the numbers `allowed[low:high]` begin with this one
    high: int


def weigh_readings(line: Candidates, known: Known = NOTHING_KNOWN) -> list[Path]:
    """The most probable readings of a line's candidates, from left to right, the best first.

    A number that can be read in several ways has the sum of their probabilities. What is known
    leaves readings out, and does not change the probability of the others.
    """
    chances = line.chances.clip(MIN_DOUBT, 1 - MIN_DOUBT).astype(float).tolist()
    least, most = known.lengths or (1, MAX_DIGITS)
    is_same_ink = _find_same_ink(line.boxes)
    paths = [Path("", 1.0, -1, 0, 1 if known.allowed is None else len(known.allowed))]
    for candidate, chance in enumerate(chances):
        likely = [
            (str(digit), chance * share)
            for digit, share in enumerate(line.digits[candidate].astype(float).tolist())
            if share > MIN_DOUBT
        ]
        # What is known may leave out the most probable readings, so that no bound is known.
        best = max(path.chance for path in paths) * max(1 - chance, *(each for _, each in likely))
        bound = MIN_SHARE * best if known.is_nothing else 0.0
        longer: dict[str, Path] = {}
        for path in paths:
            number, before, last, low, high = path
            _add(longer, path._replace(chance=before * (1 - chance)))
            if len(number) == most or (last >= 0 and is_same_ink[last, candidate]):
                continue
            for digit, share in likely:
                if before * share > bound:
                    low, high = narrow(known, (path.low, path.high), number + digit)
                    if low < high:
                        _add(longer, Path(number + digit, before * share, candidate, low, high))
        paths = heapq.nlargest(MAX_PATHS, longer.values(), key=attrgetter("chance"))
        paths = [path for path in paths if path.chance > MIN_SHARE * paths[0].chance]
    return [
        path
        for path in paths
        if len(path.number) >= least
        and (known.allowed is None or known.allowed[path.low] == path.number.encode())
    ]


def narrow(known: Known, span: tuple[int, int], number: str) -> tuple[int, int]:
    """Which allowed numbers begin with a number, among those of a span; one if all are allowed."""
    if known.allowed is None:
        return 0, 1
    rest = known.allowed[slice(*span)]
    ends = np.array([number, f"{number}:"], np.bytes_)  # in ASCII, a colon follows the nine
    low, high = np.searchsorted(rest, ends).tolist()
    return span[0] + low, span[0] + high


def _add(paths: dict[str, Path], path: Path) -> None:
    """Add a path; two ways to one number become one, which goes on as the more probable one."""
    if other := paths.get(path.number):
        likelier = path if path.chance > other.chance else other
        path = likelier._replace(chance=path.chance + other.chance)
    paths[path.number] = path


def _find_same_ink(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether two boxes show so much of the same ink that only one can be a digit: (N, N)."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(1).prod(1)
    smaller = np.minimum(areas[:, None], areas[None])
    return np.asarray((high - low).clip(0).prod(2) > MIN_OVERLAP * smaller)
