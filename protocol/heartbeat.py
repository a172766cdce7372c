"""A worker's sign of life in Redis, which it gives again and again, and which soon expires."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

SIGN_SECONDS = 2.0  # time between two signs of life
MAX_SIGN_AGE_SECONDS = 15  # Redis forgets a worker that gives none for longer


@dataclass(frozen=True, kw_only=True)
class WorkerSign:
    """A worker that lives: its main process and its pool."""

    name: str  # the node name of Celery and Flower
    host: str
    version: str  # of digitq
    fingerprint: str  # workers with the same one give the same answers, to the last bit
    processes: int
    started: datetime  # by the worker's clock
    images: int  # how many it has classified
    images_per_second: float  # over the last ten seconds of work; 0 if it is idle
    silent_seconds: float  # since its last sign

    @classmethod
    def parse(cls, name: str, fields: Mapping[str, str], now: float) -> Self:
        """The sign from the fields of its hash in Redis, whose clock shows `now`."""
        return cls(
            name=name,
            host=fields["host"],
            version=fields["version"],
            fingerprint=fields["fingerprint"],
            processes=int(fields["processes"]),
            started=datetime.fromtimestamp(float(fields["started"]), UTC),
            images=int(fields.get("images", 0)),
            images_per_second=float(fields["images_per_second"]),
            silent_seconds=now - float(fields["heard"]),
        )
