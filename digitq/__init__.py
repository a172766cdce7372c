"""digitq: classify handwritten digits in bulk over a queue.

`from digitq import Client` is the way in from Python; `python -m digitq` is the command line.
"""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    Raises `ImportError` if a file of the user is found in place of one of digitq's packages.
    """
    if name not in __all__:
        raise AttributeError(f"module 'digitq' has no attribute {name!r}")
    if reason := describe_foreign_module():
        raise ImportError(f"digitq: {reason}")
    return getattr(import_module("producer"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def describe_foreign_module() -> str | None:
    """What is imported in place of digitq's `producer` or `protocol`, which are common names, and
    what to do about it; None if nothing is."""
    for name in ("producer", "protocol"):
        spec = find_spec(name)
        if spec is None:
            return f"its package `{name}` is missing: install digitq again"
        # A folder without an __init__.py has no origin
        path = Path(spec.origin or next(iter(spec.submodule_search_locations or ()))).resolve()
        if path != Path(__file__).resolve().parents[1] / name / "__init__.py":
            return (
                f"{path} is imported in place of digitq's own `{name}`: "
                "rename it, or run from a folder without it"
            )
    return None
