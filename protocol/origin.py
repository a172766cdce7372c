"""Where the images of a job come from, and what was asked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """What opens the same images again; by default they were in the submitter's memory."""

    sources: tuple[str, ...] = ()  # SOURCEs as they were given
    folder: str = ""  # the folder that they are relative to
    truth: str | None = None  # `parent`, or the file of right answers
    limit: int | None = None  # only the first images were taken
    length: str | None = None  # that of whole numbers, such as 9 or 3-6
    allowed: int | None = None  # how many whole numbers were allowed
    more_sources: int = 0  # how many more SOURCEs there were
