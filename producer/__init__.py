"""Feeds images to the queue and collects the results: `from producer import Client`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protocol.errors import (
    BrokerError,
    DigitqError,
    JobAbandonedError,
    JobCancelledError,
    JobFailedError,
    OutputError,
    ResultsExpiredError,
    UnknownJobError,
    UsageError,
)

if TYPE_CHECKING:
    from producer.client import Client
    from producer.job import Job
    from producer.prediction import NumberPrediction, Prediction
    from producer.sources.opening import open_sources
    from protocol.ledger import JobRecord

MODULES = {
    "Client": "producer.client",
    "Job": "producer.job",
    "JobRecord": "protocol.ledger",
    "NumberPrediction": "producer.prediction",
    "Prediction": "producer.prediction",
    "open_sources": "producer.sources.opening",
}
__all__ = [
    "BrokerError",
    "Client",
    "DigitqError",
    "Job",
    "JobAbandonedError",
    "JobCancelledError",
    "JobFailedError",
    "JobRecord",
    "NumberPrediction",
    "OutputError",
    "Prediction",
    "ResultsExpiredError",
    "UnknownJobError",
    "UsageError",
    "open_sources",
]


def __getattr__(name: str) -> Any:
    """Import a name on demand, so that `digitq --help` does not wait for Celery and Arrow."""
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module 'producer' has no attribute {name!r}")
