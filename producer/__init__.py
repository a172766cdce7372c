"""Feeds images to the queue and collects the results: `from producer import Client`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protocol import errors

if TYPE_CHECKING:
    from producer.client import Client as Client
    from producer.job import Job as Job
    from producer.prediction import NumberPrediction as NumberPrediction
    from producer.prediction import Prediction as Prediction
    from producer.sources.opening import open_sources as open_sources
    from protocol.errors import *  # noqa: F403 (all of them)
    from protocol.records import JobRecord as JobRecord

MODULES = {
    "Client": "producer.client",
    "Job": "producer.job",
    "JobRecord": "protocol.records",
    "NumberPrediction": "producer.prediction",
    "Prediction": "producer.prediction",
    "open_sources": "producer.sources.opening",
    **{name: "protocol.errors" for name, kind in vars(errors).items() if isinstance(kind, type)},
}
if not TYPE_CHECKING:  # mypy takes the names that are imported above
    __all__ = sorted(MODULES)


def __getattr__(name: str) -> Any:
    """Import a name on demand, so that `digitq --help` does not wait for Celery and Arrow."""
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module 'producer' has no attribute {name!r}")
