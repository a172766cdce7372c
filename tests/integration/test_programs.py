"""Programs without digitq: the task `digitq.classify_image` from Celery, curl and Node."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

import digitq
from digitq import Client
from digitq.private import processes
from digitq.private.processes import Local, find_free_port
from digitq.protocol.app import CLASSIFY_IMAGE, make_app
from digitq.protocol.broker.connection import connect
from digitq.protocol.keys import (
    ACTIVE,
    ANSWER,
    BOOKED_QUEUE,
    DEFAULT_QUEUE,
    IMAGES_QUEUE,
    TAKEN,
    record_key,
)
from digitq.protocol.ledger import Ledger
from digitq.protocol.ledger.script import MAX_PEEKED, RESULT_SECONDS
from digitq.protocol.records import BegunCall
from digitq.worker import images
from digitq.worker.images import MAX_IMAGE_ATTEMPTS
from digitq.worker.tasks import DISCARDED
from tests.drawing import draw_one, encode_image, random_digits
from tests.waiting import children_of, freeze, wait_for

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text()
SETTINGS = {"DIGITQ_DEADLINE_SECONDS": "1", "DIGITQ_IMAGE_BYTES": str(1 << 20)}
IMAGE = encode_image(draw_one())
TEXT = base64.b64encode(IMAGE).decode()
NUMBER = base64.b64encode((EXAMPLES / "numbers/007.png").read_bytes()).decode()
NEEDS_NUMBERS = (
    "a length, a pattern, a fill and allowed numbers need whole numbers: --read number, or "
    'read="number"'
)
SECONDS = 60  # how long an answer may take on a busy machine


@pytest.fixture(scope="module")
def deployment() -> Iterator[Local]:
    """A Redis on a port, a worker with a short deadline, and a Flower with a password."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, "FLOWER_BASIC_AUTH": "user:password"}.items():
            patch.setenv(name, value)
        patch.setattr(processes, "HARMLESS", (*processes.HARMLESS, "+config|set"))
        with Local(workers=1, port=find_free_port(), flower=True) as local:
            local.wait_until_ready()
            yield local


@pytest.fixture
def app(deployment: Local) -> Iterator[Celery]:
    """An app as another program has it. The worker has answered all images of other tests."""
    url = deployment.url
    with connect(url) as redis:
        wait_for(lambda: has_answered_all(redis))
    with Celery(broker=url, backend=url, set_as_current=False) as app:
        yield app
        consumer = app.backend.result_consumer
        consumer.subscribed_to.clear()  # a result that lives longer would try to unsubscribe
        consumer.stop()
        app.backend.client.close()


@pytest.fixture
def redis(deployment: Local) -> Iterator[Any]:
    with connect(deployment.url) as redis:
        yield redis


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is started now has the settings of the first one."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


def has_answered_all(redis: Any) -> bool:
    return not redis.exists(IMAGES_QUEUE, TAKEN, BOOKED_QUEUE, ACTIVE)


def send(app: Celery, *args: object, **kwargs: object) -> AsyncResult:
    return app.send_task(CLASSIFY_IMAGE, args, kwargs, queue=IMAGES_QUEUE)


def as_json(prediction: Any) -> Any:
    """A prediction as JSON has it, with an object for each digit and alternative, and no id."""
    row = asdict(prediction)
    del row["id"]
    for name in ("digits", "alternatives"):
        if row.get(name):
            row[name] = [one._asdict() for one in row[name]]
    return json.loads(json.dumps(row))


def shown(language: str, **names: str) -> str:
    """The block of the page in this language, with other names in place of those in it."""
    section = PAGE.partition("\n## Programs without digitq\n")[2].partition("\n## ")[0]
    (block,) = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    for name, other in {**names}.items():
        block = block.replace(name, other)
    return block


def test_images_are_counted(deployment: Local, app: Celery) -> None:
    ledger = Client(deployment.url).ledger
    names = "images:cnn", "failed:cnn"
    before = [ledger.counters().get(name, 0) for name in names]
    for text in (TEXT, TEXT, base64.b64encode(b"text").decode()):
        send(app, text, model="cnn").get(SECONDS)
    after = [ledger.counters()[name] for name in names]
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 1]


def test_answers_are_those_of_a_client(deployment: Local, app: Celery) -> None:
    client, contents = Client(deployment.url), [encode_image(draw_one((60, s))) for s in (70, 80)]
    numbers = client.classify(IMAGE, digitq.numbers())
    assert send(app, TEXT, read="number").get(SECONDS) == as_json(numbers)
    for content in contents:
        text = base64.b64encode(content).decode()
        for model in (None, "cnn"):
            expected = as_json(client.classify(content, digitq.digits(model)))
            assert send(app, text, model).get(SECONDS) == expected
            lines = re.sub("(.{76})", r"\1\n", text)
            assert send(app, image=lines, model=model, read="digit").get(SECONDS) == expected


@pytest.mark.parametrize(
    ("known", "error"),
    [
        ({"length": "x"}, "the length 'x' must be like 9 or 3-6"),
        ({"pattern": 7}, "the pattern is 7: it must be text"),
        ({"allowed": "165"}, "`allowed` is a list of numbers"),
        ({"allowed": ["165", None]}, "line 2 of the allowed numbers is None"),
        ({"allowed": ["1"] * 10_001}, "10,001 numbers are allowed: a message may have 10,000"),
        ({"length": 2, "allowed": ["165"]}, "no allowed number has the length 2"),
        ({"others": 1}, "digitq.classify_image takes image, model, read, length, allowed, pattern"),
        ({"risk": 1e-6}, "number can promise"),
    ],
)
def test_what_is_wrong_with_what_is_known(
    app: Celery, known: dict[str, object], error: str
) -> None:
    answer = send(app, NUMBER, read="number", **known).get(SECONDS)
    assert answer["error"].startswith(error) and (answer["number"], answer["review"]) == (
        None,
        True,
    )


def test_what_is_known_of_numbers(deployment: Local, app: Celery) -> None:
    client, content = Client(deployment.url), base64.b64decode(NUMBER)
    for known in (
        {"length": 3},
        {"length": [2, 3]},
        {"allowed": ["007", "0070", "4"], "fill": "X"},
        {"pattern": r"\d\d"},
    ):
        expected = as_json(client.classify(content, digitq.numbers(**known)))
        assert expected["error"] is None
        assert send(app, NUMBER, read="number", **known).get(SECONDS) == expected


def test_many_at_once_and_what_redis_keeps(deployment: Local, app: Celery) -> None:
    redis = connect(deployment.url)
    for key in redis.scan_iter("celery-task-meta-*"):
        redis.delete(key)
    expected = as_json(Client(deployment.url).classify(IMAGE))
    Client(deployment.url).submit([IMAGE] * 5).table()  # its chunks leave no results there
    before = {*redis.scan_iter("digitq:job:*")}
    results = [send(app, TEXT) for _ in range(64)]
    assert [result.get(SECONDS) for result in results] == [expected] * 64
    ttls = [redis.ttl(key) for key in redis.scan_iter("celery-task-meta-*")]
    assert len(ttls) == 64 and RESULT_SECONDS - 100 < min(ttls) <= max(ttls) <= RESULT_SECONDS
    wait_for(lambda: has_answered_all(redis))
    assert {*redis.scan_iter("digitq:job:*")} <= before, "the ledger keeps something of an image"


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((), "no image: give an image file in base64"),
        ((7,), "the image is not text, but int: give an image file in base64"),
        (("%%%",), "the image is not base64 of an image file"),
        ((TEXT[:-3],), "the image is not base64 of an image file"),
        (("ä",), "the image is not base64 of an image file"),
        (("",), "the file is empty"),
        (("A" * (2 << 20),), "larger than 1 MB"),
        (("AAAA",), "not an image that can be read"),
        ((TEXT, "cnn9"), "there is no model 'cnn9'; there are: mlp, cnn, random"),
        ((TEXT, None, "text"), "`read` is 'text': it must be digit or number"),
        (
            (TEXT, None, "digit", None, None, None, None, None, 1),
            "digitq.classify_image takes image, model, read, length, allowed, pattern, fill and "
            "risk, and no more",
        ),
        ((TEXT, None, "digit", 9), NEEDS_NUMBERS),
    ],
    ids=lambda value: None if isinstance(value, str) else "args",
)
def test_what_is_wrong_is_in_the_answer(app: Celery, args: tuple[object, ...], error: str) -> None:
    result = send(app, *args)
    answer = result.get(SECONDS)
    assert result.state == "SUCCESS" and answer["error"] == error
    assert (answer["label"], answer["review"], answer["reason"]) == (None, True, "error")


def test_jobs_and_images_take_turns(
    deployment: Local, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the worker stands still, three chunks and many images gather. Images that wait are
    classified together, so Celery gives the worker fewer tasks."""
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "100")
    redis, worker = connect(deployment.url), deployment._processes["worker1"].pid
    before = count_tasks(deployment)
    os.killpg(worker, signal.SIGSTOP)
    try:
        results = [send(app, TEXT) for _ in range(300)]
        job = Client(deployment.url).submit(random_digits(300), detached=True)
        assert job.wait_until_stored(SECONDS)
    finally:
        os.killpg(worker, signal.SIGCONT)
    assert job.table().num_rows == 300
    assert redis.llen(IMAGES_QUEUE) < 300
    assert all(result.get(SECONDS)["label"] is not None for result in results)
    last = max(result.date_done for result in results)
    ended = job.progress().finished
    assert ended and last.replace(tzinfo=UTC) > ended, "images were left when the job ended"
    assert 0 < count_tasks(deployment) - before < 150


def test_the_command_of_celery_hears_a_worker(deployment: Local) -> None:
    (state,) = Client(deployment.url).ledger.workers()
    asked = "inspect", "ping", "--destination", state.name, "--timeout", str(SECONDS)
    command = [sys.executable, "-m", "celery", "-A", "digitq.worker", *asked]
    environment = os.environ | {"DIGITQ_BROKER_URL": deployment.url}
    said = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert said.returncode == 0 and "pong" in said.stdout, said.stderr


def count_tasks(deployment: Local) -> int:
    """How many images Celery has given the worker, which may not hear the first question."""
    found = dict[str, Any]()
    with make_app(deployment.url) as own:
        wait_for(
            lambda: found.update(own.control.inspect(timeout=5, limit=1).stats() or {}) or found
        )
    (stats,) = found.values()
    return int(stats["total"].get(CLASSIFY_IMAGE, 0))


def test_other_programs_may_give_a_priority(app: Celery) -> None:
    results = [
        app.send_task(CLASSIFY_IMAGE, [TEXT], queue=IMAGES_QUEUE, priority=priority)
        for priority in (1, 5, 9)
    ]
    assert all(result.get(SECONDS)["error"] is None for result in results)


def test_an_image_outlives_the_worker_that_has_begun_it(
    deployment: Local, app: Celery, redis: Any, quick: None
) -> None:
    """It is killed before its process answers, and another one is started."""
    process = deployment._processes["worker1"]
    freeze(pool_of(process.pid))
    result = send(app, TEXT)
    wait_for(lambda: redis.exists(ACTIVE) and not redis.exists(BOOKED_QUEUE))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deployment.check()
    assert result.get(SECONDS)["label"] is not None


def test_an_image_outlives_the_worker_that_takes_it(
    deployment: Local, app: Celery, redis: Any, quick: None
) -> None:
    """It is killed after Redis has woken it, and before it has done anything."""
    process = deployment._processes["worker1"]
    freeze(process.pid, *children_of(process.pid))
    result = send(app, TEXT)
    redis.rpoplpush(IMAGES_QUEUE, TAKEN)  # unless Redis has moved it for the worker
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert redis.llen(TAKEN) == 1
    deployment.check()
    assert result.get(SECONDS)["label"] is not None


def test_an_image_whose_message_comes_twice_is_classified_once(
    deployment: Local, app: Celery, redis: Any
) -> None:
    """It took longer than the deadline. It came from Celery's default queue, which others fill."""
    ledger = Ledger(redis)
    pool = pool_of(deployment._processes["worker1"].pid)
    before = ledger.counters()
    freeze(pool)
    try:
        result = app.send_task(CLASSIFY_IMAGE, [TEXT])
        wait_for(lambda: redis.exists(ACTIVE))
        redis.lpush(DEFAULT_QUEUE, *[b"other"] * MAX_PEEKED)
        wait_for(lambda: ledger.counters().get("sent_again", 0) > before.get("sent_again", 0))
    finally:
        os.kill(pool, signal.SIGCONT)
        redis.delete(DEFAULT_QUEUE)
    assert result.get(SECONDS)["error"] is None
    wait_for(lambda: has_answered_all(redis))
    assert ledger.counters()["images:mlp"] == before.get("images:mlp", 0) + 1


def test_images_that_were_begun_together_outlive_their_worker(
    deployment: Local, app: Celery, redis: Any
) -> None:
    """This process begins them, as a worker does that dies before it has answered."""
    worker, ledger = deployment._processes["worker1"].pid, Ledger(redis)
    freeze(worker, *children_of(worker))
    try:
        results = [send(app, TEXT) for _ in range(12)]
        assert ledger.book_images() == (0, [])
        (job_id, _), *_ = json.loads(json.loads(redis.rpop(BOOKED_QUEUE))["body"])
        begun = ledger.begin(job_id, 0)
        assert begun and begun.shares
        assert not ledger.begin_calls(job_id, 7, len(TEXT), "")
        assert len(ledger.begin_calls(job_id, 7, 1 << 20, "")) == 3
    finally:
        os.killpg(worker, signal.SIGCONT)
    assert all(result.get(SECONDS)["error"] is None for result in results)


def test_an_image_that_is_never_done_is_given_up(
    deployment: Local, app: Celery, redis: Any
) -> None:
    """Its arguments may end a process before the image is noted."""
    worker = deployment._processes["worker1"].pid
    freeze(worker, *children_of(worker))
    try:
        result = send(app, TEXT)
        assert Ledger(redis).book_images() == (0, [])
        (job_id,) = Ledger(redis).active()
        redis.hset(f"{record_key(job_id)}:attempts", 0, MAX_IMAGE_ATTEMPTS)
    finally:
        os.killpg(worker, signal.SIGCONT)
    assert result.get(SECONDS)["error"] == "this image crashes workers"


def test_nobody_waits_for_an_image_that_has_expired(app: Celery) -> None:
    past = datetime(2000, 1, 1, tzinfo=UTC)
    late = app.send_task(CLASSIFY_IMAGE, [TEXT], queue=IMAGES_QUEUE, expires=past)
    with pytest.raises(TaskRevokedError, match="expired"):
        late.get(SECONDS)
    soon = app.send_task(CLASSIFY_IMAGE, [TEXT], queue=IMAGES_QUEUE, expires=10 * SECONDS)
    assert soon.get(SECONDS)["error"] is None


def test_an_image_that_was_revoked_is_not_sent_again(app: Celery, redis: Any) -> None:
    """Its worker throws the message away each time, so the ledger would send it for ever."""
    id = str(uuid.uuid4())
    assert app.control.revoke(id, reply=True, timeout=SECONDS, limit=1)
    redis.delete(ANSWER + id)  # the worker, which has not seen the image, notes so at once
    with pytest.raises(TaskRevokedError, match="revoked"):
        app.send_task(CLASSIFY_IMAGE, [TEXT], queue=IMAGES_QUEUE, task_id=id).get(SECONDS)
    wait_for(lambda: has_answered_all(redis))


def test_an_image_that_another_worker_has_answered_delays_no_other(
    app: Celery, redis: Any, deployment: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker, which is this process, was late with it, and has classified others with it."""
    worker = deployment._processes["worker1"].pid

    class Late(Ledger):
        def begin_calls(self, job_id: str, *limits: Any) -> list[BegunCall]:
            begun = super().begin_calls(job_id, *limits)
            assert self.complete(job_id, 0, images.unread(b"the first"))
            return begun

    monkeypatch.setattr(images, "ledger", lambda: Late(redis))
    freeze(worker, *children_of(worker))
    try:
        results = [send(app, TEXT) for _ in range(12)]
        Ledger(redis).book_images()
        message = json.loads(redis.rpop(BOOKED_QUEUE))
        (job_id, _), *_ = json.loads(message["body"])
        assert images.classify_image(job_id, 0) == DISCARDED
        answers = {result.id: redis.get(ANSWER + result.id) for result in results}
        assert answers.pop(message["headers"]["id"]) == b"the first"
        others = [json.loads(answer)["status"] for answer in answers.values() if answer]
        assert others == ["SUCCESS"] * 3
    finally:
        os.killpg(worker, signal.SIGCONT)


def test_an_image_without_a_queue_is_answered_and_other_tasks_are_left(
    deployment: Local, app: Celery, redis: Any
) -> None:
    """No worker reads Celery's default queue, as if another program's worker did not run."""
    for number in range(3):
        app.send_task("other.program", [number, CLASSIFY_IMAGE])
    others = redis.lrange(DEFAULT_QUEUE, 0, -1)
    results = [app.send_task(CLASSIFY_IMAGE, [TEXT]) for _ in range(3)]
    for broken in (b'"digitq.classify_image" is no message', b'["digitq.classify_image"]'):
        redis.rpush(DEFAULT_QUEUE, broken)
    app.send_task("other.program", [3])
    assert all(result.get(SECONDS)["error"] is None for result in results)
    last, *rest, _, _ = redis.lrange(DEFAULT_QUEUE, 0, -1)
    assert rest == others and b"other.program" in last
    redis.delete(DEFAULT_QUEUE)


def test_images_are_answered_in_a_full_redis(deployment: Local, app: Celery, redis: Any) -> None:
    worker = deployment._processes["worker1"]
    freeze(worker.pid, *children_of(worker.pid))
    try:
        results = [send(app, TEXT) for _ in range(3)]
        redis.config_set("maxmemory", 1)
        os.killpg(worker.pid, signal.SIGCONT)
        assert all(result.get(SECONDS)["error"] is None for result in results)
    finally:
        redis.config_set("maxmemory", 0)
        os.killpg(worker.pid, signal.SIGCONT)
    assert worker.poll() is None


def pool_of(leader: int) -> int:
    """The process that classifies, which was started last in its worker's group."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return max(pid for pid in pids if pid != leader and is_of(pid, leader))


def is_of(pid: int, leader: int) -> bool:
    try:
        return os.getpgid(pid) == leader
    except ProcessLookupError:
        return False


def test_the_example_for_celery(deployment: Local, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    names = {"redis://localhost:6379/0": deployment.url, "digits/7/a.png": "a.png"}
    command = [sys.executable, "-P", "-c", shown("python", **names)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{Client(deployment.url).classify(IMAGE).label}\n"


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_the_example_for_curl(deployment: Local, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    names = {"http://localhost:5555": str(deployment.flower_url), "digits/7/a.png": "a.png"}
    first, second = shown("sh", **names).split("  # ")[0], shown("sh", **names).splitlines()[-1]

    def run(command: str) -> dict[str, Any]:
        ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=True)
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    id = run(first)["task-id"]
    address = f"FLOWER={deployment.flower_url}/api/task\n"
    answer = run(address + second.replace("6ae1cda8-…", id))["result"]
    assert answer == as_json(Client(deployment.url).classify(IMAGE, digitq.digits("cnn")))

    def row() -> dict[str, Any]:
        return run(
            f"curl -s -u user:password {deployment.flower_url}/api/task/info/{id} || echo {{}}"
        )

    wait_for(lambda: row().get("state") == "SUCCESS")
    assert re.fullmatch(r"image of \d\.\d kB", row()["args"])
    assert row()["result"].startswith(f"{{'label': {answer['label']}, 'confidence': ")
    assert TEXT[:20] not in json.dumps(row()) and len(row()["result"]) < 200


def test_the_example_for_node(deployment: Local, tmp_path: Path) -> None:
    """Runs where Node finds the package `celery-node`, as in a folder that `NODE_PATH` names."""
    if (
        not shutil.which("node")
        or subprocess.run(
            ["node", "-e", 'require.resolve("celery-node")'], capture_output=True
        ).returncode
    ):
        pytest.skip("no Node with celery-node")
    (tmp_path / "a.png").write_bytes(IMAGE)
    names = {"redis://localhost:6379/0": deployment.url, "digits/7/a.png": "a.png"}
    command = ["node", "-e", shown("js", **names)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    answer = Client(deployment.url).classify(IMAGE, digitq.digits("cnn"))
    assert ran.stdout == f"{answer.label}\n", ran.stderr
