"""Feeds images to the queue and collects the results: `from digitq.producer import Client`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from digitq.protocol import errors

if TYPE_CHECKING:
    from digitq.producer.client import Client as Client
    from digitq.producer.job import Job as Job
    from digitq.producer.sources.opening import open_sources as open_sources
    from digitq.protocol.errors import *  # noqa: F403 (all of them)
    from digitq.protocol.prediction import NumberPrediction as NumberPrediction
    from digitq.protocol.prediction import Prediction as Prediction
    from digitq.protocol.records import JobRecord as JobRecord

MODULES = {
    "Client": "digitq.producer.client",
    "Job": "digitq.producer.job",
    "JobRecord": "digitq.protocol.records",
    "NumberPrediction": "digitq.protocol.prediction",
    "Prediction": "digitq.protocol.prediction",
    "open_sources": "digitq.producer.sources.opening",
    **{
        name: "digitq.protocol.errors"
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
    },
}
if not TYPE_CHECKING:  # mypy takes the names that are imported above
    __all__ = sorted(MODULES)


def __getattr__(name: str) -> Any:
    """Import a name on demand, so that `digitq --help` does not wait for Celery and Arrow."""
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module 'digitq.producer' has no attribute {name!r}")
