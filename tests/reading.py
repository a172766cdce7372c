"""The digit that a worker sees in a file."""

from worker.sight.normalisation.steps import Step
from worker.sight.reading import trace_digit


def read_digit(content: bytes) -> Step:
    """The last step: 28×28. Raises `ImageError`."""
    *_, last = trace_digit(content)
    return last
