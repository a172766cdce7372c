"""Feeds images to the queue and collects the results: `from producer import Client`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the public names, which `__getattr__` imports
    from producer.batching import Prediction as Prediction
    from producer.client import Client as Client
    from producer.job import Job as Job
    from producer.sources.opening import open_sources as open_sources
    from protocol.errors import BrokerError as BrokerError
    from protocol.errors import DigitqError as DigitqError
    from protocol.errors import JobAbandonedError as JobAbandonedError
    from protocol.errors import JobCancelledError as JobCancelledError
    from protocol.errors import JobFailedError as JobFailedError
    from protocol.errors import OutputError as OutputError
    from protocol.errors import ResultsExpiredError as ResultsExpiredError
    from protocol.errors import UnknownJobError as UnknownJobError
    from protocol.errors import UsageError as UsageError
    from protocol.ledger import JobRecord as JobRecord

MODULES = {
    "BrokerError": "protocol.errors",
    "Client": "producer.client",
    "DigitqError": "protocol.errors",
    "Job": "producer.job",
    "JobAbandonedError": "protocol.errors",
    "JobCancelledError": "protocol.errors",
    "JobFailedError": "protocol.errors",
    "JobRecord": "protocol.ledger",
    "OutputError": "protocol.errors",
    "Prediction": "producer.batching",
    "ResultsExpiredError": "protocol.errors",
    "UnknownJobError": "protocol.errors",
    "UsageError": "protocol.errors",
    "open_sources": "producer.sources.opening",
}
__all__ = [*MODULES]


def __getattr__(name: str) -> Any:
    """Import a name on demand, so that `digitq --help` does not wait for Celery and Arrow."""
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module 'producer' has no attribute {name!r}")
