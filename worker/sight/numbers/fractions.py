"""Tells where a number may end in ½, ¼ or ¾, which the networks do not read.

They take such a fraction for one or two digits, for a slash or for a percent sign.
"""

import numpy as np

from protocol.known import Known
from protocol.values import ALPHABET
from worker.sight.numbers.ctc import Answer
from worker.sight.numbers.finding import Candidates

LOOKALIKES = "/%"  # the signs for which the networks take a fraction
MIN_LOOKALIKE = 0.03  # with this probability in a column, such a sign may be there
MAX_READ_AS = 4  # a number with a fraction is read as at most this many digits
PLACE_CHANCE = 0.25  # the places of candidates with at least this chance are compared
LAST_OF_TALL, LAST_OF_LOW = "234", "24"  # what a whole fraction is read as, and its lower digit


def may_be_fraction(answer: Answer, line: Candidates, number: str, known: Known) -> bool:
    """Whether the number that is read in a line may have a fraction.

    A fraction is likely if a sign like one is passed over. Or else the last digit has the place of
    one: it is much taller than the first, or it is set lower. The shares were chosen by real
    halves, and by how many other numbers are marked.
    """
    if "/" not in known.fill and not {*LOOKALIKES} & {*number}:
        signs = np.exp(answer[[*map(ALPHABET.index, LOOKALIKES)]])
        if signs.sum(0).max() >= MIN_LOOKALIKE:
            return True
    boxes = line.likely(PLACE_CHANCE).boxes
    is_short = 1 < len(number) <= MAX_READ_AS and number.isdecimal()
    if known.fixes_length or not is_short or len(boxes) < 2:
        return False
    (_, top, _, bottom), (_, last_top, _, last_bottom) = boxes[0].tolist(), boxes[-1].tolist()
    height = max(bottom - top, 1.0)
    above, below = (top - last_top) / height, (last_bottom - bottom) / height
    ratio = (last_bottom - last_top) / height
    is_tall = ratio > 1.25 and min(above, below) > 0.1 and number[-1] in LAST_OF_TALL
    is_low = ratio < 1 and above < -0.2 and below > 0.08 and number[-1] in LAST_OF_LOW
    return is_tall or is_low
