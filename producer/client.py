"""`Client`: submits jobs and classifies single images."""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Self, cast

import pyarrow as pa

from digitq.producer.adapted import Adapted
from digitq.producer.batching import Batcher, is_pixels, read_call
from digitq.producer.chunking import cut_chunks
from digitq.producer.counts import Counts
from digitq.producer.feeder import Feeder
from digitq.producer.job import Job
from digitq.producer.provenance import Record
from digitq.producer.sinks.sink import Sink
from digitq.producer.sources.contents import read_source
from digitq.producer.sources.in_memory import Image, Images
from digitq.producer.sources.opening import open_images
from digitq.producer.sources.source import Source
from digitq.protocol.asked.known import describe_known
from digitq.protocol.asked.reading import AnswerT, Reading, check_reading
from digitq.protocol.broker.connection import connect, refuse_foreign, wait_for_server
from digitq.protocol.errors import BrokerError, UnknownJobError
from digitq.protocol.ledger import Ledger
from digitq.protocol.prediction import Answer
from digitq.protocol.records import JobRecord, JobSpec
from digitq.protocol.settings import DEFAULT_BROKER, read_by, settings
from digitq.protocol.text import printable

ATTACHED_TTL_SECONDS = 3600  # Redis keeps a job this long after its producer was killed
IN_FLIGHT_CHUNKS = 16  # a job may have this many chunks in flight, and more if the queue is empty


class Client:
    """Submits jobs to the workers of one Redis."""

    def __init__(self, broker_url: str | None = None, retry_seconds: float | None = None) -> None:
        """Connect to Redis. If it is away, now or later, it is waited for, up to `retry_seconds`.

        Raises `BrokerError` if it does not come, and at once for a wrong password or host. Raises
        `UsageError` if the URL is not a Redis URL or the Redis is a Cluster.
        """
        self.url = broker_url or settings().broker_url or DEFAULT_BROKER
        retry = settings().broker_retry_seconds if retry_seconds is None else retry_seconds
        redis = connect(self.url, retry)
        try:
            wait_for_server(redis)
            refuse_foreign(redis)
        except BaseException:
            redis.close()
            raise
        self.ledger = Ledger(redis)
        self._calls = Batcher(self.ledger)

    @property
    def on_disconnect(self) -> Callable[[str], None] | None:
        """Called once for each lost connection, with a message; if None, the message is logged."""
        return cast(Callable[[str], None] | None, self.ledger.redis.on_disconnect)

    @on_disconnect.setter
    def on_disconnect(self, tell: Callable[[str], None] | None) -> None:
        self.ledger.redis.on_disconnect = tell

    def close(self) -> None:
        """Close the connections. Calls and jobs that still run open new ones."""
        self.ledger.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(
        self,
        images: Images,
        reading: Reading[Answer] | None = None,
        detached: bool = False,
    ) -> Job:
        """Start a job over an image, an iterable of images, a table, or what a path names: a
        folder, an archive or another SOURCE of the command line.

        An image is a path, the bytes of an image file, a file opened in binary mode, a PIL image,
        or an array of NumPy, torch or another library: (28, 28), (N, 28, 28) or (N, 1, 28, 28)
        with light ink on dark as in MNIST, uint8 or floats from 0 to 1; or uint8 (height,
        width[, channels]). A thread of this process reads the images while the job runs.

        An iterable may also give pairs `(id, image)`. A `Dataset` of torch gives pairs `(image,
        label)`. A table, such as a `pyarrow.Table` or a DataFrame, has the columns that a Parquet
        SOURCE may have. If the first image has a label, the results have `truth`. The results are
        in the order of the images: one for each image of an iterable, and each row of a table.

        The `reading` says what is read: `digits()`, which is the default, `numbers()` or `form()`.
        With a form, the results have a row for each field, with the id `PAGE/FIELD`.

        With `detached=True` the job outlives this process, which exits once all images are
        uploaded; the results stay in Redis until they are collected.

        Raises `BrokerError`, and `UsageError` for a single object that is not an image. Errors in
        an iterable of images are raised by `Job.results`.
        """
        return self.submit_source(open_images(images)[0], reading, detached=detached)

    def submit_source(
        self,
        source: Source,
        reading: Reading[Answer] | None = None,
        *,
        detached: bool = False,
        resume: Counts = Counts(),  # noqa: B008 (frozen)
        adapted: Adapted[Answer] | None = None,
    ) -> Job:
        """Start a job over a source from `open_sources`; with `resume`, over what follows those
        images. A network that is `adapted` to them marks what it reads otherwise than before.
        Raises as `submit`."""
        reading = adapted.reading if adapted else check_reading(reading)
        model, known, name = reading.model, reading.known, printable(source.name)
        ttl = settings().job_ttl_seconds if detached else ATTACHED_TTL_SECONDS
        id = secrets.token_hex(6)
        form = reading.form
        pattern, allowed = (None, None) if form else describe_known(known)
        origin = replace(
            source.origin,
            pattern=pattern,
            allowed=allowed,
            form=reading.form_name,
            risk=reading.risk,
            like=reading.like,
            second_reader=reading.second_reader,
            adapted=adapted.images or None if adapted else None,
        )
        spec = JobSpec(
            *(id, model, name, not detached, IN_FLIGHT_CHUNKS, ttl, known, origin),
            network=reading.network,
        )
        batches = read_source(source, reading, resume.done, resume.ids)
        chunks = cut_chunks(
            batches, model, reading.cells, resume.done, lambda kind: feeder.paces[kind]
        )
        if adapted and adapted.images:
            chunks = adapted.add_before(chunks, resume.images)
        feeder = Feeder(self.ledger, spec, chunks)
        job = Job(spec.id, model, self.ledger, feeder, origin)
        try:
            self.ledger.open(spec)
            feeder.start()
        except BaseException:  # the caller never gets the job, so nobody else can cancel it
            self.abandon(job)
            raise
        return job

    def write_results(
        self,
        job: Job,
        sink: Sink,
        sync: Callable[[], None] | None = None,
        tell: Callable[[pa.RecordBatch], None] = lambda batch: None,
    ) -> None:
        """Write the results of a job that follow what a sink has. `sync` is that of `Job.results`;
        `tell` is called with each batch once it is written.

        After an error or Ctrl-C an attached job is removed from Redis; the rows that are written
        stay.
        """
        before = sink.counts.done
        sink.begin(job.id)
        try:
            for batch in job.results(before, sync):
                sink.write(batch)
                tell(batch)
            record = Record.build(job.model, job.origin, sink.counts, sink.parts)
            sink.finish(read_by(job.model), record)
        except BaseException:
            if job.attached:
                self.abandon(job)
            raise
        finally:
            sink.close()

    def abandon(self, job: Job) -> bool:
        """Cancel a job without retries; False if Redis or the job is gone."""
        with suppress(BrokerError, UnknownJobError):
            job.cancel(Ledger(connect(self.url)))
            return True
        return False

    def job(self, job_id: str) -> Job:
        """A job that was submitted earlier, by any process. Raises `UnknownJobError`."""
        record = self.ledger.record(job_id)
        return Job(job_id, record.model, self.ledger, feeder=None, origin=record.origin)

    def jobs(self, limit: int | None = None) -> list[JobRecord]:
        """The records of all jobs in Redis, the oldest first; with a `limit`, of the newest jobs
        and of all that have not ended."""
        return self.ledger.records(limit)

    def classify(
        self,
        image: Image,
        reading: Reading[AnswerT] | None = None,
        timeout_seconds: float | None = None,
    ) -> AnswerT:
        """Classify one image and wait for the answer. Threads may call it at the same time.

        Calls at about the same time are sent as one batch, which does not change a bit of their
        answers. An image that can't be read gives an answer with an error. `digits()`, which is the
        default, gives a `Prediction`, `numbers()` a `NumberPrediction`, and `form()` a dictionary
        with one for each field. Raises `UsageError` for anything but one image, `TimeoutError`, and
        what `Job.results` raises.
        """
        asked = check_reading(reading)
        return self._calls.ask(read_call(image, asked), asked, timeout_seconds)

    async def classify_async(
        self,
        image: Image,
        reading: Reading[AnswerT] | None = None,
        timeout_seconds: float | None = None,
    ) -> AnswerT:
        """`classify` for coroutines. Raises as `classify`."""
        asked = check_reading(reading)
        if is_pixels(image) and not asked.form:
            call = read_call(image, asked)
        else:
            call = await asyncio.to_thread(read_call, image, asked)
        return await self._calls.ask_async(call, asked, timeout_seconds)
