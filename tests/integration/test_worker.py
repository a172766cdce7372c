"""A worker as an operator has it: `digitq worker`, its log, and the probes that look at it."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from digitq import Client
from digitq.private.processes import Local, kill
from digitq.protocol.app import make_app
from digitq.protocol.host.probe import MAX_FILE_AGE_SECONDS
from tests.drawing import draw_one, random_digits
from tests.waiting import DIGITQ, children_of, freeze, wait_for

# A module that the worker imports
QUICK = "from digitq.worker.service import heartbeat_threads as h; h.WORKER_HEARTBEAT_SECONDS = 0.1"
NAME = ["--hostname", "observed@%h"]


@dataclass
class Worker:
    """A running `digitq worker`, which writes its log as JSON, and its Redis."""

    local: Local
    folder: Path  # has its log, and its heartbeat
    log: Path = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        self.log = self.folder / "log"
        (self.folder / "quick.py").write_text(QUICK)
        (here := self.folder / "here").mkdir()  # Celery would run what is in the current folder
        for name in ("worker", "cv2"):
            (here / f"{name}.py").write_text("raise SystemExit('was run')")
        options = ["--concurrency", "1", "--include", "quick"]
        broker = ["--broker", self.local.url, "--log-format", "json"]
        path = f"{self.folder}{os.pathsep}{Path(__file__).parents[2]}"
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "digitq", "worker", *broker, *NAME, *options],
                stdout=file,
                stderr=file,
                cwd=here,
                env={
                    **os.environ,
                    "DIGITQ_DEADLINE_SECONDS": "3600",
                    "TMPDIR": str(self.folder),
                    "PYTHONPATH": path,
                },
            )
        wait_for(self.heartbeat.exists)  # until then, the probe would only take its processor
        wait_for(lambda: self.is_found("ready"))

    def check(self, wanted: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the probe."""
        return subprocess.run(
            [*DIGITQ, "worker", "--check", wanted, *(options or NAME)],
            env={**os.environ, "TMPDIR": str(self.folder)},
            capture_output=True,
            text=True,
        )

    @property
    def heartbeat(self) -> Path:
        """The file of its heartbeat."""
        return self.folder / f"digitq-workers-{os.getuid()}" / f"observed@{socket.gethostname()}"

    def is_found(self, wanted: str) -> bool:
        """Whether the probe finds it live, or ready."""
        return self.check(wanted).returncode == 0

    def lines(self, **wanted: Any) -> list[dict[str, Any]]:
        """The lines of the log with these fields. All lines must be JSON."""
        *lines, _ = self.log.read_text().split("\n")  # the last may be half written
        lines = [json.loads(line) for line in lines]
        return [line for line in lines if wanted.items() <= line.items()]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Local(workers=0) as local:
        worker = Worker(local, tmp_path_factory.mktemp("worker"))
        worker.start()
        try:
            yield worker
        finally:
            worker.process.terminate()
            worker.process.wait()


def test_a_log_has_a_line_for_each_chunk_and_for_the_begin_and_end_of_a_job(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "3")
    client = Client(worker.local.url)
    job = client.submit([draw_one(), b"text", b"", draw_one(), b"text"])
    job.table()
    wait_for(lambda: worker.lines(event="job end", job=job.id))
    begin, *chunks, end = worker.lines(job=job.id)
    assert begin["event"] == "job begin" and begin["model"] == "mlp"
    assert [(line["chunk"], line["images"], line["failed"]) for line in chunks] == [
        (0, 3, 2),
        (1, 2, 1),
    ]
    text, nothing = "not an image that can be read", "the file is empty"
    assert [line["errors"] for line in chunks] == [{text: 1, nothing: 1}, {text: 1}]
    assert all(0 < line["seconds"] < 60 and line["model"] == "mlp" for line in chunks)
    assert (end["state"], end["done"], end["failed"], end["model"]) == ("done", 5, 3, "mlp")
    assert f"chunk 1 of job {job.id}: 2 images, 1 failed (1 {text}), " in chunks[1]["message"]
    assert end["message"].startswith(f"job {job.id} is done: 5 of 5 images, 3 failed, ")
    assert datetime.fromisoformat(end["time"]).utcoffset() == timedelta(0)


def test_the_end_of_a_job_that_is_cancelled_is_logged_too(worker: Worker) -> None:
    job = Client(worker.local.url).submit([draw_one()] * 600, detached=True)
    wait_for(lambda: worker.lines(event="job begin", job=job.id))
    job.cancel()
    wait_for(lambda: worker.lines(event="job end", job=job.id, state="cancelled"))


def test_the_chunk_of_a_process_that_died_is_begun_again_long_before_its_deadline(
    worker: Worker,
) -> None:
    client = Client(worker.local.url)
    child = children_of(worker.process.pid)[-1]
    job = client.submit([draw_one()] * 600, detached=True)

    def stands_still_at_a_chunk() -> bool:
        os.kill(child, signal.SIGSTOP)
        if client.ledger.running_chunks([job.id]):
            return True
        os.kill(child, signal.SIGCONT)
        return False

    wait_for(stands_still_at_a_chunk)
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: job.progress().state == "done")
    assert job.progress().most_attempts == 2
    (death,) = worker.lines(event="death", job=job.id)
    again = {"event": "chunk", "job": job.id, "chunk": death["chunk"], "attempt": 2}
    wait_for(lambda: worker.lines(**again))  # it is logged a moment after the job is done
    wait_for(lambda: worker.lines(event="job end", job=job.id))


def test_a_single_call_is_one_line(worker: Worker) -> None:
    # A chunk of the job that was cancelled may be discarded only now
    cancelled = {line["job"] for line in worker.lines(state="cancelled")}

    def others() -> list[dict[str, Any]]:
        return [line for line in worker.lines() if line.get("job") not in cancelled]

    before = len(others())
    Client(worker.local.url).classify(draw_one())
    wait_for(lambda: len(others()) > before)
    assert [line["event"] for line in others()[before:]] == ["chunk"]


def test_a_probe_takes_little_time(worker: Worker) -> None:
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert worker.is_found("live")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.1


def test_a_frozen_worker_is_not_live(worker: Worker) -> None:
    """Once it has been silent for long enough, which is not waited for here."""
    assert worker.is_found("live")
    freeze(worker.process.pid)
    try:
        then = time.time() - MAX_FILE_AGE_SECONDS - 1
        os.utime(worker.heartbeat, (then, then))
        for wanted in ("live", "ready"):
            found = worker.check(wanted)
            assert found.returncode == 1
            assert re.search(r"no heartbeat for \d\d s", found.stderr)  # 11, or a few more
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)
    wait_for(lambda: worker.is_found("ready"))


def test_a_worker_that_was_told_to_take_no_work_is_not_ready(worker: Worker) -> None:
    control = make_app(worker.local.url).control
    control.cancel_consumer("digitq")
    wait_for(lambda: not worker.is_found("ready"))
    assert worker.check("ready").stderr.endswith("to take nothing from the queue digitq\n")
    assert worker.is_found("live")
    control.add_consumer("digitq")
    wait_for(lambda: worker.is_found("ready"))


def test_workers_of_other_names_are_not_mixed_up(worker: Worker) -> None:
    for options in (["--hostname=other@%h"], ["-nother"], ["-c", "2"]):
        found = worker.check("live", *options)
        assert found.returncode == 1 and "no worker " in found.stderr
    assert worker.check("live", "--broker", "redis://nowhere", *NAME).stdout.endswith(" is live\n")


def test_a_worker_without_redis_is_live_but_not_ready(worker: Worker) -> None:
    """And when Redis is back, it works. All that it says meanwhile is JSON."""
    kill(worker.local._processes["redis"])
    wait_for(lambda: not worker.is_found("ready"))
    assert "not connected to Redis" in worker.check("ready").stderr
    assert worker.is_found("live")
    worker.local._start_redis()
    wait_for(lambda: worker.is_found("ready"))
    assert Client(worker.local.url).submit(random_digits(10)).table().num_rows == 10
    said = " ".join(line["message"] for line in worker.lines())
    assert "Connection to broker lost" in said and "PendingDeprecation" not in said


def test_a_worker_starts_anew_at_sighup_and_is_found_again(worker: Worker) -> None:
    """As Celery's do where they are on no terminal."""
    before = len(worker.lines())
    worker.process.send_signal(signal.SIGHUP)
    wait_for(lambda: any("ready." in line["message"] for line in worker.lines()[before:]))
    wait_for(lambda: worker.is_found("ready"))


def test_a_killed_worker_is_not_live(worker: Worker) -> None:
    """At once; its name is free for the next one."""
    children = children_of(worker.process.pid)
    worker.process.kill()
    worker.process.wait()
    for child in children:
        with suppress(ProcessLookupError):  # it ends with its parent
            os.kill(child, signal.SIGKILL)
    assert "has ended" in worker.check("live").stderr
