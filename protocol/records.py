"""What the ledger takes and gives about jobs and their chunks."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple, get_args

from pydantic import TypeAdapter

from digitq.protocol.asked.known import name_known
from digitq.protocol.asked.own_network import OwnNetwork
from digitq.protocol.broker.connection import Payload
from digitq.protocol.chunk import Kind
from digitq.protocol.errors import JobCancelledError, JobFailedError
from digitq.protocol.origin import Origin

SUBMITTER_SECONDS = 60  # a submitter that is silent for longer is taken to be gone


class Begun(NamedTuple):
    """A chunk that a worker has begun."""

    payload: Payload
    model: str
    attempt: int  # how often the chunk was begun, now included
    time: float  # when it was begun, by `time.monotonic`
    known: str = ""  # the name of what `Ledger.known` gives; empty if nothing is known
    source: str | None = None  # the job's, if this is its first chunk; None for a single call
    shares: bool = False  # whether it is a single call, and others wait
    task: str = ""  # the id of Celery's task, if it is an image of another program


class BegunCall(NamedTuple):
    """A single call that a worker has begun, to classify it together with others."""

    job_id: str
    payload: Payload
    message_id: str = ""  # Celery's; empty if Celery knows that the call was begun


class ChunkResult(NamedTuple):
    """What a worker hands in for a chunk: parameters of the step `complete`."""

    payload: Payload  # the result rows, as one Arrow IPC stream, or Celery's result of an image
    failed: int  # rows with an error
    kind: Kind
    image_seconds: float  # time for each image without an error; 0 if all have one
    silent_seconds: float  # the longest time in which the worker was silent
    review: int = 0  # rows with an answer that a person should check
    work_seconds: float = 0  # time that the process spent on the chunk
    worker: str = ""  # its name, as in its heartbeat
    fingerprint: str = ""  # what its answers depend on, see `digitq.worker.service.identity`
    model: str = ""  # the network that answered, if the record does not name it


class RunningChunk(NamedTuple):
    """A chunk that a worker has begun and not completed. The worker may have died since."""

    job_id: str
    number: int
    worker: str  # its name; empty if it is of an older version
    seconds: float  # since the chunk was begun
    silent_seconds: float  # since its worker last renewed its deadline


class JobSpec(NamedTuple):
    """The part of a job's record that never changes. Fields have the same names in Redis."""

    id: str
    model: str
    source: str  # a description for people
    attached: bool  # whether the job lives no longer than its submitter
    in_flight: int  # how many chunks may be queued or running at a time
    ttl: int  # seconds that Redis keeps the job after its last change
    known: bytes = b""  # what is known of its numbers; the record only has a name of it
    origin: Origin = Origin()
    network: OwnNetwork | None = None  # a person's own that must answer; the record has its name

    def flat(self) -> list[str | int]:
        """The names and values in turn."""
        fields = self._asdict() | {
            "attached": int(self.attached),
            "known": name_known(self.known),
        }
        if fields.pop("origin") != Origin():  # a single call has none
            fields["origin"] = json.dumps(asdict(self.origin))
        if network := fields.pop("network"):
            fields["network"] = network.name
        return [part for pair in fields.items() for part in pair]


JobState = Literal["feeding", "running", "done", "collected", "cancelled", "failed", "abandoned"]
JOB_STATES: tuple[JobState, ...] = get_args(JobState)


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One job; docs/run.md explains its states. Times are by the clock of Redis."""

    id: str
    state: JobState
    model: str
    source: str
    created: datetime
    finished: datetime | None = None
    images: int
    done_images: int
    failed: int = 0  # images with an error
    review: int = 0  # images with an answer that a person should check
    chunks: int
    done_chunks: int
    bytes: int = 0
    held_images: int = 0  # images that the submitter holds because Redis has no room for them
    freed_chunks: int = 0  # the first chunks, whose results are in a file and no longer in Redis
    freed_images: int = 0  # the images of these chunks
    most_attempts: int = 0  # the most times that any of its chunks was begun
    sent_again: int = 0  # how often one of its chunks was queued again
    image_seconds: float = 0  # the mean time that a process spent on an image; 0 if none is done
    fingerprints: tuple[str, ...] = ()  # at most 8 kinds of workers that answered
    attached: bool
    silent_seconds: float = 0  # the longest time in which a worker at a chunk was silent
    is_call: bool = False  # whether it is one chunk of single calls of `Client.classify`
    is_image: bool = False  # whether it is an image of a program without digitq
    reason: str | None = None  # why it failed or was cancelled, if that is known
    origin: Origin = Origin()

    @staticmethod
    def parse(fields: Mapping[str, str], now: float) -> "JobRecord":
        """The record from the fields of its hash in Redis, whose clock shows `now`."""
        heard = float(fields.get("fed") or fields["created"])
        is_fed, is_heard = fields["state"] != "feeding", now - heard <= SUBMITTER_SECONDS
        timed_images, work_us = (int(fields.get(name, 0)) for name in ("timed_images", "work_us"))
        others = {
            "state": fields["state"] if is_fed or is_heard else "abandoned",
            "chunks": fields["stored"],
            "held_images": fields.get("held", 0) if is_heard else 0,
            "freed_chunks": fields.get("freed", 0),
            "silent_seconds": int(fields.get("silent_ms", 0)) / 1000,
            "image_seconds": work_us / max(1, timed_images) / 1e6,
            "fingerprints": fields.get("fingerprints", "").split(),
            "is_call": "call" in fields,
            "is_image": "task" in fields,
            "origin": json.loads(fields.get("origin", "{}")),
        }
        return RECORD.validate_python({**fields, **others})

    @property
    def is_active(self) -> bool:
        """Whether workers may still work on it."""
        return self.state in ("feeding", "running", "abandoned")

    @property
    def is_fed(self) -> bool:
        """Whether all of its images are stored. If not, it is unknown how many will follow."""
        return self.state not in ("feeding", "abandoned")

    @property
    def waiting_images(self) -> int:
        """How many images are not done: those that are stored, and those that wait for room."""
        return self.images - self.done_images + self.held_images if self.is_active else 0

    @property
    def seconds(self) -> float:
        """The time from creation to the end, or until now. If clocks differ, at least 0."""
        return max(0, ((self.finished or datetime.now(UTC)) - self.created).total_seconds())

    @property
    def is_stopped(self) -> bool:
        """Whether the job was cancelled or has failed."""
        return self.state in ("cancelled", "failed")

    def raise_if_stopped(self) -> None:
        """Raises `JobCancelledError` or `JobFailedError`, with the reason if there is one."""
        why = f": {self.reason}" if self.reason else ""
        if self.state == "cancelled":
            raise JobCancelledError(f"job {self.id} was cancelled{why}")
        if self.state == "failed":
            raise JobFailedError(f"job {self.id} has failed{why}")


RECORD = TypeAdapter(JobRecord)
