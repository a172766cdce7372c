"""The remote control command with which `digitq doctor` asks workers about themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

STATS = "digitq_stats"  # the name of the command


@dataclass(frozen=True)
class WorkerStats:
    """A worker: its main process and its pool."""

    version: str  # of digitq
    torch: str  # version and instruction set: the last bits of an answer depend on both
    machine: str  # an id, the same in all containers of a machine
    machine_cores: int
    share: str  # an id, the same for all workers that share the same `cores`
    cores: int
    processes: int
    threads: int  # of the network in each process
    takes_work: bool  # false if someone has told the worker not to read the queue
    models: dict[str, str | None]  # by name: what is wrong with it, None if it can be used
    cards: dict[str, str]  # by model: a SHA-256 of its card and weights
    deadline_seconds: float
    time: float  # seconds since 1970 by the worker's clock

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Self | None:
        """The answer of a worker; None if fields are missing, as in another version's."""
        names = [field.name for field in fields(cls)]
        if not all(name in answer for name in names):
            return None
        return cls(**{name: answer[name] for name in names})
