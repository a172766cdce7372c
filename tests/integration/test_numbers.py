"""Whole numbers through Redis: what is known of them travels once a job and goes with it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import digitq
from digitq import Client
from digitq.private.processes import Local
from digitq.producer.sources.opening import open_sources
from digitq.protocol.broker.connection import connect
from digitq.protocol.errors import BrokerError
from digitq.protocol.keys import CALLS_QUEUE, record_key
from digitq.protocol.ledger import Ledger
from digitq.protocol.settings import settings
from digitq.worker import tasks
from tests.reading_numbers import reader_of_texts
from tests.waiting import wait_for


@pytest.fixture
def number_client(redis_only: Local, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a Redis whose worker is this process."""
    ledger = Ledger(connect(redis_only.url))
    monkeypatch.setattr(tasks, "ledger", lambda: ledger)
    monkeypatch.setattr(tasks, "ledger_without_retry", lambda: ledger)
    tasks.lists.clear()
    with reader_of_texts(), Client(redis_only.url) as client:
        yield client


def test_a_job_of_numbers(number_client: Client, tmp_path: Path) -> None:
    for name, text in [("1.png", b"007"), ("2.png", b"42"), ("3.png", b"text")]:
        (tmp_path / name).write_bytes(text)
    source = open_sources(tmp_path)
    allowed = ["42", "43"]
    job = number_client.submit_source(source, digitq.numbers(allowed=allowed), detached=True)
    assert job.wait_until_stored(20)
    key, redis = f"{record_key(job.id)}:known", number_client.ledger.redis
    assert redis.get(key) == b"\n42\n43" and 0 < redis.ttl(key) <= 7 * 86400
    stored = redis.hget(f"{record_key(job.id)}:chunks", 0)
    assert job.progress().bytes == len(stored) + len(b"\n42\n43")
    assert job.progress().model == "number"
    assert "3 of 3 (100 %)" in tasks.classify(job.id, 0)
    assert job.progress().state == "done" and job.progress().bytes == 0
    assert not redis.exists(key)
    table = number_client.job(job.id).table()
    assert table.column("number").to_pylist() == ["007", "42", None]
    assert table.column("reason").to_pylist() == ["not allowed", None, "error"]


def test_a_cancelled_job_leaves_nothing_that_was_known(number_client: Client) -> None:
    job = number_client.submit([b"1"], digitq.numbers(length="3-6"), detached=True)
    assert job.wait_until_stored(20)
    key = f"{record_key(job.id)}:known"
    assert number_client.ledger.redis.get(key) == rb'["\\d{3,6}", ""]'
    job.cancel()
    assert not number_client.ledger.redis.exists(key)


def test_what_redis_lost_is_no_free_reading(number_client: Client) -> None:
    """The chunk is tried again, and whoever feeds the job stores what is known again."""
    job = number_client.submit([b"1"], digitq.numbers(length=1))
    redis = number_client.ledger.redis
    wait_for(lambda: redis.llen("digitq"))
    redis.delete(f"{record_key(job.id)}:known")
    with pytest.raises(BrokerError, match="has lost what is known"):
        tasks.classify(job.id, 0)
    redis.flushall()
    assert job._attached_feeder
    job._attached_feeder.repair()
    assert redis.get(f"{record_key(job.id)}:known") == rb'["\\d{1}", ""]'
    assert "1 of 1 (100 %)" in tasks.classify(job.id, 0)
    assert job.table().column("number").to_pylist() == ["1"]


def test_a_small_budget_is_not_filled_by_a_list(
    number_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_BUDGET_BYTES", "100")
    settings.cache_clear()
    allowed = [f"{number:09}" for number in range(1000)]
    job = number_client.submit([b"1"], digitq.numbers(allowed=allowed), detached=True)
    assert job.wait_until_stored(20)


def test_no_rows_have_the_columns_of_numbers(number_client: Client) -> None:
    table = number_client.submit([], digitq.numbers()).table()
    assert table.num_rows == 0 and "number" in table.schema.names


def test_single_calls_of_numbers(number_client: Client) -> None:
    redis = number_client.ledger.redis
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(number_client.classify, b"12", digitq.numbers(allowed=["12"]))
        free = pool.submit(number_client.classify, b"12", digitq.numbers())
        for _ in range(2):
            wait_for(lambda: redis.llen(CALLS_QUEUE))
            message = json.loads(redis.rpop(CALLS_QUEUE))
            tasks.classify(*json.loads(message["body"])[0])
        found = answer.result(20), free.result(20)
    assert [one.number for one in found] == ["12", "12"]
    assert not redis.keys("digitq:job:*")
