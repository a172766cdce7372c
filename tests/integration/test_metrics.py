"""The endpoint for Prometheus, on a real Redis and with real workers."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from digitq import Client
from digitq.cli import main
from digitq.private.processes import Local, find_free_port, kill
from digitq.protocol.broker.connection import connect
from digitq.protocol.errors import BrokerError
from digitq.protocol.ledger import Ledger
from digitq.protocol.overview import ASSUMED_IMAGE_SECONDS, look_around
from digitq.protocol.records import ChunkResult, JobSpec
from digitq.protocol.settings import settings
from digitq.worker.models.card import WEIGHTS_FOLDER
from tests.drawing import random_digits
from tests.waiting import children_of, run_digitq, wait_for

# A module that workers import, so that a worker that died is soon missed
QUICK = (
    "from digitq.protocol import ledger; from digitq.worker.service import heartbeat_threads as h\n"
)
QUICK += "ledger.MAX_HEARTBEAT_AGE_SECONDS = 5; h.WORKER_HEARTBEAT_SECONDS = 0.2\n"
READER = "~digitq* +@read +@connection -@dangerous +info +time"
SPEC = JobSpec("j", "mlp", "test", attached=False, in_flight=9, ttl=600)

Sample = tuple[str, frozenset[tuple[str, str]]]


@dataclass
class Endpoint:
    """A running `digitq metrics`."""

    local: Local
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def read(self) -> dict[Sample, float]:
        """All samples by name and labels, as Prometheus's own parser has them."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as reply:
            text = reply.read().decode()
        samples = [sample for family in parse(text) for sample in family.samples]
        found = {(one.name, frozenset(one.labels.items())): one.value for one in samples}
        assert len(found) == len(samples)
        return found

    def value(self, name: str, **labels: str) -> float | None:
        return self.read().get((f"digitq_{name}", frozenset(labels.items())))

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for found, labels in self.read() if found == f"digitq_{name}"]


@contextmanager
def serve_metrics(local: Local, log: Path) -> Iterator[Endpoint]:
    port = find_free_port()
    arguments = ["metrics", "--broker", local.url, "--port", str(port), "--log-format", "json"]
    with run_digitq(log, *arguments) as process:
        wait_for(lambda: "metrics are at" in log.read_text())
        yield Endpoint(local, port, process, log)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with (
        Local(workers=0) as local,
        serve_metrics(local, tmp_path_factory.mktemp("metrics") / "log") as endpoint,
    ):
        yield endpoint


@pytest.fixture
def endpoint(served: Endpoint) -> Endpoint:
    """An endpoint whose Redis is empty."""
    Client(served.local.url).ledger.redis.flushall()
    return served


def test_the_metrics_are_those_of_the_ledger(endpoint: Endpoint) -> None:
    """Steps of the ledger stand for workers here."""
    ledger = Client(endpoint.local.url).ledger
    ledger.redis.config_set("maxmemory", 1 << 30)
    assert endpoint.value("redis_up") == 1
    assert endpoint.value("workers") == 0
    assert endpoint.value("images_total", model="cnn") == 0
    for number in range(3):
        ledger.dispatch(SPEC, (0, 0), number, 10, b"chunk")
    assert endpoint.value("backlog_images") == 30
    assert endpoint.value("backlog_seconds") == pytest.approx(30 * ASSUMED_IMAGE_SECONDS)
    ledger.begin("j", 0)
    ledger.sweep(deadline_seconds=0)  # as after a kill
    ledger.begin("j", 0)
    ledger.begin("j", 1)
    wait_for(lambda: (endpoint.value("chunk_age_seconds") or 0) > 0.1)
    done = ChunkResult(b"rows", 2, "pixels", 0, 0, review=3, work_seconds=5)
    assert [ledger.complete("j", 0, done) is None for _ in range(2)] == [False, True]
    found = {
        "chunks_begun_total": 3,
        "chunks_completed_total": 1,
        "chunks_sent_again_total": 1,
        "bytes_total": 5,
        "backlog_images": 20,
        "backlog_process_seconds": 10,
        "redis_memory_limit_bytes": 1 << 30,
    }
    samples = endpoint.read()
    assert {name: samples[f"digitq_{name}", frozenset()] for name in found} == found
    labels = {name for _, labelled in samples for name, _ in labelled}
    assert labels and not labels & {"job", "instance"}  # Prometheus sets these itself
    for name, value in (("", 10), ("_failed", 2), ("_review", 3)):
        assert endpoint.value(f"images{name}_total", model="mlp") == value
    for name, value in (("stored", 30), ("done", 10), ("failed", 2)):
        assert endpoint.value(f"job_images_{name}", job_id="j", model="mlp") == value
    assert endpoint.value("jobs", state="feeding") == 1
    ledger.submit(SPEC._replace(id="call"), 1, b"chunk")  # it only counts in the backlog
    assert endpoint.value("backlog_images") == 21 and endpoint.value("jobs", state="running") == 0
    assert [one["job_id"] for one in endpoint.labels("job_images_done")] == ["j"]
    ledger.cancel("call")
    ledger.cancel("j")
    assert endpoint.value("jobs", state="cancelled") == 1
    assert endpoint.value("images_total", model="mlp") == 10  # a job's end changes nothing
    assert endpoint.value("backlog_images") == 0 and not endpoint.labels("job_images_done")


def test_a_redis_user_who_may_only_read_is_enough(redis_only: Local) -> None:
    """With the rights that docs/secure.md names."""
    ledger = Client(redis_only.url).ledger
    ledger.dispatch(SPEC, (0, 0), 0, 10, b"chunk")
    ledger.begin("j", 0, "w")
    about = {"host": "h", "version": "1", "fingerprint": "f", "processes": 1, "started": 0}
    ledger.note_worker("w", {**about, "images_per_second": 0})
    ledger.redis.acl_setuser("watcher", enabled=True, passwords="+secret")
    ledger.redis.execute_command("ACL", "SETUSER", "watcher", *READER.split())
    address = redis_only.url.replace("unix://", "unix://watcher:secret@")
    with connect(address) as redis:
        overview = look_around(Ledger(redis))
        assert overview.backlog_images == 10 and len(overview.running) == 1
        assert [worker.name for worker in overview.workers] == ["w"]
        with pytest.raises(BrokerError, match="no permissions"):
            Ledger(redis).cancel("j")


def test_of_many_jobs_the_oldest_hundred_are_shown(endpoint: Endpoint) -> None:
    ledger = Client(endpoint.local.url).ledger
    for number in range(105):
        ledger.open(SPEC._replace(id=f"j{number}"))
    shown = {labels["job_id"] for labels in endpoint.labels("job_images_done")}
    assert shown == {f"j{number}" for number in range(100)}
    assert endpoint.value("jobs", state="feeding") == 105


def test_the_endpoint_outlives_redis_and_says_so_once(endpoint: Endpoint) -> None:
    assert endpoint.value("redis_up") == 1
    kill(endpoint.local._processes["redis"])
    for _ in range(2):
        assert endpoint.read() == {("digitq_redis_up", frozenset()): 0}
    endpoint.local._start_redis()
    wait_for(lambda: endpoint.value("redis_up") == 1)
    lines = [json.loads(line) for line in endpoint.log.read_text().splitlines()]
    assert [line["level"] for line in lines] == ["INFO", "WARNING", "INFO"]
    assert "can't reach Redis" in lines[1]["message"] and lines[2]["message"] == "Redis is back"


def test_sigterm_ends_the_endpoint_at_once(redis_only: Local, tmp_path: Path) -> None:
    """Even while a request waits for a Redis that has stopped."""
    redis = redis_only._processes["redis"].pid
    with serve_metrics(redis_only, tmp_path / "log") as endpoint:
        os.kill(redis, signal.SIGSTOP)
        with suppress(OSError):
            urlopen(f"http://127.0.0.1:{endpoint.port}", timeout=0.2)
        started = time.monotonic()
        endpoint.process.terminate()
        assert endpoint.process.wait() == 128 + signal.SIGTERM
        assert time.monotonic() - started < 1


def test_where_it_can_t_listen_it_says_so_in_one_line(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["metrics", "--broker", endpoint.local.url]
    for options in (["--port", str(endpoint.port)], ["--address", "nowhere.invalid"]):
        with pytest.raises(SystemExit, match="2"):
            main([*command, *options])
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("digitq: can't listen on ") and err.count("\n") == 1


@contextmanager
def work(local: Local, folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `digitq worker` with one process."""
    (folder / "quick.py").write_text(QUICK)
    options = ["--hostname", f"{name}@h", "--concurrency", "1", "--include", "quick"]
    with run_digitq(folder / name, "worker", "--broker", local.url, *options) as process:
        yield process
        process.terminate()
        process.wait()


def test_workers_of_two_kinds_are_seen_and_so_is_the_death_of_one(
    endpoint: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One of them has other weights: the same ones, made by another command."""
    local = endpoint.local
    other = tmp_path / "weights"
    shutil.copytree(WEIGHTS_FOLDER, other)
    card = json.loads((other / "mlp.json").read_text())
    (other / "mlp.json").write_text(json.dumps({**card, "command": "another"}))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "10")
    settings.cache_clear()
    client = Client(local.url)
    with work(local, tmp_path, "first") as first:
        monkeypatch.setenv("DIGITQ_WEIGHTS", str(other))
        with work(local, tmp_path, "second"):
            logs = tmp_path / "first", tmp_path / "second"
            wait_for(lambda: all(" ready." in log.read_text() for log in logs), seconds=120)
            wait_for(lambda: endpoint.value("workers") == 2)
            job = client.submit(random_digits(1000), detached=True)
            wait_for(lambda: job.progress().state == "done")
            record = job.progress()
            workers = client.ledger.workers()
            prints = {worker.fingerprint for worker in workers}
            assert {*record.fingerprints} == prints and len(prints) == 2
            assert record.review == job.table().column("review").to_pylist().count(True)
            assert sum(worker.images for worker in workers) == 1000
            for command in (["status", job.id], ["collect", job.id, "-o", tmp_path / "out.csv"]):
                with pytest.raises(SystemExit, match="0"):
                    main([*map(str, command), "--broker", local.url])
                last = "".join(capsys.readouterr()).splitlines()[-1]
                assert "workers of 2 kinds answered" in last and all(one in last for one in prints)
            labels = endpoint.labels("worker_images_per_second")
            assert {one["fingerprint"] for one in labels} == prints
            assert {one["worker"] for one in labels} == {"first@h", "second@h"}
            for child in children_of(first.pid):
                os.kill(child, signal.SIGKILL)
            first.kill()
            wait_for(lambda: endpoint.value("workers") == 1, seconds=20, pause_seconds=0.2)
            assert [one["worker"] for one in endpoint.labels("worker_processes")] == ["second@h"]
