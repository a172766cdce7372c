"""The digit that a worker sees in a file."""

from digitq.worker.sight.digits import trace_digit
from digitq.worker.sight.normalisation.steps import Step


def read_digit(content: bytes) -> Step:
    """The last step: 28×28. Raises `ImageError`."""
    *_, last = trace_digit(content)
    return last
