"""A worker's heartbeat in Redis: what it says of itself, and what soon expires if it is silent."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf

from pydantic import TypeAdapter

WORKER_HEARTBEAT_SECONDS = 2.0  # time between two heartbeats
MAX_HEARTBEAT_AGE_SECONDS = 15  # Redis forgets a worker that is silent for longer


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """A worker that lives: its main process and its pool. A worker of another version may not give
    all fields."""

    name: str  # the node name of Celery and Flower
    host: str
    version: str  # the version of digitq
    fingerprint: str  # workers with the same one give the same answers, to the last bit
    processes: int
    started: datetime  # by the worker's clock
    images: int = 0  # how many it has classified
    images_per_second: float  # over the last ten seconds of work; 0 if it is idle
    silent_seconds: float  # since its last heartbeat
    missing: str = ""  # why it is not ready for work; empty if it is
    clock_seconds: float = 0  # its clock is at least this far ahead of Redis's
    kind: str = ""  # what the fingerprint is a hash of, for people
    machine: str = ""  # an id, the same in all containers of a machine
    machine_cores: int = 1
    share: str = ""  # an id, the same for all workers that share the same `cores`
    cores: int = 1
    threads: int = 0  # how many the network uses in each process
    faults: tuple[str, ...] = ()  # why models can't be used
    deadline_seconds: float = inf

    @staticmethod
    def parse(name: str, fields: Mapping[str, str], now: float) -> "WorkerState":
        """The state from the fields of its hash in Redis, whose clock shows `now`."""
        about = json.loads(fields.get("about", "{}"))
        own = {"name": name, "silent_seconds": now - float(fields["heard"])}
        return STATE.validate_python({**fields, **about, **own})


STATE = TypeAdapter(WorkerState)


def seconds_ahead(before: float, redis_time: float, after: float) -> float:
    """How far this host's clock is ahead of that of Redis, at least, if Redis's was read between
    these two times of this host."""
    return max(0.0, before - redis_time) - max(0.0, redis_time - after)
