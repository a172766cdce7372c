"""Nothing is lost and nothing comes twice, whatever happens to messages, workers and Redis."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from producer import Client
from producer.job import Job
from producer.local import Local
from protocol.celery import publish
from protocol.ledger import QUEUE, Publication
from tests.drawing import draw_one, random_digits
from tests.waiting import children_of, wait_for
from worker.models import load_model

DIGITS = random_digits(2000)
torch.set_num_threads(1)  # as in a worker
EXPECTED = load_model("mlp").classify(DIGITS.reshape(-1, 784))
ROWS_OF_A_CHUNK = 64


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", str(ROWS_OF_A_CHUNK))
    monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", "1")


@pytest.fixture
def worked(quick: None) -> Iterator[Local]:
    """A Redis with two workers of its own, for tests that harm them."""
    with Local(workers=2) as local:
        local.wait_until_ready()
        yield local


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


def test_every_message_is_lost(idle: Local) -> None:
    client = Client(idle.url)
    job = client.submit(DIGITS)
    wait_for(lambda: all_queued(job))
    client.ledger.redis.delete(QUEUE)
    start_workers(idle)
    check(job.table())


def test_messages_of_a_detached_job_are_lost_and_nobody_waits(idle: Local) -> None:
    client = Client(idle.url)
    job = client.submit(DIGITS, detached=True)
    job.wait_until_stored()
    client.ledger.redis.delete(QUEUE)
    start_workers(idle)
    wait_for(lambda: job.progress().state == "done")
    check(job.table())


def test_every_message_comes_twice(idle: Local) -> None:
    client = Client(idle.url)
    job = client.submit(DIGITS)
    wait_for(lambda: all_queued(job))
    for _ in range(2):
        publish(client.app, [Publication(job.id, n, ROWS_OF_A_CHUNK) for n in range(16)])
    start_workers(idle)
    check(job.table())
    assert client.ledger.record(job.id).done_images == len(DIGITS)


def test_rubbish_in_the_queue(idle: Local) -> None:
    client = Client(idle.url)
    job = client.submit(DIGITS)
    client.app.send_task("digitq.classify", ("no such job", 0))
    client.app.send_task("digitq.classify", ("wrong",))
    client.app.send_task("of.another.version", ())
    start_workers(idle)
    check(job.table())


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_s_child_dies_or_hangs(stop: int, worked: Local) -> None:
    client = Client(worked.url)
    job = client.submit(DIGITS)
    results = job.results()
    batches = [next(results)]
    child = children_of(worked._processes["worker1"].pid)[0]
    os.kill(child, stop)
    batches.extend(results)
    check(pa.Table.from_batches(batches))


def test_redis_forgets_everything(worked: Local) -> None:
    client = Client(worked.url)
    job = client.submit(DIGITS)
    results = job.results()
    batches = [next(results)]
    client.ledger.redis.flushall()
    batches.extend(results)
    check(pa.Table.from_batches(batches))


def test_redis_forgets_the_results_of_a_job_that_was_all_sent(
    worked: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "2048")
    client = Client(worked.url)
    job = client.submit(DIGITS)
    job.wait_until_stored()
    client.ledger.redis.flushall()
    check(job.table())


def test_connections_are_cut(worked: Local) -> None:
    client = Client(worked.url)
    job = client.submit(DIGITS)
    batches = []
    for batch in job.results():
        batches.append(batch)
        if len(batches) % 8 == 1:
            client.ledger.redis.client_kill_filter(_type="normal", skipme=True)
    check(pa.Table.from_batches(batches))


@pytest.mark.parametrize(
    ("deed", "error"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "workers die of this image"),
        ("hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 30)", "workers die of this image"),
        ("while True: pass", "takes longer than 10 s"),
    ],
    ids=["kills", "never comes back to Python", "never ends"],
)
def test_a_deadly_image_costs_itself_only(
    deed: str, error: str, idle: Local, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A `sitecustomize` in the workers' Python makes one image deadly."""
    (tmp_path / "sitecustomize.py").write_text(DEADLY.replace("DEED", deed))
    if deed.startswith("while"):
        monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", "60")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    start_workers(idle)
    client = Client(idle.url)
    images = [draw_one((60, 80 + n), mode="RGB") for n in range(100)]
    images[70] = draw_one((66, 66), mode="RGB")  # deadly
    table = client.submit(images).table()
    errors = table.column("error").to_pylist()
    assert errors[70] == error
    assert errors.count(None) == 99


DEADLY = """
import hashlib, os, signal, sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder


class Poison(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "worker.decoding":
            return None
        spec = PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            decode = module.decode_image

            def deadly(content):
                image = decode(content)
                if image.size == (66, 66):
                    signal.setitimer(signal.ITIMER_PROF, 1)  # as if it had run for long
                    DEED
                return image

            module.decode_image = deadly

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Poison())
"""
