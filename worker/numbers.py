"""Reads the whole number in a picture."""

from dataclasses import dataclass

from protocol.chunk import Reason
from protocol.known import Known
from worker.pictures import ImageError

Box = tuple[float, float, float, float]  # left, top, right, bottom, in px of the upright picture


@dataclass(frozen=True)
class FoundDigit:
    """One digit of a number."""

    digit: int
    confidence: float
    box: Box


@dataclass(frozen=True)
class NumberReading:
    """The number in a picture."""

    number: str
    confidence: float  # the probability that the whole number is right
    digits: list[FoundDigit]
    alternatives: list[tuple[str, float]]  # up to five other numbers with their probability
    reason: Reason  # why a person should look at it; "" if there is no need


def read_number(content: bytes, known: Known) -> NumberReading:
    """The number in an image file. Raises `ImageError`."""
    raise ImageError("this worker has no network that reads whole numbers")
