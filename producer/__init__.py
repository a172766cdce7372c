"""Feeds images to the queue and collects the results: `from producer import Client`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protocol import errors
from protocol.errors import BrokerError as BrokerError
from protocol.errors import DigitqError as DigitqError
from protocol.errors import JobAbandonedError as JobAbandonedError
from protocol.errors import JobCancelledError as JobCancelledError
from protocol.errors import JobFailedError as JobFailedError
from protocol.errors import OutputError as OutputError
from protocol.errors import ResultsExpiredError as ResultsExpiredError
from protocol.errors import UnknownJobError as UnknownJobError
from protocol.errors import UsageError as UsageError

if TYPE_CHECKING:
    from producer.batching import NumberPrediction as NumberPrediction
    from producer.batching import Prediction as Prediction
    from producer.client import Client as Client
    from producer.job import Job as Job
    from producer.sources.opening import open_sources as open_sources
    from protocol.ledger import JobRecord as JobRecord

MODULES = {
    "Client": "producer.client",
    "Job": "producer.job",
    "JobRecord": "protocol.ledger",
    "NumberPrediction": "producer.batching",
    "Prediction": "producer.batching",
    "open_sources": "producer.sources.opening",
}
__all__ = [*MODULES, *(name for name in vars(errors) if name.endswith("Error"))]


def __getattr__(name: str) -> Any:
    """Import a name on demand, so that `digitq --help` does not wait for Celery and Arrow."""
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module 'producer' has no attribute {name!r}")
