"""Tells where a number may end in ½, ¼ or ¾, though none is read.

The networks take some fractions for one or two digits, for a slash or for a percent sign.
"""

import numpy as np

from digitq.protocol.asked.known import Known
from digitq.protocol.asked.values import ALPHABET, FRACTIONS, NUMERALS, only_digits
from digitq.worker.sight.numbers.ctc import Answer, spell
from digitq.worker.sight.numbers.finding import Candidates

LOOKALIKES = "/%½¼¾"  # what the networks may see where a fraction is
MIN_LOOKALIKE = 0.03  # with this probability in a column, such a sign may be there
MAX_READ_AS = 4  # a number with a fraction is read as at most this many digits
PLACE_CHANCE = 0.25  # the places of candidates with at least this chance are compared
MIN_TALL = 1.25  # a whole fraction is more than this many times as tall as the first digit
MIN_BEYOND = 0.1  # heights of the first digit: it reaches so far above and below all others
MIN_LOWERED = (0.2, 0.08)  # heights of the first digit: so far below its top and base is the lower
MIN_OTHER = 0.1  # the detector takes a whole fraction for no digit with more than this chance
LAST_OF_WHOLE, LAST_OF_LOW = "234", "247"  # what a whole fraction is read as, and its lower digit


def may_be_fraction(answer: Answer, line: Candidates, number: str, known: Known) -> bool:
    """Whether the number that is read in a line may have a fraction that it lacks.

    A fraction is likely if a sign like one is passed over, which is followed by one digit at most:
    a date has more after each sign. Or else the last digit has the place of
    one: it is much taller than the others, or set lower than the first, or hardly a digit. The
    shares were chosen by real halves, and by how many other numbers are marked.
    """
    if any(sign in FRACTIONS for sign in number):
        return False
    spelled = spell(answer)
    if "/" not in known.fill and not {*LOOKALIKES} & {*number}:
        columns = [column for sign, column in spelled if sign in NUMERALS]
        end = answer[[*map(ALPHABET.index, LOOKALIKES)], columns[-2] if len(columns) > 1 else 0 :]
        if np.exp(end).sum(0).max() >= MIN_LOOKALIKE:
            return True
    signs = line.likely(PLACE_CHANCE)
    boxes = signs.boxes
    digits = only_digits(number)
    has_sign = any(sign in number and sign not in NUMERALS for sign, _ in spelled)
    is_short = 1 < len(digits) <= MAX_READ_AS and not has_sign
    if known.fixes_length or not is_short or len(boxes) < 2:
        return False
    *others, (_, top, _, bottom) = boxes.tolist()
    (_, first_top, _, first_bottom) = others[0]
    height = max(first_bottom - first_top, 1.0)
    ratio = (bottom - top) / height
    above = (min(one[1] for one in others) - top) / height
    below = (bottom - max(one[3] for one in others)) / height
    is_tall = ratio > MIN_TALL and min(above, below) > MIN_BEYOND
    is_other = signs.others[-1] > MIN_OTHER
    lowered = (top - first_top) / height, (bottom - first_bottom) / height
    is_low = ratio < 1 and lowered[0] > MIN_LOWERED[0] and lowered[1] > MIN_LOWERED[1]
    is_whole = (is_tall or is_other) and digits[-1] in LAST_OF_WHOLE
    return is_whole or (is_low and digits[-1] in LAST_OF_LOW)
