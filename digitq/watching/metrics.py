"""The metrics of a deployment for Prometheus. Each request reads the state of Redis anew."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from protocol.errors import DigitqError
from protocol.ledger import JOB_STATES, Ledger
from protocol.overview import MAX_ENDED_JOBS, NOTHING_DONE, Counters, Overview, look_around
from protocol.settings import ALL_MODELS

MAX_JOBS_SHOWN = 100  # of more jobs, only the oldest have metrics of their own
UNREAD = "; of an attached job, what its submitter has not read yet is unknown"

Samples = Iterable[tuple[tuple[str, ...], float]]  # the values of the labels, and the value

logger = logging.getLogger(__name__)


class StateCollector(Collector):
    """Gives the state of one Redis as metrics, and logs once that Redis is lost or back."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._is_lost = False

    def collect(self) -> Iterator[Metric]:
        """All metrics; if Redis is lost, only the one that says so."""
        overview = self._look()
        yield gauge("redis_up", "1 if Redis answers, else 0", int(overview is not None))
        if overview:
            yield from describe(overview)

    def _look(self) -> Overview | None:
        was_lost, self._is_lost = self._is_lost, True
        try:
            overview = look_around(self._ledger)
        except DigitqError as error:
            if not was_lost:
                logger.warning("there are no metrics but digitq_redis_up: %s", error)
            return None
        self._is_lost = False
        if was_lost:
            logger.info("Redis is back")
        return overview


def describe(overview: Overview) -> Iterator[Metric]:
    """A deployment's state as metrics."""
    yield from describe_work(overview.counters)
    yield from describe_backlog(overview)
    yield from describe_workers(overview)
    yield from describe_jobs(overview)


def describe_work(counters: Counters) -> Iterator[Metric]:
    """What was ever done."""
    for name, text, value in (
        ("chunks_begun", "Times that a worker began a chunk", counters.begun),
        ("chunks_completed", "Chunks that are done; each counts once", counters.completed),
        ("chunks_sent_again", "Times that a chunk was queued again", counters.sent_again),
        ("bytes", "Size of the chunks that are done, in Redis", counters.bytes),
    ):
        yield CounterMetricFamily(f"digitq_{name}", text, value)
    # A counter that is there from the start shows its first increase, too
    models = {**dict.fromkeys(ALL_MODELS, NOTHING_DONE), **counters.models}
    for name, text, field in (
        ("images", "Images that are done, with those that have an error", "images"),
        ("images_failed", "Images with an error", "failed"),
        ("images_review", "Images with an answer that a person should check", "review"),
        (
            "work_seconds",
            "Time that worker processes spent on chunks that are done",
            "work_seconds",
        ),
    ):
        family = CounterMetricFamily(f"digitq_{name}", text, labels=["model"])
        for model, done in models.items():
            family.add_metric([model], getattr(done, field))
        yield family


def describe_backlog(overview: Overview) -> Iterator[Metric]:
    """What waits, and for how long."""
    text = f"Images that are stored and not done, or wait for room in Redis{UNREAD}"
    yield gauge("backlog_images", text, overview.backlog_images)
    yield gauge(
        "backlog_seconds",
        "Time that the living workers need for the backlog",
        overview.backlog_seconds,
    )
    yield gauge(
        "backlog_process_seconds",
        "Time that one process would need for the backlog",
        overview.backlog_process_seconds,
    )
    yield gauge(
        "chunk_age_seconds",
        "Time since the oldest running chunk was begun; 0 if none runs",
        max((chunk.seconds for chunk in overview.running), default=0),
    )
    yield gauge(
        "chunk_silence_seconds",
        "The longest time that the worker of a running chunk is silent; 0 if none runs",
        max((chunk.silent_seconds for chunk in overview.running), default=0),
    )


def describe_workers(overview: Overview) -> Iterator[Metric]:
    """The workers that live, and Redis's memory."""
    yield gauge("workers", "Workers that live", len(overview.workers))
    labels = ("worker", "version", "fingerprint")
    named = [((one.name, one.version, one.fingerprint), one) for one in overview.workers]
    yield gauges(
        "worker_images_per_second",
        "Images per second of a worker that lives, over the last ten seconds",
        labels,
        ((label, worker.images_per_second) for label, worker in named),
    )
    yield gauges(
        "worker_processes",
        "Processes of a worker that lives",
        labels,
        ((label, worker.processes) for label, worker in named),
    )
    yield gauge("redis_memory_bytes", "Memory that Redis uses", overview.memory_bytes)
    yield gauge(
        "redis_memory_limit_bytes",
        "The maxmemory of Redis; 0 if it has none",
        overview.memory_limit_bytes,
    )


def describe_jobs(overview: Overview) -> Iterator[Metric]:
    """How many jobs there are in each state, and how far the active ones are."""
    jobs = overview.listed_jobs
    states = Counter(job.state for job in jobs)
    by_state = (((state,), states[state]) for state in JOB_STATES)
    text = f"The newest {MAX_ENDED_JOBS:,} jobs and all active ones, without single calls"
    yield gauges("jobs", text, ("state",), by_state)
    active = [job for job in jobs if job.is_active]
    active.sort(key=lambda job: not job.held_images)  # those that wait for room come first
    shown = [((job.id, job.model), job) for job in active[:MAX_JOBS_SHOWN]]
    of_job, oldest = ("job", "model"), f"of the {MAX_JOBS_SHOWN} oldest jobs that are not ended"
    yield gauges(
        "job_images_stored",
        f"Images that were stored in Redis, {oldest}{UNREAD}",
        of_job,
        ((label, job.images) for label, job in shown),
    )
    yield gauges(
        "job_images_done",
        f"Images that are done, with those that have an error, {oldest}",
        of_job,
        ((label, job.done_images) for label, job in shown),
    )
    yield gauges(
        "job_images_failed",
        f"Images with an error, {oldest}",
        of_job,
        ((label, job.failed) for label, job in shown),
    )
    yield gauges(
        "job_images_held",
        f"Images that the submitter holds because Redis has no room for them, {oldest}",
        of_job,
        ((label, job.held_images) for label, job in shown),
    )


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(f"digitq_{name}", text, value)


def gauges(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> GaugeMetricFamily:
    """A gauge with a sample for each combination of labels."""
    family = GaugeMetricFamily(f"digitq_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
