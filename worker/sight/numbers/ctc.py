"""Reads a line column by column: proposes numbers, weighs any number, and finds its digits.

An `Answer` is what the network gives for a strip, (11, T): the log-probability of each class in
each column (A. Graves et al., "Connectionist Temporal Classification", 2006).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from protocol.known import MAX_DIGITS, Known
from worker.models.number import BLANK
from worker.sight.numbers.weighing import MIN_SHARE, NOTHING_KNOWN, Prefixes

MAX_PREFIXES = 8  # at most this many partial numbers are kept from one column to the next
MIN_CLASS = 0.003  # a class with a lower probability in a column is taken to be absent there
Answer = NDArray[np.float32]


def propose(answer: Answer, known: Known = NOTHING_KNOWN) -> list[str]:
    """The most probable numbers, the best first (A. Hannun et al., prefix beam search, 2014)."""
    min_length, max_length = known.lengths or (1, MAX_DIGITS)
    prefixes = Prefixes(known)
    # a partial number's probability if the last column was blank, and if it showed its last digit
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
                if before > 0.0 and len(number) < max_length:
                    more = number + digit
                    if more in after:
                        after[more][1] += before * chance
                    elif known.allowed is None or prefixes.allow(more):
                        after[more] = [0.0, before * chance]
        sums = [(by_none + by_digit, number) for number, (by_none, by_digit) in after.items()]
        likeliest = sorted(sums, reverse=True)[:MAX_PREFIXES]
        best = likeliest[0][0] or 1.0  # all are divided by this, or they would become too small
        # `known` may leave out the most probable numbers, so less probable ones must be kept
        bound = MIN_SHARE * best if known.is_nothing else 0.0
        numbers = {
            number: (after[number][0] / best, after[number][1] / best)
            for chance, number in likeliest
            if chance > bound
        }
    return [
        number
        for number in sorted(numbers, key=lambda number: -sum(numbers[number]))
        if len(number) >= min_length and prefixes.is_whole(number)
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
    """The columns that may show a digit, and the first column of each gap after one.

    If these are too few for so many digits, the result is all columns.
    """
    is_none = answer[BLANK] > math.log(1 - MIN_CLASS)
    is_kept = ~is_none
    is_kept[1:] |= ~is_none[:-1]
    columns = np.flatnonzero(is_kept)
    return columns if len(columns) > 2 * digits else np.arange(answer.shape[1])


def align(answer: Answer, number: str) -> list[int]:
    """The column in which each digit is clearest, on the number's most probable path (Viterbi).

    The number must have a probability, see `weigh`.
    """
    spelled = spell(answer)
    if [digit for digit, _ in spelled] == [*map(int, number)]:
        return [column for _, column in spelled]
    classes = [BLANK, *(each for digit in number for each in (int(digit), BLANK))]
    # a path may go from a digit to another one without a blank column between them
    can_skip = [i > 2 and each not in (BLANK, classes[i - 2]) for i, each in enumerate(classes)]
    columns = choose_columns(answer, len(number))
    chances = answer[:, columns].T.astype(float).tolist()
    best = [0.0, *[-math.inf] * (len(classes) - 1)]  # (states,): before the first column
    steps: list[list[int]] = []
    for column in chances:
        ways, taken = [], []
        for state, each in enumerate(classes):
            way, step = best[state], 0
            if state and best[state - 1] > way:
                way, step = best[state - 1], 1
            if can_skip[state] and best[state - 2] > way:
                way, step = best[state - 2], 2
            ways.append(way + column[each])
            taken.append(step)
        best = ways
        steps.append(taken)
    state = len(classes) - 1 - int(best[-2] > best[-1])
    clearest: dict[int, int] = {}
    for index in range(len(chances) - 1, -1, -1):
        if state % 2:
            digit, other = classes[state], clearest.get(state, index)
            clearest[state] = index if chances[index][digit] > chances[other][digit] else other
        state -= steps[index][state]
    return [int(columns[clearest[state]]) for state in sorted(clearest)]
