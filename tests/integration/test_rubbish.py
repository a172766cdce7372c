"""What a login may write to Redis ends no worker, keeps none of its processes, and stops no job."""

import base64
import json
import random
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from digitq import Client
from digitq.cli import main
from digitq.private.processes import Local
from digitq.producer.job import Job
from digitq.protocol.app import CLASSIFY_IMAGE, make_app
from digitq.protocol.chunk import PIXELS_FIELD, encode
from digitq.protocol.errors import DigitqError, JobFailedError
from digitq.protocol.keys import (
    ACTIVE,
    BOOKED_QUEUE,
    COUNTERS,
    DEFAULT_QUEUE,
    ENDED,
    IMAGES_QUEUE,
    JOBS,
    LIVING,
    QUEUE,
    TAKEN,
    WORKER,
    lists_of,
    record_key,
)
from digitq.protocol.overview import look_around
from digitq.protocol.records import JobSpec
from digitq.protocol.settings import NUMBER, settings
from tests.drawing import draw_one, encode_image, random_digits
from tests.rubbish import draw_batch, draw_message
from tests.unit.test_messages import message
from tests.waiting import children_of, wait_for

DIGITS = random_digits(300)
TEXT = base64.b64encode(encode_image(draw_one())).decode()
MESSAGES, CHUNKS, RESULTS = 3000, 100, 500  # how many the slow tests draw
LISTS = [name for queue in (QUEUE, BOOKED_QUEUE, IMAGES_QUEUE) for name in lists_of(queue)]
LISTS += [TAKEN, DEFAULT_QUEUE]
SECONDS = 60  # how long an answer may take on a busy machine


class Watched:
    """A worker of two processes that must live on, and what its log says from now on."""

    def __init__(self, local: Local) -> None:
        self.local, self.client = local, Client(local.url)
        self.redis: Any = self.client.ledger.redis
        self.worker = local._processes["worker1"]
        self.pool = set(children_of(self.worker.pid))
        self._start = (local.folder / "worker1.log").stat().st_size

    @property
    def log(self) -> str:
        content = (self.local.folder / "worker1.log").read_bytes()
        return content[self._start :].decode(errors="replace")

    def check(self) -> None:
        """It answers more images and jobs than it has processes, and none of these has ended."""
        with make_app(self.local.url) as app:
            sent = [
                app.send_task(CLASSIFY_IMAGE, [TEXT], queue=IMAGES_QUEUE, ignore_result=False)
                for _ in range(6)
            ]
            jobs = [self.client.submit(DIGITS) for _ in range(3)]
            assert [job.table().num_rows for job in jobs] == [300] * 3
            assert [result.get(SECONDS)["error"] for result in sent] == [None] * 6
        assert self.worker.poll() is None and self.pool <= set(children_of(self.worker.pid))
        assert "Traceback" not in self.log and "Unrecoverable" not in self.log, self.log


@pytest.fixture
def watched(local: Local) -> Watched:
    return Watched(local)


BAD = [
    message(body="5"),
    message({"timelimit": ["x", {}], "id": ""}),
    message({"task": "celery.backend_cleanup"}),
    message(properties={"delivery_tag": ["x"]}),
    5,
]


@pytest.mark.parametrize("queue", [QUEUE, BOOKED_QUEUE, IMAGES_QUEUE])
def test_a_message_that_can_t_be_read_costs_a_line(watched: Watched, queue: str) -> None:
    """It kept a process of the worker for ever, or ended the worker."""
    for content in BAD:
        watched.redis.lpush(queue, json.dumps(content))
    watched.check()
    lines = [line for line in watched.log.splitlines() if "can't be read" in line]
    assert len(lines) == len(BAD)


def test_headers_that_end_celery_are_not_looked_at(watched: Watched) -> None:
    job = watched.client.submit(DIGITS[:1], detached=True)
    job.table()
    for limit in (["x", {}], [1e-9, 1e-9], 5):
        headers = {"timelimit": limit, "eta": "9999-12-31T23:59:59"}
        body = json.dumps([[job.id, 0], {}, {}])
        watched.redis.lpush(QUEUE, json.dumps(message(headers, body=body)))
    watched.check()
    assert not watched.log


def test_the_log_says_once_that_no_image_can_be_booked(watched: Watched) -> None:
    """A key of the intake has another type, which the log names."""
    watched.redis.set(TAKEN, "no list")
    wait_for(lambda: "images of other programs wait: " in watched.log)
    said = watched.log
    watched.redis.delete(TAKEN)
    watched.check()
    assert f"its key '{TAKEN}' is a string" in said and watched.log == said


def test_an_image_with_a_callback_says_that_there_is_none(watched: Watched) -> None:
    with make_app(watched.local.url) as app:
        link = app.signature(CLASSIFY_IMAGE, [TEXT], immutable=True, queue=IMAGES_QUEUE)
        sent = [
            app.send_task(
                CLASSIFY_IMAGE, [TEXT], queue=IMAGES_QUEUE, link=link, ignore_result=False
            )
            for _ in range(12)
        ]
        errors = {result.get(SECONDS)["error"] for result in sent}
    (error,) = errors
    assert error.startswith("digitq.classify_image takes image, ") and "no more" in error
    watched.check()


def test_what_a_login_has_damaged_of_jobs_and_workers_is_left_out(watched: Watched) -> None:
    redis, ledger = watched.redis, watched.client.ledger
    for id, field in (("bad1", {"state": "x"}), ("bad2", {"created": "x", "silent_ms": "x"})):
        redis.hset(record_key(id), mapping={"id": id, **field})
        redis.zadd(f"{record_key(id)}:running", {"x": 1})
    redis.sadd(ACTIVE, "bad1", "bad2", b"\xff")
    redis.zadd(JOBS, {"bad1": 1, b"\xff": 2})
    redis.lpush(ENDED, "bad1", b"\xff")
    redis.hset(f"{WORKER}bad", mapping={"heard": "x", "about": "[]"})
    redis.zadd(LIVING, {"bad": time.time(), b"\xff": time.time()})
    redis.hset(COUNTERS, "x", "x")
    try:
        wait_for(lambda: not {b"bad1", b"\xff"} & {*redis.lrange(ENDED, 0, -1)})
        seen = look_around(ledger)
        assert {job.id for job in seen.jobs}.isdisjoint({"bad1", "bad2"})
        assert "bad" not in {worker.name for worker in seen.workers}
        watched.check()
    finally:
        redis.delete(ACTIVE, JOBS, COUNTERS, *map(record_key, ("bad1", "bad2")))


def submit_payload(watched: Watched, payload: bytes, model: str = "mlp", known: bytes = b"") -> Job:
    """A detached job of one chunk, whose bytes are these."""
    ledger = watched.client.ledger
    id = secrets.token_hex(6)
    spec = JobSpec(id, model, "rubbish", attached=False, in_flight=16, ttl=600, known=known)
    ledger.open(spec)
    ledger.dispatch(spec, (0, 0), 0, 1, payload)
    ledger.seal(spec, (0, 0), 1)
    return watched.client.job(id)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that fails is sent again soon."""
    monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", "0.3")
    settings.cache_clear()


def test_a_chunk_that_can_t_be_read_ends_its_job(watched: Watched, quick: None) -> None:
    """With a line for each attempt, and the reason in the job's record."""
    job = submit_payload(watched, encode(pa.record_batch({"id": ["a"], "x": [b"x"]})))
    with pytest.raises(JobFailedError, match=r"a chunk is damaged \(its columns are id, x\)"):
        job.table()
    watched.check()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 10, 11, 12])
def test_thousands_of_messages(watched: Watched, seed: int) -> None:
    """Whatever is in a message, and in whichever list."""
    source = random.Random(seed)
    for _ in range(MESSAGES // 300):
        job = watched.client.submit(DIGITS, detached=True)
        for _ in range(300):
            drawn = draw_message(source, job.id, TEXT)
            watched.redis.lpush(source.choice(LISTS), drawn)
        watched.check()
        job.cancel()
        watched.redis.delete(DEFAULT_QUEUE)
    wait_for(lambda: not watched.redis.exists(*LISTS))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", NUMBER])
def test_hundreds_of_chunks(watched: Watched, quick: None, model: str) -> None:
    """With changed names and types of columns, and changed bytes."""
    source = random.Random(2)
    images = pa.array([encode_image(draw_one())] * 2, pa.binary())
    pixels = pa.array([bytes(784)] * 2, PIXELS_FIELD.type)
    batches = [
        pa.record_batch({"id": ["a", "b"], "image": images}),
        pa.record_batch({"id": ["a", "b"], "pixels": pixels, "error": pa.array(["x", None])}),
    ]
    lists = b"", b"", b"", b"x", b"[5, 5]", b'["(", ""]\n\xff'  # what is known of numbers
    jobs = [
        submit_payload(
            watched, draw_batch(source, source.choice(batches)), model, source.choice(lists)
        )
        for _ in range(CHUNKS)
    ]

    def has_all_done() -> bool:
        for job in jobs:  # the worker's own deadline is longer
            watched.client.ledger.sweep_job(job.id, settings().deadline_seconds)
        return not any(job.progress().is_active for job in jobs)

    wait_for(has_all_done, seconds=150, pause_seconds=0.5)
    watched.check()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["csv", "jsonl", "parquet", "xlsx"])
def test_hundreds_of_results(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    """Whoever collects them gets an error that says what is wrong, or rows."""
    source = random.Random(3)
    job = watched.client.submit(DIGITS[:5], detached=True)
    good = job.table().to_batches()[0]
    key = f"{record_key(job.id)}:results"
    for number in range(RESULTS):
        watched.redis.hset(key, 0, draw_batch(source, good))
        with suppress(DigitqError):
            watched.client.job(job.id).table()
        if number < 50:
            out = str(tmp_path / f"{number}.{end}")
            with suppress(SystemExit):
                main(["collect", job.id, "-o", out, "--broker", watched.local.url])
            assert "Traceback" not in capsys.readouterr().err
    watched.check()
