"""What a job reads in its images: single digits with a network, whole numbers, or pages' fields."""

import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias, Unpack

from digitq.protocol.asked.form import FORM_MAGIC, Cell, Form, read_form
from digitq.protocol.asked.known import Known, WhatIsKnown, describe_known
from digitq.protocol.asked.risk import Asked, choose_risk, describe_way
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.settings import MODELS, NUMBER, WHATS, What, read_by, settings
from digitq.protocol.text import in_one_line

FormLike: TypeAlias = str | os.PathLike[str] | Form  # a form, or its file


class AskedOfNumbers(WhatIsKnown, Asked, total=False):
    """What a person says of whole numbers."""


class Reading(NamedTuple):
    """How a job's images are read."""

    model: str
    known: bytes = b""  # what is known and asked, or the form, encoded; empty for nothing
    form_name: str | None = None  # the form's file
    risk: float | None = None  # so much may be wrong among the answers that are not marked
    like: str | None = None  # the corrected results of which the risk was measured

    @property
    def what(self) -> What:
        return read_by(self.model)

    @property
    def form(self) -> Form | None:
        """The form that the pages have; None if each image is one digit or number."""
        return decode_form(self.known) if self.known.startswith(FORM_MAGIC) else None

    @property
    def row(self) -> str:
        """What a row of the results is of."""
        return "field" if self.form else "image"

    def count_rows(self, images: int | None) -> int | None:
        """How many rows so many images have; None if the number is unknown."""
        return None if images is None else images * self.rows_of_image

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The places of each page; nothing without a form."""
        return self.form.cells if self.form else ()

    @property
    def rows_of_image(self) -> int:
        """How many rows the results have for each image."""
        return max(1, len(self.cells))


@lru_cache(maxsize=2)
def decode_form(payload: bytes) -> Form:
    return Form.decode(payload)


def decode_known(payload: bytes) -> Known | Form:
    """What is known beforehand, from the bytes that travel with a job. Raises `DigitqError`."""
    try:
        return Form.decode(payload) if payload.startswith(FORM_MAGIC) else Known.decode(payload)
    except (ValueError, TypeError) as error:
        reason = in_one_line(str(error).partition("\n")[0])
        raise DigitqError(
            "what is known of the numbers is damaged, or of a newer version of digitq than this "
            f"worker's: update the worker ({reason})"
        ) from None


def choose_reading(
    model: str | None = None,
    read: str = "digit",
    form: FormLike | None = None,
    risk: float | str | None = None,
    like: str | os.PathLike[str] | None = None,
    **known: Unpack[WhatIsKnown],
) -> Reading:
    """The reading that a person asks for; the default model for None. A form, or its file, implies
    that numbers are read.

    Raises `UsageError` for an unknown name, for arguments that do not go together, and as
    `Known.check`, `read_form` and `choose_risk`.
    """
    reading = choose_known(model, read, form, **known)
    if risk is None and like is None:
        return reading
    way = describe_way(*describe_known(b"" if reading.form else reading.known), bool(reading.form))
    chosen = choose_risk(risk, like, reading.model, way)
    asked = replace(decode_known(reading.known), risk=chosen)
    where = None if like is None else os.path.abspath(like)
    return reading._replace(known=asked.encode(), risk=chosen.share, like=where)


def choose_known(
    model: str | None, read: str, form: FormLike | None, **known: Unpack[WhatIsKnown]
) -> Reading:
    """The reading without what is asked of its answers. Raises as `choose_reading`."""
    if read not in WHATS:
        raise UsageError(f"`read` is {read!r}: it must be {' or '.join(WHATS)}")
    for name in known.keys() - WhatIsKnown.__annotations__.keys():
        raise UsageError(f"there is no argument {name!r}")
    is_any_known = any(value is not None for value in known.values())
    if form is not None and is_any_known:
        raise UsageError(
            "a form says what is known of each field: leave out length, pattern, allowed and fill"
        )
    if read == "number" or form is not None:
        if model is not None:
            raise UsageError(
                f"whole numbers have a network of their own: leave out the model {model!r}"
            )
        if form is None:
            return Reading(NUMBER, Known.check(**known).encode())
        if isinstance(form, Form):
            return Reading(NUMBER, form.encode(), "a form in Python")
        return Reading(NUMBER, read_form(Path(form)).encode(), os.path.abspath(form))
    if is_any_known:
        raise UsageError(
            "a length, a pattern, a fill and allowed numbers need whole numbers: --read number, or "
            'read="number"'
        )
    model = model or settings().model
    if model not in MODELS:
        raise UsageError(f"there is no model {model!r}; there are: {', '.join(MODELS)}")
    return Reading(model)
