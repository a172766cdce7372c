"""`Client`: digitq from Python."""

import asyncio
import secrets
from collections.abc import Iterable
from typing import Self

from producer.batching import Batcher, is_pixels, read_call
from producer.checkpoint import Checkpoint
from producer.chunking import cut_chunks
from producer.feeder import Feeder
from producer.job import Job
from producer.prediction import Prediction
from producer.sources.python import Image, image_source
from producer.sources.source import Source
from protocol.broker.connection import connect
from protocol.broker.failures import is_loading
from protocol.errors import BrokerError, UnknownJobError, UsageError
from protocol.ledger import JobRecord, JobSpec, Ledger
from protocol.settings import DEFAULT_BROKER, MODELS, settings
from protocol.text import printable

ATTACHED_TTL_SECONDS = 3600  # of a job whose producer was killed
IN_FLIGHT_CHUNKS = 16  # of a job, in the queue or at a worker; more where the queue is empty


class Client:
    """Submits jobs to the workers behind one Redis.

    Raises `BrokerError` where it can't be reached, `UsageError` where the URL is none of Redis.
    """

    def __init__(self, broker_url: str | None = None, retry_seconds: float | None = None) -> None:
        """`retry_seconds` is how long a lost Redis is waited for."""
        self.url = broker_url or settings().broker_url or DEFAULT_BROKER
        if retry_seconds is None:
            retry_seconds = settings().broker_retry_seconds
        with connect(self.url) as redis:
            try:
                redis.ping()  # one that isn't there is told at once
            except BrokerError as error:
                if not (retry_seconds and is_loading(error)):
                    raise
        self.ledger = Ledger(connect(self.url, retry_seconds))
        self._calls = Batcher(self.ledger)

    def close(self) -> None:
        """Give the connections back. Calls and jobs that still run open others."""
        self.ledger.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(
        self, images: Image | Iterable[Image], model: str | None = None, detached: bool = False
    ) -> Job:
        """Start a job over images: paths, bytes of image files, files open for reading, PIL images,
        uint8 arrays of shape (28, 28) or (N, 28, 28), light on dark as MNIST is, or
        (H, W[, channels]), or any iterable of them.

        The images are read while the job runs, by a thread of this process. With `detached` the
        results stay in Redis until they are collected; this process does not end before all of the
        job is there. Raises `BrokerError`, and `UsageError` for what is no model; what is wrong
        with the images, `Job.results` raises.
        """
        return self.submit_source(image_source(images), model, detached=detached)

    def submit_source(
        self,
        source: Source,
        model: str | None = None,
        *,
        detached: bool = False,
        resume: Checkpoint = Checkpoint(),  # noqa: B008 (frozen)
    ) -> Job:
        """Start a job over folders, archives, tables and sets: what `producer.open_sources` gave.
        Raises as `submit`."""
        model = _known_model(model)
        spec = JobSpec(
            id=secrets.token_hex(6),
            model=model,
            source=printable(source.name),
            attached=not detached,
            in_flight=IN_FLIGHT_CHUNKS,
            ttl=settings().job_ttl_seconds if detached else ATTACHED_TTL_SECONDS,
        )
        items, has_truth = source.take(), source.has_truth
        chunks = cut_chunks(items, has_truth, resume, model, lambda kind: feeder.paces[kind])
        feeder = Feeder(self.ledger, spec, chunks)
        job = Job(spec.id, self.ledger, feeder)
        try:
            self.ledger.open(spec)
            feeder.start()
        except BaseException:  # else nobody would know of the job
            self.abandon(job)
            raise
        return job

    def abandon(self, job: Job) -> bool:
        """Cancel a job without waiting for a Redis that may be gone; False where it is."""
        try:
            job.cancel(Ledger(connect(self.url)))
        except (BrokerError, UnknownJobError):
            return False
        return True

    def job(self, job_id: str) -> Job:
        """A job submitted earlier, here or elsewhere. Raises `UnknownJobError`."""
        self.ledger.record(job_id)
        return Job(job_id, self.ledger, feeder=None)

    def jobs(self) -> list[JobRecord]:
        """All jobs that Redis still knows, the oldest first."""
        return self.ledger.records()

    def classify(
        self, image: Image, model: str | None = None, timeout_seconds: float | None = None
    ) -> Prediction:
        """Classify one image and wait for the answer. From any number of threads.

        Calls at about the same time travel together; an answer is the same, to the bit, in any
        company. What can't be read has an error in its own answer. Raises `UsageError` for what is
        not one image, `TimeoutError`, and what `Job.results` raises.
        """
        return self._calls.ask(read_call(image), _known_model(model), timeout_seconds)

    async def classify_async(self, image: Image, model: str | None = None) -> Prediction:
        """`classify` for a coroutine: the event loop runs on while the answer is waited for."""
        model = _known_model(model)
        call = read_call(image) if is_pixels(image) else await asyncio.to_thread(read_call, image)
        return await self._calls.ask_async(call, model)


def _known_model(model: str | None) -> str:
    """The model, or the usual one. Raises `UsageError` for a name that is none."""
    model = model or settings().model
    if model not in MODELS:
        raise UsageError(f"there is no model {model!r}; there are: {', '.join(MODELS)}")
    return model
