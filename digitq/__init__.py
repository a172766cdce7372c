"""digitq: classify handwritten digits in bulk over a queue.

`from digitq import Client` is the way in from Python; `python -m digitq` is the command line.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from digitq.modules import describe_foreign_module

if TYPE_CHECKING:
    from producer import (
        BrokerError,
        Client,
        DigitqError,
        Job,
        JobAbandonedError,
        JobCancelledError,
        JobFailedError,
        JobRecord,
        OutputError,
        Prediction,
        ResultsExpiredError,
        UnknownJobError,
        UsageError,
        open_sources,
    )

__all__ = [
    "BrokerError",
    "Client",
    "DigitqError",
    "Job",
    "JobAbandonedError",
    "JobCancelledError",
    "JobFailedError",
    "JobRecord",
    "OutputError",
    "Prediction",
    "ResultsExpiredError",
    "UnknownJobError",
    "UsageError",
    "open_sources",
]
__version__ = version("digitq")


def __getattr__(name: str) -> Any:
    """Import on demand, so that `digitq --help` does not wait for Celery and Arrow.

    Raises `ImportError` where a file of the user is found in place of one of digitq's packages.
    """
    if name in __all__:
        if reason := describe_foreign_module(("producer", "protocol")):
            raise ImportError(f"digitq: {reason}")
        return getattr(import_module("producer"), name)
    raise AttributeError(f"module 'digitq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
