"""Chooses which of a user's own images are held back: whole folders, documents or pages."""

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.values import ALPHABET
from digitq.protocol.text import name_some, plural

OWN_HELD_BACK = 0.2  # about this share of the images is held back
MIN_OWN_HELD_BACK = 0.1  # if less than this share is held back, smaller groups are tried
TRIED_ORDERS = 10  # in each of these orders, the groups to hold back are chosen; the best counts
LEVEL_ENDS = re.compile("[/#]")  # in an id, a folder, document or page ends before one of these


def hold_back(ids: Sequence[str], answers: Sequence[Any], seed: int) -> NDArray[np.bool_]:
    """Which images are held back, (N,): about a fifth, in which each digit occurs as in the others.

    They are whole folders, documents or pages if the ids name enough of them: other images of the
    same sheet are read better than those of other sheets and hands. Says what is held back.
    """
    shares = np.array([share_signs(str(answer)) for answer in answers])
    for groups in list_groupings(ids):
        if show_answers(groups, answers):
            continue
        names, numbers = np.unique(groups, return_inverse=True)
        chosen = choose_groups(numbers, shares, seed)
        is_held_back = chosen[numbers]
        if is_held_back.mean() >= MIN_OWN_HELD_BACK:
            print(
                f"held back: {is_held_back.sum():,} of {plural(len(ids), 'image')}, which are all "
                f"of {chosen.sum():,} of {len(names):,} folders or pages: "
                f"{name_some([name or '.' for name in names[chosen].tolist()])}",
                file=sys.stderr,
            )
            return is_held_back
    print(
        "the ids name no folders or pages that could be held back, so single images are: other "
        "sheets and hands may be read worse than what is measured here",
        file=sys.stderr,
    )
    return choose_groups(np.arange(len(ids)), shares, seed)


def share_signs(answer: str) -> list[float]:
    """What an answer adds to the images held back: one image, and the share of each sign in it."""
    return [1.0, *(answer.count(sign) / len(answer) for sign in ALPHABET)]


def list_groupings(ids: Sequence[str]) -> Iterator[list[str]]:
    """The group of each image: its first folder or document, then one or more levels below it."""
    ends = [[end.start() for end in LEVEL_ENDS.finditer(id)] for id in ids]
    for level in range(max(map(len, ends))):
        yield [id[: own[: level + 1][-1]] if own else "" for id, own in zip(ids, ends, strict=True)]


def show_answers(groups: Sequence[str], answers: Sequence[Any]) -> bool:
    """Whether folders hold the images of one answer each, so that they are no sheets."""
    pairs = {*zip(groups, answers, strict=True)}
    is_one_in_each = len(pairs) == len({*groups}) < len(groups)
    return is_one_in_each or all(LEVEL_ENDS.split(one)[-1] == str(other) for one, other in pairs)


def choose_groups(
    groups: NDArray[np.intp], shares: NDArray[np.float64], seed: int
) -> NDArray[np.bool_]:
    """Which of G groups to hold back, (G,), so that about a fifth of each column is.

    `groups` has the group of each image, (N,), and `shares` what it adds, (N, K).
    """
    sums = np.zeros((groups.max() + 1, shares.shape[1]))
    np.add.at(sums, groups, shares)
    wanted = OWN_HELD_BACK * sums.sum(0)
    rng = np.random.default_rng(seed)
    tried = []
    for _ in range(TRIED_ORDERS):
        missing, missed, chosen = wanted, wanted.sum(), np.zeros(len(sums), bool)
        for group in rng.permutation(len(sums)).tolist():
            after = missing - sums[group]
            if (off := np.abs(after).sum()) < missed - 1e-9:
                missing, missed, chosen[group] = after, off, True
        tried.append((missed, chosen))
    return min(tried, key=lambda one: one[0])[1]
