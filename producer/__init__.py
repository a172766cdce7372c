"""Feeds images to the queue and collects the answers: `from producer import Client`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import Client
    from producer.job import Job
    from producer.predictions import Prediction

__all__ = ["Client", "Job", "Prediction"]


def __getattr__(name: str) -> Any:
    """Import on demand, so that `digitq --help` need not wait for Celery and Arrow."""
    if name in __all__:
        module = {"Client": "client", "Job": "job", "Prediction": "predictions"}[name]
        return getattr(import_module(f"producer.{module}"), name)
    raise AttributeError(f"module 'producer' has no attribute {name!r}")
