"""Feeds images to the queue and collects the answers: `from producer import Client`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import Client, Prediction
    from producer.job import Job

__all__ = ["Client", "Job", "Prediction"]


def __getattr__(name: str) -> Any:
    """Import on demand, so that `digitq --help` need not wait for Celery and Arrow."""
    if name == "Job":
        from producer.job import Job

        return Job
    if name in ("Client", "Prediction"):
        from producer import client

        return getattr(client, name)
    raise AttributeError(f"module 'producer' has no attribute {name!r}")
