"""Reads a line column by column: proposes numbers, weighs any number, and finds its signs.

An `Answer` is what the network gives for a strip, (21, T): the log-probability of each class in
each column (A. Graves et al., "Connectionist Temporal Classification", 2006).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from digitq.protocol.asked.values import (
    ALPHABET,
    AS_WRITTEN,
    MAX_DIGITS,
    NUMERALS,
    AnyValue,
    Automaton,
    DigitsAutomaton,
    ValueSet,
    is_written,
)
from digitq.worker.models.number_networks import BLANK
from digitq.worker.sight.numbers.weighing import MIN_SHARE

MAX_PREFIXES = 8  # at most this many partial numbers are kept from one column to the next
MIN_CLASS = 0.003  # a class with a lower probability in a column is taken to be absent there
# The log-odds of a sign are raised by this. Beside rendered numbers, many marks are no signs, so
# the network takes too few for one: with it, most real numbers of other sources are right
SIGN_ODDS = 1.2
MIN_SIGN = 1e-4  # a sign of a pattern or list has at least this share of a blank's probability
MIN_FLOW = 3e-5  # a state of an automaton is looked for if it gets at least this probability
Answer = NDArray[np.float32]
# A column in which nothing is written
NO_SIGNS = np.where(np.arange(BLANK + 1) == BLANK, 0.0, -math.inf).astype(np.float32)[:, None]


def pass_over(answer: Answer, automaton: Automaton) -> Answer:
    """The answer as if the signs and fractions that no value of the automaton has were blank; the
    signs of a pattern or a list may be where nothing is seen.
    """
    had = NUMERALS + automaton.signs + automaton.fractions
    passed = [number for number, sign in enumerate(ALPHABET) if sign not in had]
    kept = [*map(ALPHABET.index, automaton.signs)]
    answer = answer.copy()
    answer[BLANK] = np.logaddexp.reduce(answer[[BLANK, *passed]])
    answer[passed] = -math.inf
    answer[kept] += np.float32(SIGN_ODDS)
    answer -= np.logaddexp.reduce(answer)
    if isinstance(automaton, ValueSet):
        answer[kept] = np.maximum(answer[kept], answer[BLANK] + np.float32(math.log(MIN_SIGN)))
    return answer


def propose(answer: Answer, automaton: Automaton = AS_WRITTEN) -> list[str]:
    """The most probable numbers, the best first (A. Hannun et al., prefix beam search, 2014).

    The answer is that of `pass_over`.
    """
    is_free = isinstance(automaton, AnyValue)
    states = {"": automaton.start}  # the state of each partial number
    # A partial number's probability if the last column was blank, and if it showed its last sign
    numbers = {"": (1.0, 0.0)}
    for *signs, none in np.exp(answer[:, choose_columns(answer, 0)].astype(float)).T.tolist():
        likely = [
            (sign, chance)
            for sign, chance in zip(ALPHABET, signs, strict=True)
            if chance > MIN_CLASS
        ]
        after = {number: [sum(chances) * none, 0.0] for number, chances in numbers.items()}
        for number, (by_none, by_sign) in numbers.items():
            last, by_any = number[-1:], by_none + by_sign
            for sign, chance in likely:
                before = by_any
                if sign == last:  # either this sign goes on, or another one begins
                    after[number][1] += by_sign * chance
                    before = by_none
                more = number + sign
                if before > 0.0 and (len(more) <= MAX_DIGITS or is_written(more)):
                    if more in after:
                        after[more][1] += before * chance
                    elif (state := automaton.step(states[number], sign)) is not None:
                        after[more], states[more] = [0.0, before * chance], state
        sums = [(by_none + by_sign, number) for number, (by_none, by_sign) in after.items()]
        likeliest = sorted(sums, reverse=True)[:MAX_PREFIXES]
        best = likeliest[0][0] or 1.0  # all are divided by this, or they would become too small
        # if the most probable numbers may be left out, less probable ones must be kept
        bound = MIN_SHARE * best if is_free else 0.0
        numbers = {
            number: (after[number][0] / best, after[number][1] / best)
            for chance, number in likeliest
            if chance > bound
        }
    return [
        number
        for number in sorted(numbers, key=lambda number: -sum(numbers[number]))
        if number and is_written(number) and automaton.is_final(states[number])
    ]


def spell(answer: Answer) -> list[tuple[str, int]]:
    """The signs that the likeliest classes of the columns show, each with its clearest column."""
    signs: list[tuple[str, int]] = []
    before = BLANK
    best = answer.max(0).tolist()
    for column, each in enumerate(answer.argmax(0).tolist()):
        if each not in (BLANK, before):
            signs.append((ALPHABET[each], column))
        elif each != BLANK and best[column] > best[signs[-1][1]]:
            signs[-1] = ALPHABET[each], column
        before = each
    return signs


def weigh(answer: Answer, numbers: list[str]) -> NDArray[np.float64]:
    """The log-probability of each number by its CTC loss; minus infinity if it does not fit."""
    lengths = [len(number) for number in numbers]
    columns = answer[:, choose_columns(answer, max(lengths))]
    table = torch.from_numpy(columns).T[:, None].expand(-1, len(numbers), -1)
    signs = torch.tensor([*map(ALPHABET.index, "".join(numbers))])
    widths = [len(table)] * len(numbers)
    loss = torch.ctc_loss(table, signs, widths, lengths, BLANK, 0)
    return -loss.numpy().astype(float)


def sum_paths(answer: Answer, automaton: DigitsAutomaton) -> float:
    """The probability that digits alone show any of the values, with that of none.

    It is the sum over all paths, by their state of the automaton and their last class. A path whose
    next state is not looked for counts as well, so that the sum may be slightly too high, and is
    never too low. The answer is that of `pass_over` without signs.
    """
    if automaton.has_all:
        return 1.0
    automaton.number_anew()
    digits = [*map(ALPHABET.index, automaton.digits)]
    classes = len(digits) + 1  # the last one is the blank
    columns = answer[[*digits, BLANK]][:, choose_columns(answer, 0)]
    count = len(automaton.is_counted)
    # by state and last class; together they are always 1
    sums: NDArray[np.float64] = np.zeros((count, classes))
    sums[automaton.START, -1] = 1.0
    targets = (automaton.steps[:count] * classes + np.arange(classes - 1)).ravel()
    for chances in np.exp(columns.T.astype(float)):
        before = sums.sum(1, keepdims=True)
        begun = (before - sums[:, :-1]) * chances[:-1]  # another sign begins
        if not automaton.has_few_states:
            automaton.find_steps(begun > MIN_FLOW)
            targets = (automaton.steps[:count] * classes + np.arange(classes - 1)).ravel()
        sums *= chances  # the last sign goes on
        sums[:, -1] = before[:, 0] * chances[-1]
        size = len(automaton.is_counted) * classes
        after = np.asarray(np.bincount(targets, begun.ravel(), size), np.float64)
        after[: sums.size] += sums.ravel()
        sums, count = after.reshape(-1, classes), len(automaton.is_counted)
    return float(sums[automaton.is_counted].sum())


def choose_columns(answer: Answer, signs: int) -> NDArray[np.intp]:
    """The columns that may show a sign, and the first column of each gap after one.

    If these are too few for so many signs, the result is all columns.
    """
    is_none = answer[BLANK] > math.log(1 - MIN_CLASS)
    is_kept = ~is_none
    is_kept[1:] |= ~is_none[:-1]
    columns = np.flatnonzero(is_kept)
    return columns if len(columns) > 2 * signs else np.arange(answer.shape[1])


def align(answer: Answer, number: str) -> list[int]:
    """The column in which each sign is clearest, on the number's most probable path (Viterbi).

    The number must have a probability, see `weigh`.
    """
    spelled = spell(answer)
    if "".join(sign for sign, _ in spelled) == number:
        return [column for _, column in spelled]
    classes = [BLANK, *(each for sign in number for each in (ALPHABET.index(sign), BLANK))]
    # a path may go from a sign to another one without a blank column between them
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
            each, other = classes[state], clearest.get(state, index)
            clearest[state] = index if chances[index][each] > chances[other][each] else other
        state -= steps[index][state]
    return [int(columns[clearest[state]]) for state in sorted(clearest)]
