"""Which of a network's own answers it goes on to learn from, where no person has given any."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from digitq.protocol.errors import UsageError
from digitq.protocol.text import name_some, plural

MIN_SURE = 60  # with fewer answers, nothing is learned
MAX_LEARNED = 15_000  # of so many answers, which may become a fifth more, the surest are learned
# In each round the network learns this share of the answers, the surest ones
ROUNDS = (0.7, 0.9)
BALANCE = 0.9  # each class has at least this part of that share of its own answers
GIVEN = np.inf  # the confidence of an answer that a person has given


class TooFewError(UsageError):
    """Raised if the answers are too few to learn from; its text says why."""


def choose_surest(
    confidence: NDArray[np.floating], classes: NDArray[np.integer], share: float
) -> NDArray[np.intp]:
    """The rows of the surest answers, in order: this share of all, at most `MAX_LEARNED`, and as
    many of each class that a hand whose sevens are all unsure teaches its sevens, too.

    `confidence` and `classes` are (N,). An answer of confidence 0 is never chosen, and one that a
    person has given, whose confidence is `GIVEN`, always.
    """
    is_given = confidence == GIVEN
    count = len(confidence) - int(is_given.sum())
    order = np.argsort(-confidence, kind="stable")
    order = order[(confidence[order] > 0) & ~is_given[order]]
    share = min(share, MAX_LEARNED / max(1, count))
    chosen = {*np.flatnonzero(is_given).tolist(), *order[: round(share * count)].tolist()}
    for one in np.unique(classes).tolist():
        rows = order[classes[order] == one]
        chosen.update(rows[: round(BALANCE * share * len(rows))].tolist())
    return np.array(sorted(chosen), np.intp)


def refuse_few(classes: NDArray[np.integer], names: Sequence[str] = ()) -> None:
    """Raises `TooFewError` if the chosen answers, (N,), are too few, or if there is none of some
    class. `names` are those of the classes that are needed."""
    if len(classes) < MIN_SURE:
        raise TooFewError(
            f"only {plural(len(classes), 'answer')} are sure: at least {MIN_SURE} are needed"
        )
    if missing := [name for at, name in enumerate(names) if at not in classes]:
        raise TooFewError(f"there is no sure answer of {name_some(missing)}")
