"""The rate of a worker, which its heartbeat tells."""

RATE_SECONDS = 10.0  # a rate is the mean of about this long


class Meter:
    """The rate at which a count grows."""

    def __init__(self) -> None:
        self._readings: list[tuple[float, int]] = []  # time and count

    def read(self, count: int, now: float) -> None:
        """Note the count at a time in seconds."""
        recent = [reading for reading in self._readings if now - reading[0] <= RATE_SECONDS]
        if recent and recent[0][1] == recent[-1][1]:  # if work begins now, idle time is left out
            recent = recent[-1:]
        if recent and recent[-1][1] > count:  # Redis has lost the count
            recent = []
        self._readings = [*recent, (now, count)]

    @property
    def rate(self) -> float:
        """How much the count grows each second; 0 if it is not known."""
        (before, less), (now, more) = self._readings[:1] + self._readings[-1:] or [(0, 0), (0, 0)]
        return (more - less) / (now - before) if more > less else 0.0
