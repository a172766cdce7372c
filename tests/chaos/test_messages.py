"""Messages are lost, or come twice, before there is a worker."""

import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from digitq import Client
from digitq.private.processes import Local
from digitq.producer.job import Job
from digitq.protocol.app import CLASSIFY, make_app
from digitq.protocol.keys import QUEUE
from digitq.protocol.settings import settings
from digitq.worker.models.model import load_model
from tests.drawing import random_digits
from tests.waiting import wait_for

DIGITS = random_digits(2000)
torch.set_num_threads(1)  # as in a worker
EXPECTED = load_model("mlp").classify(DIGITS.reshape(-1, 784))
ROWS_OF_A_CHUNK = 64


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", str(ROWS_OF_A_CHUNK))
    monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", "1")


@pytest.fixture
def idle(quick: None) -> Iterator[Local]:
    """A Redis whose workers are still to come."""
    with Local(workers=0) as local:
        yield local


def start_workers(local: Local) -> None:
    local._start_worker("worker1")
    local.workers = 1
    local.wait_until_ready()


def check(table: pa.Table) -> None:
    assert table.column("id").to_pylist() == [str(n) for n in range(len(DIGITS))]
    found = np.array(table.column("probabilities").to_pylist(), np.float32)
    assert np.array_equal(found, EXPECTED)


def all_queued(job: Job) -> bool:
    return job.waiting_for == "results" or job.wait_until_stored(timeout_seconds=0)


@pytest.fixture(scope="module")
def jobs() -> Iterator[dict[str, Job]]:
    """Jobs that Redis forgot, whose messages were lost, or came twice; their worker started after
    that."""
    with Local(workers=0) as local, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITQ_DEADLINE_SECONDS", "1")
        patch.setenv("DIGITQ_CHUNK_ROWS", "2048")
        settings.cache_clear()
        client = Client(local.url)
        forgotten = client.submit(DIGITS)
        forgotten.wait_until_stored()
        client.ledger.redis.flushall()
        patch.setenv("DIGITQ_CHUNK_ROWS", str(ROWS_OF_A_CHUNK))
        settings.cache_clear()
        client = Client(local.url)
        lost, detached = client.submit(DIGITS), client.submit(DIGITS, detached=True)
        wait_for(lambda: all_queued(lost))
        detached.wait_until_stored()
        client.ledger.redis.delete(QUEUE)
        twice = client.submit(DIGITS)
        wait_for(lambda: all_queued(twice))
        with make_app(local.url) as app:
            for number in [*range(16)] * 2:
                app.send_task(CLASSIFY, (twice.id, number), ignore_result=True)
        start_workers(local)
        yield {"forgotten": forgotten, "lost": lost, "detached": detached, "twice": twice}


def test_messages_of_a_detached_job_are_lost_and_nobody_waits(jobs: dict[str, Job]) -> None:
    wait_for(lambda: jobs["detached"].progress().state == "done")
    check(jobs["detached"].table())


def test_every_message_is_lost(jobs: dict[str, Job]) -> None:
    check(jobs["lost"].table())


def test_every_message_comes_twice(jobs: dict[str, Job]) -> None:
    check(jobs["twice"].table())
    assert jobs["twice"].progress().done_images == len(DIGITS)


def test_redis_forgets_a_job_that_was_all_sent(jobs: dict[str, Job]) -> None:
    check(jobs["forgotten"].table())


def test_a_worker_waits_for_a_redis_that_can_t_write(idle: Local) -> None:
    """Full as the worker starts, and a replica for a while, as in a failover."""
    client = Client(idle.url)
    log = idle.folder / "worker1.log"
    client.ledger.redis.config_set("maxmemory", 1)
    idle._start_worker("worker1")
    wait_for(lambda: "OutOfMemory" in log.read_text())
    started = time.monotonic()
    wait_for(lambda: log.read_text().count("OutOfMemory") >= 4)
    assert time.monotonic() - started > 2  # one line each second
    client.ledger.redis.config_set("maxmemory", 0)
    check(client.submit(DIGITS).table())
    client.ledger.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    client.ledger.redis.client_kill_filter(_type="normal", skipme=False)
    wait_for(lambda: "ResponseError" in log.read_text() or "ReadOnly" in log.read_text())
    client.ledger.redis.execute_command("REPLICAOF", "NO", "ONE")
    check(client.submit(DIGITS).table())
    assert idle._processes["worker1"].poll() is None
