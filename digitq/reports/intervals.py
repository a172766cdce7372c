"""How far a share that was counted may be from the true one."""

from math import sqrt

NORMAL_95 = 1.959964  # 95 % of a normal distribution is within so many standard deviations


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of Wilson for a share, as two numbers 0..1; 0..1 if nothing was counted.

    Unlike mean ± deviations it stays within 0..1, and is not empty if all or none are right.
    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval#Wilson_score_interval
    """
    if not total:
        return 0.0, 1.0
    share, squared = right / total, NORMAL_95**2
    middle = (share + squared / (2 * total)) / (1 + squared / total)
    spread = sqrt(share * (1 - share) / total + squared / (4 * total**2))
    half = NORMAL_95 * spread / (1 + squared / total)
    low = middle - half if right else 0.0
    return low, middle + half if right < total else 1.0  # rounding must not pass the share
