"""Where the images of a job come from, and what was asked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """What opens the same images again; by default they were in the submitter's memory."""

    sources: tuple[str, ...] = ()  # SOURCEs as they were given
    folder: str = ""  # the folder that they are relative to
    truth: str | None = None  # `parent`, or the file of right answers
    limit: int | None = None  # only the first images were taken
    pattern: str | None = None  # the pattern of whole numbers: a regular expression, or its name
    allowed: int | None = None  # how many whole numbers were allowed
    form: str | None = None  # the file of the form that its pages have
    risk: float | None = None  # so much may be wrong among the answers that are not marked
    like: str | None = None  # the corrected results of which this risk was measured
    second_reader: bool = False  # whether a network of another make has read the numbers, too
    adapted: int | None = None  # to so many rows the network was adapted
    more_sources: int = 0  # how many more SOURCEs there were
