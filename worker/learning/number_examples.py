"""What the networks of `number` learn from: scenes whose signs are known, and real numbers.

The networks find the digits of a real number themselves.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from digitq.protocol.asked.values import ALPHABET, DIGITS_ONLY, only_digits
from digitq.worker.learning.column_batches import NO_BOXES, LearnedStrip, Rng, cut_inexactly
from digitq.worker.models.number_networks import NumberReader, StripSize
from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.numbers.ctc import pass_over, spell
from digitq.worker.sight.numbers.line_strip import Boxes
from digitq.worker.sight.numbers.recognition import list_digits, look
from digitq.worker.sight.numbers.search import CLEAR

TIGHT = ("several lines", "several numbers")  # their strips must not show the other number
MAX_MISSED = 1  # a number is learned if at most this many digits too few or too many are seen


class Scene(NamedTuple):
    picture: Grey
    signs: list[int]  # the number's digits, then other digits, and `OTHER`
    boxes: Boxes  # where these are
    number: str  # the number's digits
    text: str  # these and the signs that are read
    text_boxes: Boxes
    knows_signs: bool  # else the text is the number, and there may be signs beside it
    doubt: str


class RealNumber(NamedTuple):
    """The picture of a number that somebody wrote."""

    picture: Grey
    text: str  # its digits, and its signs if they are known
    knows_signs: bool
    source: str


class PlacedNumber(NamedTuple):
    """A real number, and where its line is."""

    real: RealNumber
    digits: Boxes  # its digits from left to right, or what the detector took for them
    is_exact: bool  # these are the number's digits, one by one


def place_number(
    reader: NumberReader, real: RealNumber, max_missed: int = MAX_MISSED
) -> PlacedNumber | None:
    """Find the line of a number; None if more than `max_missed` digits too few or too many are
    seen, or if it has a sign that is no class of the networks.

    If the network of columns reads its digits, they are placed where it sees them.
    """
    digits = only_digits(real.text)
    if not {*real.text} <= {*ALPHABET}:
        return None
    try:
        seen = look(reader, real.picture)
    except ImageError:
        return None
    read = spell(pass_over(seen.answer, DIGITS_ONLY))
    if digits and "".join(sign for sign, _ in read) == digits:
        found = list_digits(seen, digits, real.picture.shape, np.eye(3))
        boxes = np.array([digit[2:] for digit in found], np.float32)
        is_apart = bool((np.diff(boxes[:, 0] + boxes[:, 2]) > 0).all())  # else two have one box
        has_all = len(boxes) == len(digits)  # a fraction has no box
        return PlacedNumber(real, boxes, is_apart and has_all)
    line = seen.line.likely(CLEAR)
    if not (digits and len(line.boxes)) or abs(len(line.boxes) - len(digits)) > max_missed:
        return None
    order = line.middles[:, 0].argsort()
    spelled = "".join(map(str, line.digits[order].argmax(1).tolist()))
    return PlacedNumber(real, line.boxes[order], spelled == digits)


def cut_strips(scenes: Iterable[Scene], rng: Rng, size: StripSize) -> Iterator[LearnedStrip]:
    """The lines of the scenes with a clear number, and of those where another one is near."""
    for scene in scenes:
        is_alone = scene.doubt not in TIGHT
        if scene.number and not (scene.doubt and is_alone):
            digits = scene.boxes[: len(scene.number)]
            boxes = scene.text_boxes
            strip = cut_inexactly(scene.picture, digits, scene.text, boxes, rng, size, is_alone)
            yield strip._replace(knows_signs=scene.knows_signs)


def cut_number(placed: PlacedNumber, rng: Rng, size: StripSize) -> LearnedStrip:
    """The line of a number as the columns learn it.

    The middles of the signs are learned if all are digits, and exactly placed.
    """
    real, digits, is_exact = placed
    if not is_exact:  # a digit at an end may be one of those that were not seen
        digits = digits.copy()
        digits[digits[:, 0].argmin(), 0] = 0
        digits[digits[:, 2].argmax(), 2] = real.picture.shape[1]
    boxes = digits if is_exact and real.text.isdecimal() else NO_BOXES
    strip = cut_inexactly(real.picture, digits, real.text, boxes, rng, size)
    return strip._replace(knows_signs=real.knows_signs)
