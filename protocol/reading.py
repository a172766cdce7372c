"""What a job reads in its images: single digits with a network, or whole numbers."""

from typing import NamedTuple, Unpack

from protocol.errors import UsageError
from protocol.known import Known, WhatIsKnown
from protocol.settings import MODELS, NUMBER, WHATS, What, read_by, settings


class Reading(NamedTuple):
    """How a job's images are read."""

    model: str
    known: bytes = b""  # what is known of its numbers beforehand, encoded; empty for nothing

    @property
    def what(self) -> What:
        return read_by(self.model)


def choose_reading(
    model: str | None = None,
    read: str = "digit",
    **known: Unpack[WhatIsKnown],
) -> Reading:
    """The reading that a person asks for; the default model for None.

    Raises `UsageError` for an unknown name, for arguments that do not go together, and as
    `Known.check`.
    """
    if read not in WHATS:
        raise UsageError(f"`read` is {read!r}: it must be {' or '.join(WHATS)}")
    if read == "number":
        if model is not None:
            raise UsageError(
                f"whole numbers have a network of their own: leave out the model {model!r}"
            )
        return Reading(NUMBER, Known.check(**known).encode())
    if any(value is not None for value in known.values()):
        raise UsageError(
            "a length, a pattern, a fill and allowed numbers need whole numbers: --read number, or "
            'read="number"'
        )
    model = model or settings().model
    if model not in MODELS:
        raise UsageError(f"there is no model {model!r}; there are: {', '.join(MODELS)}")
    return Reading(model)
