"""The state of a deployment as Redis has it: backlog, jobs, workers, counters, memory.

It is read by plain commands: a program that only reads needs no right to write or to run scripts.
"""

from collections import Counter
from dataclasses import dataclass, field

from digitq.protocol.heartbeat import WorkerState
from digitq.protocol.ledger import Ledger
from digitq.protocol.records import JobRecord, RunningChunk

MAX_JOBS = 1000  # the newest jobs are read, up to this many, and all that have not ended
MAX_READ_SECONDS = 2.0  # if Redis is silent for longer, a watcher treats it as lost
ASSUMED_IMAGE_SECONDS = 0.01  # a process is taken to need this for an image if none was measured


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All that an operator may want to see at once."""

    jobs: tuple[JobRecord, ...] = ()  # the newest ones and all that are active; the oldest first
    running: tuple[RunningChunk, ...] = ()
    workers: tuple[WorkerState, ...] = ()  # the living ones, by name
    # What workers have counted of all jobs since Redis began to count
    counted: Counter[str] = field(default_factory=Counter)
    queued_images: int = 0  # images of programs without digitq that have no answer yet
    memory_bytes: int = 0  # Redis uses this much memory
    memory_limit_bytes: int = 0  # its `maxmemory`; 0 if it has none
    lacks_script: bool = False  # whether producers may have to wait until a worker loads the steps

    @property
    def listed_jobs(self) -> list[JobRecord]:
        """The jobs that are not single calls, the oldest first."""
        return [job for job in self.jobs if not job.is_call]

    @property
    def backlog_images(self) -> int:
        """How many images are not done: those that are stored, and those that wait for room."""
        return self.queued_images + sum(job.waiting_images for job in self.jobs)

    @property
    def backlog_process_seconds(self) -> float:
        """How long one process would need for the backlog.

        An image takes as long as the job's images took so far; else as those of its model; else
        `ASSUMED_IMAGE_SECONDS`. So this is above 0 as long as an image waits, or the ledger's steps
        for a worker to load them, and does not depend on how many workers there are.
        """
        of_jobs = sum(job.waiting_images * self._image_seconds(job) for job in self.jobs)
        return of_jobs + (self.queued_images + self.lacks_script) * ASSUMED_IMAGE_SECONDS

    @property
    def backlog_seconds(self) -> float:
        """How long the living processes need for the backlog, or one process if no worker lives.

        A worker's idle time does not count.
        """
        processes = sum(worker.processes for worker in self.workers)
        return self.backlog_process_seconds / max(1, processes)

    def _image_seconds(self, job: JobRecord) -> float:
        work_us, images = (self.counted[f"{name}:{job.model}"] for name in ("work_us", "images"))
        return job.image_seconds or work_us / 1e6 / max(1, images) or ASSUMED_IMAGE_SECONDS


def look_around(ledger: Ledger) -> Overview:
    """The present state. Raises `BrokerError`."""
    found = ledger.records_with_images(MAX_JOBS)
    jobs = [job for job in found if not job.is_image]
    memory = ledger.memory()
    return Overview(
        jobs=tuple(jobs),
        running=tuple(ledger.running_chunks([job.id for job in found if job.is_active])),
        workers=tuple(ledger.workers()),
        counted=Counter(ledger.counters()),
        queued_images=ledger.queued_images() + len(found) - len(jobs),
        memory_bytes=memory.used_bytes,
        memory_limit_bytes=memory.limit_bytes,
        lacks_script=not ledger.has_script(),
    )
