"""Reads a line column by column: proposes numbers, weighs any number, and finds its digits.

All of it is of the network's answer to a strip, (11, T): log-probabilities of the classes in each
column (A. Graves et al., "Connectionist Temporal Classification", 2006).
"""

import heapq
import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from protocol.known import MAX_DIGITS, Known
from worker.models.columns import BLANK
from worker.numbers.readings import MIN_SHARE, NOTHING_KNOWN, narrow

MAX_PREFIXES = 16  # at most this many partial numbers are kept from one column to the next
MIN_CLASS = 0.003  # a class that is less likely in a column is not there
Answer = NDArray[np.float32]


def propose(answer: Answer, known: Known = NOTHING_KNOWN) -> list[str]:
    """The most probable numbers, the best first (A. Hannun et al., prefix beam search, 2014)."""
    most = (known.lengths or (1, MAX_DIGITS))[1]
    spans = {"": (0, 1 if known.allowed is None else len(known.allowed))}
    # of each number so far: that the column before was none, and that it was of its last digit
    numbers = {"": (1.0, 0.0)}
    for column in np.exp(answer.astype(float)).T.tolist():
        none = column[BLANK]
        if none > 1 - MIN_CLASS:
            numbers = {number: (sum(chances), 0.0) for number, chances in numbers.items()}
            continue
        digits = enumerate(column[:BLANK])
        likely = [(str(digit), chance) for digit, chance in digits if chance > MIN_CLASS]
        longer: dict[str, tuple[float, float]] = {}
        for number, (after_none, after_digit) in numbers.items():
            _add(longer, number, (after_none + after_digit) * none, 0.0)
            for digit, chance in likely:
                before = after_none + after_digit
                if number.endswith(digit):  # the same digit goes on, or another one begins
                    _add(longer, number, 0.0, after_digit * chance)
                    before = after_none
                more = number + digit
                if before == 0.0 or len(number) == most:
                    continue
                if more not in spans:
                    spans[more] = narrow(known, spans[number], more)
                if spans[more][0] < spans[more][1]:
                    _add(longer, more, 0.0, before * chance)
        # What is known may leave out the most probable numbers, so that all others are kept.
        best = max(map(sum, longer.values()), default=0.0) or 1.0  # divides all: none is too small
        least = MIN_SHARE * best if known.is_nothing else 0.0
        kept = [(number, ways) for number, ways in longer.items() if sum(ways) > least]
        kept = heapq.nlargest(MAX_PREFIXES, kept, key=lambda each: sum(each[1]))
        numbers = {number: (a / best, b / best) for number, (a, b) in kept}
    shortest = (known.lengths or (1, MAX_DIGITS))[0]
    return [
        number
        for number in sorted(numbers, key=lambda number: -sum(numbers[number]))
        if len(number) >= shortest
        and (known.allowed is None or known.allowed[spans[number][0]] == number.encode())
    ]


def _add(numbers: dict[str, tuple[float, float]], number: str, none: float, digit: float) -> None:
    before = numbers.get(number, (0.0, 0.0))
    numbers[number] = before[0] + none, before[1] + digit


def weigh(answer: Answer, numbers: list[str]) -> NDArray[np.float64]:
    """The log-probability of each number; minus infinity if it has too many digits."""
    count = len(numbers)
    losses = F.ctc_loss(
        torch.from_numpy(answer).T[:, None].expand(-1, count, -1),
        torch.tensor([int(digit) for number in numbers for digit in number]),
        torch.full((count,), answer.shape[1]),
        torch.tensor([len(number) for number in numbers]),
        BLANK,
        "none",
    )
    return -losses.double().numpy()


def align(answer: Answer, number: str) -> list[int]:
    """The column in which each digit is clearest, on the most probable way to read the number.

    The number must have a probability, see `weigh`.
    """
    classes = np.full(2 * len(number) + 1, BLANK)
    classes[1::2] = [int(digit) for digit in number]
    can_skip = np.zeros(len(classes), bool)  # from a digit to another one, with no column between
    can_skip[3::2] = classes[3::2] != classes[1:-2:2]
    is_none = answer[BLANK] > math.log(1 - MIN_CLASS)
    columns = np.flatnonzero(~is_none | ~np.roll(is_none, 1))  # of those that are none, the first
    if len(columns) < 2 * len(number):  # hardly any column says what the number does
        columns = np.arange(answer.shape[1])
    chances = answer[classes][:, columns].T.astype(float)  # (columns, states)
    best = np.full(len(classes), -np.inf)
    best[:2] = chances[0, :2]
    steps = np.zeros(chances.shape, int)
    for at in range(1, len(chances)):
        ways = np.full((3, len(classes)), -np.inf)
        ways[0], ways[1, 1:], ways[2, 2:] = best, best[:-1], best[:-2]
        ways[2, ~can_skip] = -np.inf
        steps[at] = ways.argmax(0)
        best = ways.max(0) + chances[at]
    state = len(classes) - 1 - int(best[-2] > best[-1])
    clearest: dict[int, int] = {}
    for at in range(len(chances) - 1, -1, -1):
        if state % 2:
            other = clearest.get(state, at)
            clearest[state] = at if chances[at, state] > chances[other, state] else other
        state -= steps[at, state]
    return [int(columns[clearest[state]]) for state in sorted(clearest)]
