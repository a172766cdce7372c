"""The rule by which deploy/kubernetes/scaling.yaml sets the number of workers, on real metrics.

Redis, the ledger and `digitq metrics` are real. Steps of the ledger stand for workers, so that a
second of work takes no second. `Autoscaler` has the arithmetic of KEDA and Kubernetes.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

import pytest
import yaml

from digitq import Client
from digitq.private.processes import Local
from digitq.protocol.ledger import Ledger
from digitq.protocol.records import ChunkResult, JobSpec
from tests.integration.test_metrics import Endpoint, serve_metrics

RULE = yaml.safe_load((Path(__file__).parents[2] / "deploy/kubernetes/scaling.yaml").read_text())[
    "spec"
]
TRIGGER = RULE["triggers"][0]["metadata"]
METRIC = TRIGGER["valueLocation"].removeprefix("digitq_")
TARGET = float(TRIGGER["targetValue"])
MAX = RULE["maxReplicaCount"]
COOLDOWN = RULE["cooldownPeriod"]
BEHAVIOR = RULE["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
WINDOW = BEHAVIOR["scaleDown"]["stabilizationWindowSeconds"]
SYNC_SECONDS = 15  # how often Kubernetes computes the number
TOLERANCE = 0.1  # Kubernetes keeps a number that is this close
CHUNK_IMAGES, CHUNK_SECONDS = 10, 2.0


@dataclass
class Autoscaler:
    """KEDA, which decides between no worker and one, and Kubernetes, which decides the rest."""

    number: int = 0
    _active: float = 0  # when work waited last
    _wanted: list[tuple[float, int]] = field(default_factory=list)

    def look(self, now: float, value: float) -> None:
        if value > 0:
            self._active = now
        if self.number == 0 or now - self._active >= COOLDOWN:
            self.number = int(value > 0)
            return
        is_close = abs(value / (TARGET * self.number) - 1) <= TOLERANCE
        wanted = self.number if is_close else ceil(value / TARGET)
        wanted = min(max(1, wanted), MAX)
        self._wanted.append((now, wanted))
        highest = max(number for time, number in self._wanted if now - time <= WINDOW)
        fastest = max(self.number + 4, 2 * self.number)  # Kubernetes's default, in 15 s
        self.number = min(max(self.number, wanted), highest, fastest)


class Work:
    """A job in Redis, and the hands that do it."""

    def __init__(self, ledger: Ledger, name: str, chunks: int) -> None:
        self._ledger, self._name = ledger, name
        spec = JobSpec(name, "mlp", "test", attached=False, in_flight=chunks, ttl=600)
        for number in range(chunks):
            ledger.dispatch(spec, (0, 0), number, CHUNK_IMAGES, b"chunk")
        self.waiting = list(range(chunks))

    def begin(self, workers: int) -> list[int]:
        taken, self.waiting = self.waiting[:workers], self.waiting[workers:]
        for number in taken:
            assert self._ledger.begin(self._name, number)
        return taken

    def complete(self, chunks: list[int], seconds: float) -> None:
        done = ChunkResult(b"rows", 0, "pixels", 0, 0, work_seconds=seconds)
        for number in chunks:
            assert self._ledger.complete(self._name, number, done)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    log = tmp_path_factory.mktemp("metrics") / "log"
    with Local(workers=0) as local, serve_metrics(local, log) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(running: Endpoint) -> Endpoint:
    """The metrics of an empty Redis."""
    Client(running.local.url).ledger.redis.flushall()
    return running


def look(endpoint: Endpoint) -> float:
    value = endpoint.value(METRIC)
    assert value is not None
    return value


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_the_number_never_falls_while_work_remains(endpoint: Endpoint, processes: int) -> None:
    """However many workers there are: more of them make no worker superfluous."""
    work = Work(Client(endpoint.local.url).ledger, "j", chunks=60)
    autoscaler, now, looks, numbers = Autoscaler(), 0.0, 0, []
    while work.waiting:
        remaining = len(work.waiting)
        running = work.begin(processes)
        if now >= looks * SYNC_SECONDS:
            value = look(endpoint)
            # A running chunk counts until it is done. At first, the seconds are a guess.
            assert value == pytest.approx(remaining * CHUNK_SECONDS) or not looks
            autoscaler.look(now, value)
            numbers.append(autoscaler.number)
            looks += 1
        now += CHUNK_SECONDS
        work.complete(running, CHUNK_SECONDS)
    assert numbers == sorted(numbers) and numbers[0] == 1
    assert now < 2 * SYNC_SECONDS or numbers[-1] > 4
    assert look(endpoint) == 0
    autoscaler.look(now + COOLDOWN, 0)
    assert autoscaler.number == 0


def test_workers_come_from_nothing_and_go_when_the_work_is_done(endpoint: Endpoint) -> None:
    """Workers need half a minute to start, and the images of a job are not alike."""
    ledger, chance = Client(endpoint.local.url).ledger, random.Random(1)
    work = Work(ledger, "large", chunks=300)
    autoscaler, now, numbers, ready = Autoscaler(), 0.0, [], [0, 0]
    while work.waiting:
        autoscaler.look(now, look(endpoint))
        numbers.append(autoscaler.number)
        for _ in range(int(SYNC_SECONDS / CHUNK_SECONDS)):
            work.complete(work.begin(ready[-2]), chance.uniform(0, 2 * CHUNK_SECONDS))
        now += SYNC_SECONDS
        ready.append(autoscaler.number)
    assert numbers == sorted(numbers) and max(numbers) == MAX
    done = now
    while autoscaler.number == MAX:  # a little work is always there
        work = Work(ledger, f"small{now:.0f}", chunks=1)
        autoscaler.look(now, look(endpoint))
        work.complete(work.begin(1), CHUNK_SECONDS)
        now += SYNC_SECONDS
    assert autoscaler.number <= 3
    assert WINDOW - SYNC_SECONDS <= now - done <= WINDOW + 2 * SYNC_SECONDS
    done = now
    while autoscaler.number:
        autoscaler.look(now, look(endpoint))
        now += SYNC_SECONDS
    assert COOLDOWN - SYNC_SECONDS <= now - done <= COOLDOWN + 2 * SYNC_SECONDS


def test_a_single_call_wakes_a_worker(endpoint: Endpoint) -> None:
    ledger = Client(endpoint.local.url).ledger
    ledger.submit(JobSpec("call", "mlp", "call", attached=True, in_flight=1, ttl=60), 1, b"chunk")
    autoscaler = Autoscaler()
    autoscaler.look(0, look(endpoint))
    assert autoscaler.number == 1


def test_workers_stay_while_a_submitter_waits_for_room_in_redis(endpoint: Endpoint) -> None:
    ledger = Client(endpoint.local.url).ledger
    work = Work(ledger, "large", chunks=1)
    work.complete(work.begin(1), CHUNK_SECONDS)
    assert look(endpoint) == 0
    ledger.heartbeat("large", held_images=CHUNK_IMAGES)
    autoscaler = Autoscaler(number=1)
    autoscaler.look(COOLDOWN, look(endpoint))
    assert autoscaler.number == 2 == ceil(look(endpoint) / TARGET)
    assert endpoint.value("job_images_held", job_id="large", model="mlp") == CHUNK_IMAGES
