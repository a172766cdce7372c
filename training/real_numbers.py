"""Real numbers among the rendered ones: the networks in training find the digits in them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from training.hands import RealNumber
from training.rendered import Scene
from worker.learning.column_batches import NO_BOXES, LearnedStrip, Rng, cut_inexactly
from worker.models.number import NumberReader
from worker.sight.numbers.line_strip import Boxes
from worker.sight.numbers.recognition import look
from worker.sight.numbers.search import CLEAR
from worker.sight.types import ImageError

MAX_MISSED = 1  # a number is learned if at most this many digits too few or too many are seen
BEYOND = 0.8  # heights of a digit: the line of an unsure number is longer by this at both ends


class PlacedNumber(NamedTuple):
    """A real number, and where its line is."""

    real: RealNumber
    digits: Boxes  # what the detector took for digits, from left to right
    is_exact: bool  # these are the number's digits, one by one


def place_numbers(reader: NumberReader, numbers: Iterable[RealNumber]) -> list[PlacedNumber]:
    """Find the lines of numbers; those of which too many or too few digits are seen are dropped."""
    placed = []
    for real in numbers:
        try:
            line = look(reader, real.picture).line.likely(CLEAR)
        except ImageError:
            continue
        digits = [sign for sign in real.text if sign.isdecimal()]
        order = line.middles[:, 0].argsort()
        seen, boxes = line.digits[order].argmax(1), line.boxes[order]
        is_exact = [*map(str, seen.tolist())] == digits
        if len(boxes) and abs(len(boxes) - len(digits)) <= MAX_MISSED:
            placed.append(PlacedNumber(real, boxes, is_exact))
    return placed


def choose_numbers(numbers: Sequence[PlacedNumber], count: int, rng: Rng) -> list[PlacedNumber]:
    """Draw numbers; of a source with four times as many numbers, twice as many are drawn."""
    if not numbers:
        return []
    names, places = np.unique([one.real.source for one in numbers], return_inverse=True)
    shares = np.bincount(places, minlength=len(names))[places] ** -0.5
    chosen = rng.choice(len(numbers), count, p=shares / shares.sum())
    return [numbers[row] for row in chosen.tolist()]


def to_scene(placed: PlacedNumber) -> Scene:
    """The picture of an exactly placed number as the detector learns it."""
    text = "".join(sign for sign in placed.real.text if sign.isdecimal())
    signs = [*map(int, text)]
    return Scene(placed.real.picture, signs, placed.digits, text, text, placed.digits, "")


def cut_number(placed: PlacedNumber, rng: Rng) -> LearnedStrip:
    """The line of a number as the columns learn it.

    The middles of the signs are learned if all are digits, and exactly placed.
    """
    real, digits, is_exact = placed
    if not is_exact:  # a digit at an end may be one of those that were not seen
        digits = digits.copy()
        more = BEYOND * np.median(digits[:, 3] - digits[:, 1])
        digits[digits[:, 0].argmin(), 0] -= more
        digits[digits[:, 2].argmax(), 2] += more
    boxes = digits if is_exact and real.text.isdecimal() else NO_BOXES
    strip = cut_inexactly(real.picture, digits, real.text, boxes, rng)
    return strip._replace(knows_signs=real.knows_signs)
