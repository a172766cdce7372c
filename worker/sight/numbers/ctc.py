"""Reads a line column by column: proposes numbers, weighs any number, and finds its digits.

All of it is of the network's answer to a strip, (11, T): log-probabilities of the classes in each
column (A. Graves et al., "Connectionist Temporal Classification", 2006).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from protocol.known import MAX_DIGITS, Known
from worker.models.column_network import BLANK
from worker.sight.numbers.weighing import MIN_SHARE, NOTHING_KNOWN, Prefixes

MAX_PREFIXES = 8  # at most this many partial numbers are kept from one column to the next
MIN_CLASS = 0.003  # a class that is less likely in a column is not there
Answer = NDArray[np.float32]


def propose(answer: Answer, known: Known = NOTHING_KNOWN) -> list[str]:
    """The most probable numbers, the best first (A. Hannun et al., prefix beam search, 2014)."""
    least, most = known.lengths or (1, MAX_DIGITS)
    prefixes = Prefixes(known)
    # of each number so far: that the column before was none, and that it was of its last digit
    numbers = {"": (1.0, 0.0)}
    for *digits, none in np.exp(answer[:, choose_columns(answer, 0)].astype(float)).T.tolist():
        likely = [(str(digit), chance) for digit, chance in enumerate(digits) if chance > MIN_CLASS]
        after = {number: [sum(chances) * none, 0.0] for number, chances in numbers.items()}
        for number, (by_none, by_digit) in numbers.items():
            last, by_any = number[-1:], by_none + by_digit
            for digit, chance in likely:
                before = by_any
                if digit == last:  # the same digit goes on, or another one begins
                    after[number][1] += by_digit * chance
                    before = by_none
                if before > 0.0 and len(number) < most:
                    more = number + digit
                    if more in after:
                        after[more][1] += before * chance
                    elif known.allowed is None or prefixes.allow(more):
                        after[more] = [0.0, before * chance]
        sums = [(by_none + by_digit, number) for number, (by_none, by_digit) in after.items()]
        likeliest = sorted(sums, reverse=True)[:MAX_PREFIXES]
        # What is known may leave out the most probable numbers, so that all others are kept.
        best = likeliest[0][0] or 1.0  # divides all: none is too small
        bound = MIN_SHARE * best if known.is_nothing else 0.0
        numbers = {
            number: (after[number][0] / best, after[number][1] / best)
            for chance, number in likeliest
            if chance > bound
        }
    return [
        number
        for number in sorted(numbers, key=lambda number: -sum(numbers[number]))
        if len(number) >= least and prefixes.is_whole(number)
    ]


def spell(answer: Answer) -> list[tuple[int, int]]:
    """The digits that the likeliest classes of the columns show, each with its clearest column."""
    digits: list[tuple[int, int]] = []
    before = BLANK
    best = answer.max(0).tolist()
    for column, digit in enumerate(answer.argmax(0).tolist()):
        if digit not in (BLANK, before):
            digits.append((digit, column))
        elif digit != BLANK and best[column] > best[digits[-1][1]]:
            digits[-1] = digit, column
        before = digit
    return digits


def weigh(answer: Answer, numbers: list[str]) -> NDArray[np.float64]:
    """The log-probability of each number by its CTC loss; minus infinity if it does not fit."""
    lengths = [len(number) for number in numbers]
    columns = answer[:, choose_columns(answer, max(lengths))]
    table = torch.from_numpy(columns.T[:, None].repeat(len(numbers), 1))
    digits = torch.from_numpy(np.array([*"".join(numbers)], int))
    widths = [len(table)] * len(numbers)
    loss = torch.ctc_loss(table, digits, widths, lengths, BLANK, 0)
    return -loss.numpy().astype(float)


def choose_columns(answer: Answer, digits: int) -> NDArray[np.intp]:
    """The columns that count: digits, and the first column of each gap after a digit.

    All of them, if too few would be left for so many digits.
    """
    is_none = answer[BLANK] > math.log(1 - MIN_CLASS)
    is_kept = ~is_none
    is_kept[1:] |= ~is_none[:-1]
    columns = np.flatnonzero(is_kept)
    return columns if len(columns) > 2 * digits else np.arange(answer.shape[1])


def align(answer: Answer, number: str) -> list[int]:
    """The column in which each digit is clearest, on the most probable way to read the number.

    The number must have a probability, see `weigh`.
    """
    spelled = spell(answer)
    if [digit for digit, _ in spelled] == [*map(int, number)]:
        return [column for _, column in spelled]
    classes = [BLANK, *(sign for digit in number for sign in (int(digit), BLANK))]
    # from a digit to another one, with no column between
    can_skip = [at > 2 and sign not in (BLANK, classes[at - 2]) for at, sign in enumerate(classes)]
    columns = choose_columns(answer, len(number))
    chances = answer[:, columns].T.astype(float).tolist()
    best = [0.0, *[-math.inf] * (len(classes) - 1)]  # of each state, before the first column
    steps: list[list[int]] = []
    for column in chances:
        ways, taken = [], []
        for state, sign in enumerate(classes):
            way, step = best[state], 0
            if state and best[state - 1] > way:
                way, step = best[state - 1], 1
            if can_skip[state] and best[state - 2] > way:
                way, step = best[state - 2], 2
            ways.append(way + column[sign])
            taken.append(step)
        best = ways
        steps.append(taken)
    state = len(classes) - 1 - int(best[-2] > best[-1])
    clearest: dict[int, int] = {}
    for at in range(len(chances) - 1, -1, -1):
        if state % 2:
            sign, other = classes[state], clearest.get(state, at)
            clearest[state] = at if chances[at][sign] > chances[other][sign] else other
        state -= steps[at][state]
    return [int(columns[clearest[state]]) for state in sorted(clearest)]
