"""The metrics of a deployment for Prometheus. Each request reads the state of Redis anew."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from digitq.protocol.errors import BrokerError
from digitq.protocol.ledger import Ledger
from digitq.protocol.overview import MAX_JOBS, Overview, look_around
from digitq.protocol.records import JOB_STATES
from digitq.protocol.settings import ALL_MODELS

MAX_JOBS_SHOWN = 100  # at most this many jobs, the oldest, have metrics of their own
UNREAD = "; of an attached job, what its submitter has not read yet is unknown"

Described = tuple[str, str | Callable[[Any], float], str]

OLDEST = f"of the {MAX_JOBS_SHOWN} oldest jobs that have not ended"
# Tables of metrics: the name of each, the attribute or function that gives its value, and its help
TOTALS = (
    ("chunks_begun", itemgetter("begun"), "Times that a worker began a chunk"),
    ("chunks_completed", itemgetter("completed"), "Chunks that are done; each counts once"),
    ("chunks_sent_again", itemgetter("sent_again"), "Times that a chunk was queued again"),
    ("bytes", itemgetter("bytes"), "Size of the chunks that are done, in Redis"),
)
PER_MODEL = ("images", "failed", "review", "work_us")  # what is counted for each model
MODEL_TOTALS = (
    ("images", itemgetter("images"), "Images that are done, with those that have an error"),
    ("images_failed", itemgetter("failed"), "Images with an error"),
    ("images_review", itemgetter("review"), "Images with an answer that a person should check"),
    (
        "work_seconds",
        lambda counted: counted["work_us"] / 1e6,
        "Time that worker processes spent on chunks that are done",
    ),
)
GAUGES = (
    (
        "backlog_images",
        "backlog_images",
        f"Images that are stored and not done, or wait for room in Redis{UNREAD}",
    ),
    ("backlog_seconds", "backlog_seconds", "Time that the living workers need for the backlog"),
    (
        "backlog_process_seconds",
        "backlog_process_seconds",
        "Time that one process would need for the backlog",
    ),
    (
        "chunk_age_seconds",
        lambda overview: max((chunk.seconds for chunk in overview.running), default=0),
        "Time since the oldest running chunk was begun; 0 if none runs",
    ),
    (
        "chunk_silence_seconds",
        lambda overview: max((chunk.silent_seconds for chunk in overview.running), default=0),
        "The longest time that the worker of a running chunk is silent; 0 if none runs",
    ),
    ("workers", lambda overview: len(overview.workers), "Workers that live"),
    ("redis_memory_bytes", "memory_bytes", "Memory that Redis uses"),
    ("redis_memory_limit_bytes", "memory_limit_bytes", "The maxmemory of Redis; 0 if it has none"),
)
WORKER_GAUGES = (
    (
        "worker_images_per_second",
        "images_per_second",
        "Images per second of a worker that lives, over the last ten seconds",
    ),
    ("worker_processes", "processes", "Processes of a worker that lives"),
    (
        "worker_ready",
        lambda worker: not worker.missing,
        "0 if a worker that lives is not ready, or has the name of another: `digitq doctor` says",
    ),
)
JOB_GAUGES = (
    ("job_images_stored", "images", f"Images that were stored in Redis, {OLDEST}{UNREAD}"),
    (
        "job_images_done",
        "done_images",
        f"Images that are done, with those that have an error, {OLDEST}",
    ),
    ("job_images_failed", "failed", f"Images with an error, {OLDEST}"),
    (
        "job_images_held",
        "held_images",
        f"Images that the submitter holds because Redis has no room for them, {OLDEST}",
    ),
)

logger = logging.getLogger(__name__)


class StateCollector(Collector):
    """Gives the state of Redis as metrics, and logs once that Redis is lost or back."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._is_lost = False

    def collect(self) -> Iterator[Metric]:
        """All metrics; if Redis is lost, only the one that says so."""
        overview: Overview | None = None
        try:
            overview = look_around(self._ledger)
        except BrokerError as error:
            if not self._is_lost:
                logger.warning("there are no metrics but digitq_redis_up: %s", error)
        if overview and self._is_lost:
            logger.info("Redis is back")
        self._is_lost = overview is None
        text = "1 if Redis answers, else 0"
        yield GaugeMetricFamily("digitq_redis_up", text, int(not self._is_lost))
        if overview:
            yield from describe(overview)


def describe(overview: Overview) -> Iterator[Metric]:
    """A deployment's state as metrics."""
    counted = overview.counted
    # A counter that is there from the start shows its first increase, too
    models = [*ALL_MODELS, *(name.partition(":")[2] for name in counted if ":" in name)]
    by_model = {
        (model,): {name: counted[f"{name}:{model}"] for name in PER_MODEL} for model in models
    }
    workers = {(one.name, one.version, one.fingerprint): one for one in overview.workers}
    states = Counter(job.state for job in overview.listed_jobs)
    active = [job for job in overview.listed_jobs if job.is_active]
    active.sort(key=lambda job: not job.held_images)  # jobs that wait for room come first
    jobs = {(job.id, job.model): job for job in active[:MAX_JOBS_SHOWN]}
    counter, gauge = CounterMetricFamily, GaugeMetricFamily
    yield from families(counter, TOTALS, (), {(): counted})
    yield from families(counter, MODEL_TOTALS, ("model",), by_model)
    yield from families(gauge, GAUGES, (), {(): overview})
    yield from families(gauge, WORKER_GAUGES, ("worker", "version", "fingerprint"), workers)
    newest = f"The newest {MAX_JOBS:,} jobs and all that have not ended, without single calls"
    by_state = {(state,): states[state] for state in JOB_STATES}
    yield from families(gauge, (("jobs", int, newest),), ("state",), by_state)
    yield from families(gauge, JOB_GAUGES, ("job_id", "model"), jobs)


def families(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    metrics: Iterable[Described],
    labels: Sequence[str],
    measured: Mapping[Any, Any],
) -> Iterator[Metric]:
    """These metrics of everything that is measured, which is named by the values of its labels."""
    for name, value, text in metrics:
        family = kind(f"digitq_{name}", text, labels=labels)
        for values, one in measured.items():
            family.add_metric(values, value(one) if callable(value) else getattr(one, value))
        yield family
