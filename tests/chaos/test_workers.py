"""Workers that end, hang or go deaf, chunks that are slow, and jobs that are cancelled."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from digitq.local.processes import Local
from producer import Client
from protocol.celery import make_app
from protocol.errors import JobCancelledError
from protocol.ledger import QUEUE, SWEEP_LOCK
from tests.chaos.runs import write_images
from tests.drawing import draw_one, draw_tight_ring, random_digits
from tests.waiting import DIGITQ, children_of, wait_for
from worker.models.model import load_model
from worker.normalisation.steps import normalise

ROWS = 2000
IDS = [str(number) for number in range(ROWS)]
DIGITS = random_digits(ROWS)
SLOW = """
import time
import worker.classify
trace_digit = worker.classify.trace_digit

def slow(content):
    with open(f"{__file__}.read", "a") as read:
        read.write(".")
    time.sleep(0.1)  # the fault itself
    return trace_digit(content)

worker.classify.trace_digit = slow
"""
HELD = """
import os, time
import worker.classify
trace_digit = worker.classify.trace_digit

def held(content):
    while not os.path.exists(f"{__file__}.go"):
        time.sleep(0.01)  # the fault itself
    return trace_digit(content)

worker.classify.trace_digit = held
"""
IMPATIENT = """
from worker import watchdog
watchdog.IDLE_SECONDS = 1.0
"""
DEAF = f"""{IMPATIENT}
import os
from worker import transport
if not os.path.exists(MARK):
    open(MARK, "w").close()
    transport.Channel._brpop_start = lambda self, timeout=None: None
"""
DEADLY = """
import hashlib, os, signal
import worker.decoding.opening
decode = worker.decoding.opening.decode_image

def deadly(content, side):
    image = decode(content, side)
    if image.size == (66, 66):
        os.kill(os.getpid(), signal.SIGKILL)
    if image.size == (67, 67):
        signal.setitimer(signal.ITIMER_PROF, 0.3)  # as if it had run for long
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
    while image.size == (68, 68):
        pass
    if image.size == (69, 69):
        bytearray(1 << 36)
    return image

worker.decoding.opening.decode_image = deadly
import worker.classify
worker.classify.watch.seconds = 1.0
"""
DEADLY_VIEWS = """
import os, signal
import worker.normalisation.steps

def deadly(picture):
    os.kill(os.getpid(), signal.SIGKILL)

worker.normalisation.steps.VIEWS = (*worker.normalisation.steps.VIEWS, deadly)
"""

Start = Callable[..., Local]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    """Starts a Redis and workers that import a module with this code before they fork."""
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "64")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with Local(workers=0) as local:

        def start(code: str = "", workers: int = 1, deadline_seconds: float = 60) -> Local:
            (tmp_path / "sabotage.py").write_text(code)
            monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", str(deadline_seconds))
            for number in range(workers):
                options = ["-c", "1", "-n", f"worker{number}@%h", "--without-mingle"]
                options += ["-I", "sabotage"]
                local._start_celery(f"worker{number}", "worker", "worker", *options)
            local.workers = workers
            local.wait_until_ready()
            return local

        yield start


@pytest.fixture(scope="module")
def local() -> Iterator[Local]:
    """One worker with which nothing is wrong."""
    with Local(workers=1) as local:
        local.wait_until_ready()
        yield local


def keys_of(client: Client) -> set[bytes]:
    """All of Redis's keys but Celery's own: a worker may still be binding its queues."""
    keys: set[bytes] = set(client.ledger.redis.keys("*"))
    return {key for key in keys if not key.startswith(b"_kombu.")}


def check(table: pa.Table) -> None:
    assert table.column("id").to_pylist() == IDS
    assert table.column("label").null_count == 0


def test_a_worker_that_is_told_to_end_hands_back_what_it_has_not_begun(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each of two is at a chunk, and has another's message. Nobody waits for the deadline."""
    local = start(HELD, workers=2, deadline_seconds=600)
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "1")
    client = Client(local.url)
    job = client.submit([draw_one() for _ in range(4)], detached=True)
    job.wait_until_stored()
    redis, running = client.ledger.redis, f"digitq:job:{job.id}:running"
    wait_for(lambda: redis.zcard(running) == 2 and not redis.llen(QUEUE))
    leaving = local._processes["worker0"]
    os.kill(leaving.pid, signal.SIGTERM)
    wait_for(lambda: "Warm shutdown" in (local.folder / "worker0.log").read_text())
    (tmp_path / "sabotage.py.go").touch()
    wait_for(lambda: job.progress().state == "done", seconds=30)
    assert job.table().column("label").null_count == 0
    assert leaving.wait(timeout=60) == 0
    assert job.progress().most_attempts == 1


def test_workers_sweep_on_where_the_clock_of_redis_was_set_back(client: Client) -> None:
    redis = client.ledger.redis
    redis.set(SWEEP_LOCK, "of another time", px=10**9)
    wait_for(lambda: redis.pttl(SWEEP_LOCK) < 10**6)


def test_a_deaf_worker_starts_itself_again(start: Start, tmp_path: Path) -> None:
    mark = tmp_path / "was deaf"
    local = start(DEAF.replace("MARK", repr(str(mark))))
    first = local._processes["worker0"].pid
    assert mark.exists()
    check(Client(local.url).submit(DIGITS).table())
    assert local._processes["worker0"].poll() is None and local._processes["worker0"].pid == first


def test_a_child_that_hangs_is_replaced(start: Start) -> None:
    local = start(IMPATIENT, deadline_seconds=1)
    worker = local._processes["worker0"].pid
    job = Client(local.url).submit(DIGITS)
    results = job.results()
    batches = [next(results)]
    hanging = children_of(worker)[0]
    os.kill(hanging, signal.SIGSTOP)
    batches.extend(results)
    check(pa.Table.from_batches(batches))
    wait_for(lambda: hanging not in children_of(worker))
    assert local._processes["worker0"].poll() is None


def test_a_slow_chunk_is_not_taken_from_its_worker(start: Start) -> None:
    """It takes three seconds, three times its deadline; another worker has nothing to do."""
    local = start(SLOW, workers=2, deadline_seconds=1)
    job = Client(local.url).submit([draw_one() for _ in range(30)])
    assert job.table().column("label").null_count == 0
    assert job.progress().most_attempts == 1


@pytest.mark.parametrize(
    ("errors_by_side", "deadline_seconds", "most_attempts"),
    [
        (dict.fromkeys((66, 67), "this image crashes workers"), 1, 4),
        ({68: "takes longer than 1 s", 69: "needs too much memory"}, 60, 1),
    ],
    ids=["it kills, or never comes back to Python", "it never ends, or grabs memory"],
)
def test_a_deadly_image_costs_itself_only(
    errors_by_side: dict[int, str], deadline_seconds: int, most_attempts: int, start: Start
) -> None:
    local = start(DEADLY, deadline_seconds=deadline_seconds)
    for side, error in errors_by_side.items():
        images = [draw_one((60, 80 + n), mode="RGB") for n in range(100)]
        images[70] = draw_one((side, side), mode="RGBA")  # deadly; Pillow reads it
        job = Client(local.url).submit(images)
        errors = job.table().column("error").to_pylist()
        assert errors[70] == error
        assert errors.count(None) == 99
        assert job.progress().most_attempts <= most_attempts


def test_an_image_whose_other_views_are_deadly_does_without_them(start: Start) -> None:
    local = start(DEADLY_VIEWS, deadline_seconds=1)
    images = [draw_one((60, 80 + n)) for n in range(100)]
    images[70] = PIL.Image.fromarray(draw_tight_ring())
    job = Client(local.url).submit(images)
    table = job.table()
    assert table.column("error").null_count == 100
    first = load_model("mlp").classify(normalise(draw_tight_ring()).reshape(1, -1))[0]
    np.testing.assert_allclose(table.column("probabilities").to_pylist()[70], first, atol=1e-6)
    assert table.column("review").to_pylist()[70]
    assert job.progress().most_attempts == 4


def test_rubbish_ends_no_worker(local: Local, client: Client) -> None:
    """Neither what is no message, nor messages of another program or version."""
    for rubbish in (b"\xff\x00", b"", b"{}", b'{"body": 1}', b"[]", b"null", b'{"body": "x", "p'):
        client.ledger.redis.lpush(QUEUE, rubbish)
    for task, arguments in [
        ("digitq.classify", ("no such job", 0)),
        ("digitq.classify", ("wrong",)),
        ("digitq.classify", ({}, "wrong")),
        ("of.another.version", ()),
    ]:
        make_app(local.url).send_task(task, arguments)
    check(client.submit(DIGITS).table())
    assert local._processes["worker1"].poll() is None


def test_a_cancelled_job_is_let_go_at_once(start: Start, tmp_path: Path) -> None:
    """In the midst of a chunk, whose other images are not read before the next job is done."""
    local = start(SLOW)
    client = Client(local.url)
    job = client.submit([draw_one() for _ in range(640)])
    wait_for(lambda: client.ledger.redis.exists(f"digitq:job:{job.id}:running"))
    job.cancel()
    keys = set(client.ledger.redis.keys(f"digitq:job:{job.id}*"))
    assert keys == {f"digitq:job:{job.id}".encode(), f"digitq:job:{job.id}:done".encode()}
    with pytest.raises(JobCancelledError):
        job.table()
    client.submit(DIGITS[:1]).table()
    assert (tmp_path / "sabotage.py.read").stat().st_size < 64
    assert client.ledger.redis.llen(QUEUE) == 0


def test_many_small_jobs_leave_their_records(client: Client) -> None:
    redis = client.ledger.redis
    before = keys_of(client)
    for _ in range(30):
        assert client.submit(DIGITS[:1]).table().num_rows == 1
    known = {f"digitq:job:{record.id}".encode() for record in client.jobs()} - before
    assert len(known) == 30
    passing = set(redis.keys("digitq:job:*:*"))
    assert {redis.ttl(key) for key in passing} <= {-2, *range(11)}  # gone, or in ten seconds
    left = keys_of(client) - before - known - passing
    assert left <= {b"digitq:jobs", b"digitq:watermark", b"digitq:sweeping"}


def test_nothing_outlives_its_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_JOB_TTL_SECONDS", "1")
    client = Client(start().url)
    job = client.submit(DIGITS, detached=True)
    job.wait_until_stored()
    wait_for(lambda: keys_of(client) <= {b"digitq:sweeping"})
    assert client.jobs() == []


def test_a_producer_says_what_it_waits_for(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No worker comes, and Redis may hold but a little of the job."""
    monkeypatch.setenv("DIGITQ_BUDGET_BYTES", "100000")
    local = start(workers=0)
    write_images(tmp_path / "images.parquet", 5000)
    command = [*DIGITQ, "submit", str(tmp_path / "images.parquet"), "--broker", local.url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as submitter:
        assert submitter.stderr and "waiting for workers: 0 MB" in submitter.stderr.readline()
        memory = Client(local.url).ledger.redis.info("memory")["used_memory"]
        submitter.kill()
    assert memory < 8 << 20
