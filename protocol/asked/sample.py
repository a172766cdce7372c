"""What a random sample of rows says about all of them: how many of them may be wrong."""

from dataclasses import dataclass
from math import ceil, exp, floor, inf, lgamma, log, log1p, log10

BOUND_CONFIDENCE = 0.95  # a bound is too low for at most 5 % of the samples that could be drawn
MAX_SAMPLE = 2000  # at most this many rows can be drawn: their pictures take some 20 MB
BISECTIONS = 50  # an interval is halved this often, so a bound's error is below 1e-15


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Unmarked rows that were looked at, and what they say about all unmarked rows."""

    unmarked: int  # rows with an answer, none of which was to review
    looked_at: int  # how many of them were drawn at random and compared with the right answer
    wrong: int  # how many of those were wrong
    at_most: float  # the share of the unmarked rows that is wrong is not above this
    confidence: float = BOUND_CONFIDENCE  # the probability that this holds, at least
    left: int = 0  # unmarked rows that nobody has looked at
    left_at_most: int = 0  # how many of these are wrong, at most

    def figures(self) -> dict[str, int | float]:
        """What it says of all unmarked rows, as JSON can hold it."""
        names = ("unmarked", "looked_at", "wrong", "at_most", "confidence")
        return {name: getattr(self, name) for name in names}

    def describe(self, rows: str = "rows") -> str:
        """One line for people; `rows` says what was looked at."""
        were = "was" if self.wrong == 1 else "were"
        return (
            f"of {self.unmarked:,} unmarked {rows} at most {show_bound(self.at_most)} are wrong "
            f"({100 * self.confidence:.0f} % confidence; "
            f"{self.wrong:,} of {self.looked_at:,} looked at {were})"
        )


def bound_share(wrong: int, looked_at: int, confidence: float = BOUND_CONFIDENCE) -> float:
    """The largest share of wrong rows with which a random sample has as few wrong ones as this:
    the one-sided upper limit of C. J. Clopper and E. S. Pearson (1934). It is 1 for no rows."""
    if wrong >= looked_at:
        return 1.0
    low, high = wrong / looked_at, 1.0
    for _ in range(BISECTIONS):
        share = (low + high) / 2
        chance = sum(
            exp(log_choose(looked_at, few) + few * log(share) + (looked_at - few) * log1p(-share))
            for few in range(wrong + 1)
        )
        low, high = (share, high) if chance > 1 - confidence else (low, share)
    return high


def bound_count(wrong: int, looked_at: int, rows: int) -> int:
    """The largest number of wrong rows among so many of which the sample was drawn.

    As `bound_share`, with the rows that are left: it is exact if all rows were looked at.
    """
    low, high = wrong, rows - (looked_at - wrong)
    whole = log_choose(rows, looked_at)
    while low < high:
        count = (low + high + 1) // 2
        chance = sum(
            exp(log_choose(count, few) + log_choose(rows - count, looked_at - few) - whole)
            for few in range(wrong + 1)
        )
        low, high = (count, high) if chance > 1 - BOUND_CONFIDENCE else (low, count - 1)
    return low


def log_choose(total: int, chosen: int) -> float:
    """The logarithm of the binomial coefficient."""
    if not 0 <= chosen <= total:
        return -inf
    return lgamma(total + 1) - lgamma(chosen + 1) - lgamma(total - chosen + 1)


def show_bound(share: float) -> str:
    """A bound in percent with two digits, rounded up."""
    if share <= 0:
        return "0 %"
    digits = 1 - floor(log10(100 * share))  # after the point
    step = 10.0**-digits
    return f"{min(100.0, ceil(100 * share / step - 1e-9) * step):.{max(0, digits)}f} %"
