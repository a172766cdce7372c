"""Workers that end, hang or go deaf, chunks that are slow, and jobs that are cancelled."""

import base64
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from digitq import Client
from digitq.private.processes import Local
from digitq.protocol.app import CLASSIFY_IMAGE, make_app
from digitq.protocol.errors import JobCancelledError
from digitq.protocol.keys import QUEUE, SWEEPING
from digitq.worker.models.model import load_model
from digitq.worker.sight.normalisation.steps import normalise
from tests.chaos.runs import write_images
from tests.drawing import draw_one, draw_tight_ring, encode_image, random_digits
from tests.waiting import DIGITQ, children_of, wait_for

ROWS = 2000
IDS = [str(number) for number in range(ROWS)]
DIGITS = random_digits(ROWS)
SHORT_SECONDS, LONG_SECONDS = 1, 600  # deadlines
# A module that workers import before they fork. Some of its faults come with images of a certain
# size; the others last as long as a file with their name is there
FAULTY = """
import hashlib, os, signal, time
import digitq.worker.sight.decoding.any_file
decode = digitq.worker.sight.decoding.any_file.decode_image

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

digitq.worker.sight.decoding.any_file.decode_image = deadly
import digitq.worker.classify
import digitq.worker.sight.normalisation.steps
digitq.worker.classify.watch.seconds = 1.0
trace_digit = digitq.worker.classify.trace_digit

def is_told(fault):
    return os.path.exists(f"{__file__}.{fault}")

def late(content):
    while is_told("held"):
        time.sleep(0.01)  # the fault itself
    if is_told("slow"):
        with open(f"{__file__}.slow", "a") as read:
            read.write(".")
        time.sleep(0.1)  # the fault itself
    return trace_digit(content)

def deadly_view(picture):
    if is_told("deadly_view"):
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("none")

digitq.worker.classify.trace_digit = late
digitq.worker.sight.normalisation.steps.VIEWS |= {"deadly": deadly_view}
"""
# A module with which a worker is deaf until it starts again
DEAF = """
import os
from digitq.worker.service import transport, watchdog
watchdog.IDLE_SECONDS = 1.0
mark = f"{__file__}.was_deaf"
if not os.path.exists(mark):
    open(mark, "w").close()
    transport.Channel._brpop_start = lambda self, timeout=None: None
"""

Tell = Callable[[str], Path]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "64")


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the modules that workers import."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "faulty.py").write_text(FAULTY)
    (folder / "deaf.py").write_text(DEAF)
    return folder


@pytest.fixture
def tell(modules: Path) -> Iterator[Tell]:
    """Begins a fault of `FAULTY`. It ends with the test, or when the returned file is removed."""
    begun: list[Path] = []

    def tell(fault: str) -> Path:
        begun.append(modules / f"faulty.py.{fault}")
        begun[-1].touch()
        return begun[-1]

    yield tell
    for file in begun:
        file.unlink(missing_ok=True)


def start(local: Local, name: str, module: Path, deadline_seconds: float, processes: int) -> None:
    """Start a worker that imports this module before it forks."""
    options = ["-c", str(processes), "-n", f"{name}@%h", "-I", module.stem]
    path = f"{module.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    deadline = str(deadline_seconds)
    variables = {"PYTHONPATH": path, "DIGITQ_DEADLINE_SECONDS": deadline}
    local._start_module(name, "celery", "-A", "digitq.worker", "worker", *options, **variables)
    local.workers += 1
    local.wait_until_ready()


@pytest.fixture(scope="module")
def local(modules: Path) -> Iterator[Local]:
    """A worker with which nothing is wrong until a test tells it so. Its deadline is long, so
    that no test passes because of it."""
    with Local(workers=0) as local:
        start(local, "worker1", modules / "faulty.py", LONG_SECONDS, processes=1)
        yield local


@pytest.fixture(scope="module")
def hasty_worker(modules: Path) -> Iterator[Local]:
    with Local(workers=0) as local:
        start(local, "worker1", modules / "faulty.py", SHORT_SECONDS, processes=2)
        yield local


@pytest.fixture(scope="module")
def impatient_worker(modules: Path) -> Iterator[Local]:
    with Local(workers=0) as local:
        start(local, "worker1", modules / "deaf.py", SHORT_SECONDS, processes=1)
        yield local


@pytest.fixture
def hasty(hasty_worker: Local, monkeypatch: pytest.MonkeyPatch) -> Local:
    """A worker of two processes with a short deadline."""
    monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", str(SHORT_SECONDS))
    return hasty_worker


@pytest.fixture
def impatient(impatient_worker: Local, monkeypatch: pytest.MonkeyPatch) -> Local:
    """A worker whose watchdog soon acts. It is deaf until that has started it again."""
    monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", str(SHORT_SECONDS))
    return impatient_worker


def keys_of(client: Client) -> set[bytes]:
    """All of Redis's keys but Celery's own: queues' bindings, and answers that are kept an hour."""
    keys: set[bytes] = set(client.ledger.redis.keys("*"))
    return {key for key in keys if not key.startswith((b"_kombu.", b"celery-task-meta-"))}


def check(table: pa.Table) -> None:
    assert table.column("id").to_pylist() == IDS
    assert table.column("label").null_count == 0


def test_a_worker_that_is_told_to_end_hands_back_what_it_has_not_begun(
    local: Local, modules: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two is at a chunk, and has another's message. Nobody waits for the deadline."""
    start(local, "leaving", modules / "faulty.py", LONG_SECONDS, processes=1)
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "1")
    held = tell("held")
    client = Client(local.url)
    job = client.submit([draw_one() for _ in range(4)], detached=True)
    job.wait_until_stored()
    redis, running = client.ledger.redis, f"digitq:job:{job.id}:running"
    wait_for(lambda: redis.zcard(running) == 2 and not redis.llen(QUEUE))
    leaving = local._processes["leaving"]
    os.kill(leaving.pid, signal.SIGTERM)
    wait_for(lambda: "Warm shutdown" in (local.folder / "leaving.log").read_text())
    held.unlink()
    wait_for(lambda: job.progress().state == "done", seconds=30)
    assert job.table().column("label").null_count == 0
    assert leaving.wait(timeout=60) == 0
    assert job.progress().most_attempts == 1


def test_workers_sweep_on_where_the_clock_of_redis_was_set_back(client: Client) -> None:
    redis = client.ledger.redis
    later = redis.time()[0] + 10**6
    redis.set(SWEEPING, f"{later} 0")
    wait_for(lambda: float(redis.get(SWEEPING).split()[0]) < later)


def test_a_deaf_worker_starts_itself_again(impatient: Local, modules: Path) -> None:
    first = impatient._processes["worker1"].pid
    assert (modules / "deaf.py.was_deaf").exists()
    check(Client(impatient.url).submit(DIGITS).table())
    worker = impatient._processes["worker1"]
    assert worker.poll() is None and worker.pid == first


def test_a_child_that_hangs_is_replaced(impatient: Local) -> None:
    worker = impatient._processes["worker1"].pid
    job = Client(impatient.url).submit(DIGITS)
    results = job.results()
    batches = [next(results)]
    hanging = children_of(worker)[0]
    os.kill(hanging, signal.SIGSTOP)
    batches.extend(results)
    check(pa.Table.from_batches(batches))
    wait_for(lambda: hanging not in children_of(worker))
    assert impatient._processes["worker1"].poll() is None


def test_a_slow_chunk_is_not_taken_from_its_process(hasty: Local, tell: Tell) -> None:
    """It takes three seconds, three times its deadline; another process has nothing to do."""
    tell("slow")
    job = Client(hasty.url).submit([draw_one() for _ in range(30)])
    assert job.table().column("label").null_count == 0
    assert job.progress().most_attempts == 1


@pytest.mark.parametrize(
    ("errors_by_side", "worker"),
    [
        (dict.fromkeys((66, 67), "this image crashes workers"), "hasty"),
        ({68: "takes longer than 1 s", 69: "needs too much memory"}, "local"),
    ],
    ids=["it kills, or never comes back to Python", "it never ends, or grabs memory"],
)
def test_a_deadly_image_costs_itself_only(
    errors_by_side: dict[int, str],
    worker: str,
    request: pytest.FixtureRequest,
) -> None:
    """The log names the chunk in which a process died, without Celery's traceback."""
    local = request.getfixturevalue(worker)
    client, log = Client(local.url), local.folder / "worker1.log"
    for side, error in errors_by_side.items():
        images = [draw_one((60, 80 + n), mode="RGB") for n in range(100)]
        images[70] = draw_one((side, side), mode="RGBA")  # deadly; Pillow reads it
        job = client.submit(images)
        errors = job.table().column("error").to_pylist()
        assert errors[70] == error
        assert errors.count(None) == 99
        assert (job.progress().most_attempts > 1) == (worker == "hasty")
        death = rf"\+00:00: ERROR/.* a process died at chunk \d+ of job {job.id}: signal \d+ "
        assert bool(re.search(death, log.read_text())) == (worker == "hasty")
    assert "WorkerLostError" not in log.read_text()


def test_a_deadly_image_of_another_program_costs_itself_only(hasty: Local) -> None:
    """It came between two others, which get their answers."""
    deadly, good = draw_one((66, 66), mode="RGBA"), draw_one()
    texts = [base64.b64encode(encode_image(image)).decode() for image in (good, deadly, good)]
    with make_app(hasty.url) as app:
        results = [app.send_task(CLASSIFY_IMAGE, [text]) for text in texts]
        errors = [result.get(60)["error"] for result in results]
    assert errors == [None, "this image crashes workers", None]
    log = (hasty.folder / "worker1.log").read_text()
    deaths = re.findall(r"a process died at chunk 0 of job (\S+):", log)
    assert 1 <= deaths.count(results[1].id) <= 2  # it may have died at another one of the three


def test_an_image_whose_other_views_are_deadly_does_without_them(hasty: Local, tell: Tell) -> None:
    tell("deadly_view")
    images = [draw_one((60, 80 + n)) for n in range(100)]
    images[70] = PIL.Image.fromarray(draw_tight_ring())
    job = Client(hasty.url).submit(images)
    table = job.table()
    assert table.column("error").null_count == 100
    first = load_model("mlp").classify(normalise(draw_tight_ring()).reshape(1, -1))[0]
    np.testing.assert_allclose(table.column("probabilities").to_pylist()[70], first, atol=1e-6)
    assert table.column("review").to_pylist()[70]
    assert job.progress().most_attempts > 3  # one more for each deadline that a busy machine missed


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
        with make_app(local.url) as app:
            app.send_task(task, arguments, ignore_result=True)
    check(client.submit(DIGITS).table())
    assert local._processes["worker1"].poll() is None


def test_a_cancelled_job_is_let_go_at_once(client: Client, tell: Tell) -> None:
    """In the midst of a chunk, whose other images are not read before the next job is done."""
    read = tell("slow")
    job = client.submit([draw_one() for _ in range(640)])
    wait_for(lambda: client.ledger.redis.exists(f"digitq:job:{job.id}:running"))
    job.cancel()
    keys = set(client.ledger.redis.keys(f"digitq:job:{job.id}*"))
    assert keys == {f"digitq:job:{job.id}".encode(), f"digitq:job:{job.id}:done".encode()}
    with pytest.raises(JobCancelledError):
        job.table()
    client.submit(DIGITS[:1]).table()
    assert read.stat().st_size < 32  # images of the first chunk
    assert client.ledger.redis.llen(QUEUE) == 0


def test_many_small_jobs_leave_their_records(client: Client) -> None:
    redis = client.ledger.redis
    before = keys_of(client)
    for _ in range(30):
        assert client.submit(DIGITS[:1]).table().num_rows == 1
    known = {f"digitq:job:{record.id}".encode() for record in client.jobs()} - before
    assert len(known) == 30
    passing = set(redis.keys("digitq:job:*:*")) - before
    assert {redis.ttl(key) for key in passing} <= {-2, *range(11)}  # gone, or in ten seconds
    left = keys_of(client) - before - known - passing
    assert left <= {b"digitq:jobs", b"digitq:watermark", b"digitq:sweeping", b"digitq:ended"}


def test_nothing_outlives_its_time(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_JOB_TTL_SECONDS", "1")
    client = Client(local.url)
    for key in client.ledger.redis.keys("digitq:*"):  # of the tests before
        client.ledger.redis.delete(key)
    job = client.submit(DIGITS, detached=True)
    job.wait_until_stored()
    lasting = b"digitq:sweeping", b"digitq:counters", b"digitq:worker"  # and heartbeats
    wait_for(lambda: all(key.startswith(lasting) for key in keys_of(client)))
    assert client.jobs() == []


def test_a_producer_says_what_it_waits_for(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No worker comes, and Redis may hold but a little of the job."""
    monkeypatch.setenv("DIGITQ_BUDGET_BYTES", "100000")
    write_images(tmp_path / "images.parquet", 5000)
    command = [*DIGITQ, "submit", str(tmp_path / "images.parquet"), "--broker", redis_only.url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as submitter:
        assert submitter.stderr and "waiting for workers: 0 MB" in submitter.stderr.readline()
        memory = Client(redis_only.url).ledger.redis.info("memory")["used_memory"]
        submitter.kill()
    assert memory < 8 << 20
