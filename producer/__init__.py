"""Feeds images to the queue and collects the results."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from digitq.protocol import errors

if TYPE_CHECKING:
    from digitq.producer.job import Job as Job
    from digitq.producer.sources.in_memory import Image as Image
    from digitq.producer.sources.opening import open_sources as open_sources
    from digitq.producer.sources.source import Source as Source
    from digitq.protocol.asked.reading import Reading as Reading
    from digitq.protocol.asked.reading import digits as digits
    from digitq.protocol.asked.reading import form as form
    from digitq.protocol.asked.reading import numbers as numbers
    from digitq.protocol.errors import *  # noqa: F403 (all of them)
    from digitq.protocol.prediction import Answer as Answer
    from digitq.protocol.prediction import NumberPrediction as NumberPrediction
    from digitq.protocol.prediction import Prediction as Prediction
    from digitq.protocol.records import JobRecord as JobRecord

MODULES = {
    "Answer": "digitq.protocol.prediction",
    "Image": "digitq.producer.sources.in_memory",
    "Job": "digitq.producer.job",
    "JobRecord": "digitq.protocol.records",
    "NumberPrediction": "digitq.protocol.prediction",
    "Prediction": "digitq.protocol.prediction",
    "Reading": "digitq.protocol.asked.reading",
    "Source": "digitq.producer.sources.source",
    "digits": "digitq.protocol.asked.reading",
    "form": "digitq.protocol.asked.reading",
    "numbers": "digitq.protocol.asked.reading",
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
