"""A reader of whole numbers for tests: a picture's file says in its bytes what is in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from digitq.protocol.asked.known import Known
from digitq.protocol.chunk import Alternative, FoundDigit
from digitq.worker.picture import ImageError
from digitq.worker.sight.numbers.recognition import NumberReading


def read_text(content: bytes, known: Known) -> NumberReading:
    """The number that the bytes are, as `b"007"`; `known` decides as in a real reader."""
    if not content.isdigit():
        raise ImageError("no number is in the image")
    number = content.decode()
    reason = "unsure" if number.endswith("9") else ""
    if known.allowed is not None and content not in known.allowed.tolist():
        reason = "not allowed"
    digits = [
        FoundDigit(int(digit), 0.9, 10.0 * place, 0.0, 10.0 * place + 8.5, 20.0)
        for place, digit in enumerate(number)
    ]
    return NumberReading(number, 0.7, digits, [Alternative(number[::-1], 0.2)], reason)


def trace_text(content: bytes, known: Known) -> Iterator[NumberReading]:
    yield read_text(content, known)


@contextmanager
def reader_of_texts() -> Iterator[None]:
    """Within this context, this process reads numbers so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("digitq.worker.classify.trace_number", trace_text)
        yield
