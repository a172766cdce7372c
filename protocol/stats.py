"""What a worker says of itself when `digitq doctor` asks: the command's name, and the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

STATS = "digitq_stats"


@dataclass(frozen=True)
class WorkerStats:
    """One worker: a main process and its pool, on some machine."""

    version: str  # of digitq
    torch: str  # its version and instruction set: the last bits of an answer depend on both
    machine: str  # the same for all containers of a machine
    machine_cores: int
    share: str  # of the machine; the same for all workers that have `cores` between them
    cores: int
    processes: int
    threads: int  # of each process, in the network
    takes_work: bool  # messages of the queue, as long as nobody tells it to take none
    models: dict[str, str | None]  # by name: None where it can be used, else what is wrong
    cards: dict[str, str]  # of models, by name: a SHA-256, which depends on the weights too
    deadline_seconds: float
    time: float  # of the worker's clock, in seconds since 1970

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Self | None:
        """None where it is no answer of a worker of this version: fields are missing."""
        names = [field.name for field in fields(cls)]
        if not all(name in answer for name in names):
            return None
        return cls(**{name: answer[name] for name in names})
