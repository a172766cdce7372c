"""The room in Redis: how full it is, and how much of it the results of a job take."""

from dataclasses import dataclass

from digitq.protocol.settings import What
from digitq.protocol.text import plural

MAX_FILL = 0.7  # above this share of Redis's maxmemory, producers wait: workers need the rest
# Above this share, the results of a job that is still being stored are freed as they are collected:
# a small Redis may refuse the next chunk before MAX_FILL is reached
FREE_FILL = 0.5
# The memory of Redis for a result, measured for MNIST's 60,000 digits and for photos of numbers
RESULT_BYTES: dict[What, int] = {"digit": 80, "number": 280}
MIN_TOLD_BYTES = 50_000  # results that need less, 0.0 MB when rounded, are not worth a word


def describe_need(images: int, read: What) -> str:
    """Says what the results of a job need in Redis; empty if it is next to nothing."""
    needed = images * RESULT_BYTES[read]
    return f"about {needed / 1e6:,.1f} MB" if needed >= MIN_TOLD_BYTES else ""


@dataclass(frozen=True)
class Memory:
    """What Redis says of its memory."""

    used_bytes: int
    limit_bytes: int  # its `maxmemory`; 0 if it has none

    @property
    def is_full(self) -> bool:
        """Whether producers wait before they store more."""
        return self.fill > MAX_FILL

    @property
    def fill(self) -> float:
        """The share of the limit that is used."""
        return self.used_bytes / self.limit_bytes if self.limit_bytes else 0.0

    def describe_shortage(self, images: int, read: What) -> str:
        """Says that the results of a job will not fit; empty if they do."""
        needed = images * RESULT_BYTES[read]
        left = max(0, int(MAX_FILL * self.limit_bytes) - self.used_bytes)
        if not self.limit_bytes or needed <= left:
            return ""
        return (
            f"the results of {plural(images, 'image')} need {describe_need(images, read)}, and "
            f"Redis has room for {left / 1e6:,.1f} MB, since producers fill at most {MAX_FILL:.0%} "
            "of its maxmemory"
        )
