"""`Client` on a real Redis with two real workers."""

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import numpy as np
import pyarrow as pa
import pytest
import torch

import digitq
import digitq.producer.client
import digitq.producer.job
from digitq import Client
from digitq.private.processes import Local
from digitq.producer import batching, chunking, feeder, open_sources
from digitq.producer.feeder import Feeder
from digitq.producer.job import MAX_RESULTS
from digitq.producer.sources import contents
from digitq.protocol import records
from digitq.protocol.chunk import RESULT_SCHEMA, decode, encode, encode_truth
from digitq.protocol.errors import (
    BrokerError,
    DigitqError,
    JobAbandonedError,
    JobCancelledError,
    JobFailedError,
    ResultsExpiredError,
    UnknownJobError,
    UsageError,
)
from digitq.protocol.keys import CALLS_QUEUE, QUEUE, record_key
from digitq.protocol.records import ChunkResult, JobSpec
from digitq.protocol.settings import settings
from digitq.worker.models.model import load_model
from tests.drawing import draw_one, encode_image, random_digits
from tests.waiting import wait_for

DIGITS = random_digits(5000)
torch.set_num_threads(1)  # as in a worker: the last bits change with the number of threads
EXPECTED = load_model("mlp").classify(DIGITS.reshape(-1, 784))


def probabilities(table: pa.Table) -> np.ndarray:
    return np.array(table.column("probabilities").to_pylist(), np.float32)


def forget_all(redis: Any) -> None:
    """Redis loses everything at once, but not the bindings of workers that tests share."""
    redis.eval("return redis.call('DEL', unpack(redis.call('KEYS', 'digitq*')))", 0)


def test_an_array_s_answers_are_the_network_s(client: Client) -> None:
    table = client.submit(DIGITS).table()
    assert table.column("id").to_pylist() == [str(n) for n in range(5000)]
    assert np.array_equal(probabilities(table), EXPECTED)


def test_a_submitter_that_waits_is_not_gone(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(records, "SUBMITTER_SECONDS", 1)
    go_on = threading.Event()

    def slowly() -> Iterator[np.ndarray]:
        yield DIGITS[0]
        go_on.wait()
        yield DIGITS[1]

    job = client.submit(slowly(), detached=True)
    wait_for(lambda: job.progress().seconds > 2.5)
    assert job.progress().state == "feeding"
    go_on.set()
    assert job.wait_until_stored() and len(job.table()) == 2


def test_a_submitter_is_not_gone_as_soon_as_its_heartbeat_is_old(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is on each job if the clock of Redis is set forward, or if its machine has slept."""
    client = Client(redis_only.url)
    ledger, spec = client.ledger, JobSpec("j", "mlp", "test", attached=False, in_flight=2, ttl=60)
    row = pa.RecordBatch.from_pylist([{"id": "0", "review": False}], RESULT_SCHEMA)

    def fall_silent() -> None:
        ledger.redis.hset(record_key("j"), "fed", ledger.redis.time()[0] - 3600)

    def store(number: int) -> None:
        ledger.dispatch(spec, (0, 0), number, 1, b"chunk")
        assert ledger.begin("j", number)
        assert ledger.complete("j", number, ChunkResult(encode(row), 0, "pixels", 0, 0))

    store(0)
    fall_silent()
    job = client.job("j")
    results = job.results()
    assert job.progress().state == "abandoned" and next(results).num_rows == 1
    assert not job.wait_until_stored(timeout_seconds=0)

    def go_on() -> None:
        store(1)
        fall_silent()
        ledger.seal(spec, (0, 0), 2)

    later = threading.Timer(0.2, go_on)
    later.start()
    assert [batch.num_rows for batch in results] == [1]
    later.join()
    monkeypatch.setattr(digitq.producer.job, "GONE_SECONDS", 0.1)
    ledger.redis.hset(record_key("j"), "state", "feeding")
    with pytest.raises(JobAbandonedError, match="its submitter is gone"):
        job.wait_until_stored()


@pytest.mark.parametrize("by_another", [False, True])
def test_an_attached_job_that_is_cancelled_is_fed_no_more(
    by_another: bool, redis_only: Local
) -> None:
    """Though its window is full, and no result comes."""
    client = Client(redis_only.url)
    job = client.submit(itertools.repeat(DIGITS))
    wait_for(lambda: job.waiting_for == "results")
    canceller = Client(redis_only.url).job(job.id) if by_another else job
    canceller.cancel()
    with pytest.raises(JobCancelledError):
        next(job.results())
    feeder = job._feeder
    assert feeder
    wait_for(lambda: not feeder.is_alive())


def test_why_workers_gave_up_on_a_job_is_told() -> None:
    with Local(workers=0) as local:
        client = Client(local.url)
        for detached in (False, True):
            job = client.submit(DIGITS, detached=detached)
            job.wait_until_stored()
            client.ledger.give_up(job.id, "a worker can't")
            with pytest.raises(JobFailedError, match=f"{job.id} has failed: a worker can't"):
                job.table()
            assert job.progress().state == "failed"


def test_one_image(client: Client) -> None:
    answer = client.classify(DIGITS[0])
    assert answer.label == EXPECTED[0].argmax() and answer.error is None
    assert answer.probabilities and sum(answer.probabilities) == pytest.approx(1, abs=1e-6)
    assert answer.confidence == max(answer.probabilities)
    bad = client.classify(b"text")
    assert (bad.label, bad.error) == (None, "not an image that can be read")


def test_the_random_network_is_another(client: Client) -> None:
    table = client.submit(DIGITS[:64], digitq.digits("random")).table()
    assert np.array_equal(
        probabilities(table), load_model("random").classify(DIGITS[:64].reshape(-1, 784))
    )
    with pytest.raises(UsageError, match="there are: mlp, cnn, random"):
        client.submit(DIGITS, digitq.digits("cnn9"))


def test_results_come_while_the_source_is_still_read(client: Client) -> None:
    first_came = threading.Event()

    def images() -> Iterator[np.ndarray]:
        yield DIGITS[:2048]
        yield DIGITS[2048:4096]
        assert first_came.wait(60)
        yield DIGITS[4096:]

    rows = 0
    for batch in client.submit(images()).results():
        first_came.set()
        rows += batch.num_rows
    assert rows == 5000


def test_the_window_bounds_what_redis_holds(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_WINDOW_CHUNKS", "4")
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "64")
    monkeypatch.setenv("DIGITQ_BUDGET_BYTES", "1")
    settings.cache_clear()
    client = Client(local.url)
    job = client.submit(DIGITS)
    wait_for(lambda: job.waiting_for == "results" and job.progress().done_chunks == 4)
    assert job.progress().chunks == 4
    batches, held = [], []
    for batch in job.results():
        batches.append(batch)
        held.append(client.ledger.redis.hlen(f"{record_key(job.id)}:results"))
    assert np.array_equal(probabilities(pa.Table.from_batches(batches)), EXPECTED)
    assert max(held) <= 4 + MAX_RESULTS  # and those that are being taken


@pytest.mark.parametrize("detached", [False, True])
def test_all_workers_have_something_to_do(
    detached: bool, redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are."""
    monkeypatch.setattr(digitq.producer.client, "IN_FLIGHT_CHUNKS", 2)
    monkeypatch.setenv("DIGITQ_WINDOW_CHUNKS", "2")
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "64")
    settings.cache_clear()
    client = Client(redis_only.url)
    job = client.submit(DIGITS, detached=detached)
    for number in range(20):
        wait_for(lambda: client.ledger.redis.rpop(QUEUE))
        assert client.ledger.begin(job.id, number)
        if number:  # the oldest chunk takes long
            assert client.ledger.complete(job.id, number, ChunkResult(b"", 0, "pixels", 0, 0))
    wait_for(lambda: client.ledger.redis.llen(QUEUE))
    if not detached:
        wait_for(lambda: job.waiting_for == "results")
        assert job.progress().chunks < 40
    job.cancel()


def test_an_attached_job_leaves_only_its_record(client: Client) -> None:
    threads = threading.active_count()
    job = client.submit(DIGITS)
    job.table()
    wait_for(lambda: threading.active_count() <= threads)
    keys = client.ledger.redis.keys(f"digitq:job:{job.id}*")
    assert set(keys) - {f"digitq:job:{job.id}:done".encode()} == {f"digitq:job:{job.id}".encode()}
    assert job.progress().state == "collected" and job.progress().done_images == 5000


def test_a_detached_job_is_collected_anywhere_and_twice(client: Client, local: Local) -> None:
    job = client.submit(DIGITS, detached=True)
    assert job.wait_until_stored(timeout_seconds=60)
    for _ in range(2):
        table = Client(local.url).job(job.id).table()
        assert np.array_equal(probabilities(table), EXPECTED)
    assert 0 < client.ledger.redis.ttl(f"digitq:job:{job.id}:results") <= 3600
    client.ledger.redis.delete(f"digitq:job:{job.id}:results")
    with pytest.raises(ResultsExpiredError, match="Redis no longer keeps the results"):
        client.job(job.id).table()


@pytest.mark.parametrize("detached", [False, True])
def test_right_answers_do_not_travel_to_a_worker(
    client: Client, tmp_path: Path, detached: bool
) -> None:
    """Redis keeps those of a detached job for whoever collects it."""
    (tmp_path / "1").mkdir()
    draw_one().save(tmp_path / "1" / "a.png")
    source = open_sources(tmp_path, truth_from_parent=True)
    job = client.submit_source(source, detached=detached)
    key, redis = record_key(job.id), client.ledger.redis
    wait_for(lambda: redis.hexists(f"{key}:results", 0))
    assert "truth" not in decode(redis.hget(f"{key}:results", 0)).schema.names
    assert redis.exists(f"{key}:truths") == detached
    collected = client.job(job.id) if detached else job
    assert collected.table().column("truth").to_pylist() == [1]
    assert (0 < redis.ttl(f"{key}:truths") <= 3600) == detached
    job.cancel()
    assert not redis.exists(f"{key}:truths")


def test_a_result_never_comes_without_its_right_answers(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk may be stored and answered between two round trips of whoever collects the job."""
    client = Client(redis_only.url)
    ledger, spec = client.ledger, JobSpec("0123456789ab", "mlp", "test", False, 1, ttl=60)
    payload = encode(pa.RecordBatch.from_pylist([{"id": "0", "review": False}], RESULT_SCHEMA))
    read = ledger.results

    def answer_and_read(*wanted: Any, **options: Any) -> Any:
        if ledger.record(spec.id).state == "feeding":
            truth = encode_truth(pa.array([7], pa.int8()))
            ledger.dispatch(spec, (0, 0), 0, 1, b"chunk", truth)
            ledger.seal(spec, (0, 0), 1)
            assert ledger.begin(spec.id, 0)
            assert ledger.complete(spec.id, 0, ChunkResult(payload, 0, "pixels", 0, 0))
        return read(*wanted, **options)

    ledger.open(spec)
    monkeypatch.setattr(ledger, "results", answer_and_read)
    assert client.job(spec.id).table().column("truth").to_pylist() == [7]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_result_with_other_rows_than_its_chunk_is_noticed(redis_only: Local, rows: int) -> None:
    """A row would be missing, or be there twice, in silence."""
    row = {"id": "0", "review": False}
    payload = encode(pa.RecordBatch.from_pylist([row] * rows, RESULT_SCHEMA))
    client = Client(redis_only.url)

    def answer(job_id: str) -> None:
        assert client.ledger.begin(job_id, 0)
        assert client.ledger.complete(job_id, 0, ChunkResult(payload, 0, "pixels", 0, 0))

    attached, detached = (client.submit(DIGITS[:2], detached=end) for end in (False, True))
    wait_for(lambda: attached.progress().is_fed and detached.progress().is_fed)
    answer(attached.id)
    noun = f"row{'s' * (rows > 1)}"
    with pytest.raises(BrokerError, match=f"damaged .it has {rows} {noun}, and its chunk 2.: subm"):
        attached.table()
    answer(detached.id)
    for job in (detached, Client(redis_only.url).job(detached.id)):
        with pytest.raises(BrokerError, match=f"have {rows} {noun}, and its chunks 2: submit the"):
            job.table()
    with ThreadPoolExecutor() as pool:
        call = pool.submit(client.classify, DIGITS[0])
        wait_for(lambda: client.ledger.redis.llen(CALLS_QUEUE))
        (job_id,) = client.ledger.active()
        answer(job_id)
        if rows != 1:
            with pytest.raises(BrokerError, match=f"it has {rows} rows, and its chunk 1"):
                call.result()


def test_an_attached_job_is_its_submitter_s(client: Client) -> None:
    job = client.submit(DIGITS[:64])
    job.table()
    with pytest.raises(UsageError, match="collected by the process that submitted it"):
        next(client.job(job.id).results())


def test_a_cancelled_job_ends(client: Client) -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield DIGITS

    job = client.submit(endless())
    results = job.results()
    next(results)
    job.cancel()
    with pytest.raises(JobCancelledError):
        for _ in results:
            pass
    assert client.ledger.redis.keys(f"digitq:job:{job.id}:c*") == []
    wait_for(lambda: client.ledger.redis.llen(QUEUE) == 0)


@pytest.mark.parametrize("detached", [False, True])
def test_what_a_source_raises_is_the_submitter_s_and_ends_the_job(
    detached: bool, client: Client
) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield DIGITS
        raise ZeroDivisionError("broken")

    job = client.submit(broken(), detached=detached)
    with pytest.raises(ZeroDivisionError, match="broken"):
        job.wait_until_stored()
    rows = 0
    with pytest.raises(ZeroDivisionError, match="broken"):
        for batch in job.results():
            rows += batch.num_rows
    assert rows == (0 if detached else len(DIGITS))
    wait_for(lambda: job.progress().state == "cancelled")
    with pytest.raises(ZeroDivisionError, match="broken"):
        job.table()


def test_an_unknown_job(client: Client) -> None:
    with pytest.raises(UnknownJobError, match="no job 'x'"):
        client.job("x")


def test_jobs_are_listed_in_order(client: Client) -> None:
    ids = [client.submit(DIGITS[:8], detached=True) for _ in range(3)]
    for job in ids:
        job.table()
    assert [record.id for record in client.jobs()][-3:] == [job.id for job in ids]


def test_a_small_job_does_not_wait_behind_a_large_one(client: Client) -> None:
    def many() -> Iterator[np.ndarray]:
        for _ in range(10):
            yield DIGITS

    large = client.submit(many(), digitq.digits("cnn"), detached=True)
    large.wait_until_stored()
    client.submit(DIGITS[:64]).table()
    assert large.progress().done_images < 50_000
    large.cancel()


def test_an_empty_job_has_no_rows(client: Client) -> None:
    assert client.submit([]).table().num_rows == 0
    detached = client.submit([], detached=True)
    assert detached.table().num_rows == 0 and detached.progress().state == "done"


def test_results_go_on_where_they_were_left(client: Client) -> None:
    job = client.submit(DIGITS)
    first = next(job.results())
    rest = job.table()
    assert first.num_rows + rest.num_rows == 5000
    assert rest.column("id")[0].as_py() == str(first.num_rows)
    assert list(job.results()) == []


def test_a_submitter_that_is_gone_is_not_waited_for(client: Client) -> None:
    job = client.submit(DIGITS[:64], detached=True)
    job.wait_until_stored()
    record = f"digitq:job:{job.id}"
    wait_for(lambda: job.progress().state == "done")
    client.ledger.redis.hset(record, mapping={"state": "feeding", "fed": 1})
    with pytest.raises(DigitqError, match="its submitter is gone"):
        client.job(job.id).table()


def test_a_detached_job_waits_at_its_budget(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_BUDGET_BYTES", str(2 << 20))
    client = Client(redis_only.url)
    job = client.submit(np.concatenate([DIGITS] * 4), detached=True)
    wait_for(lambda: "MB of images are queued" in (job.waiting_for or ""))
    assert 2 << 20 <= job.progress().bytes < 5 << 20
    Client(redis_only.url).job(job.id).cancel()  # from elsewhere
    with pytest.raises(JobCancelledError):
        job.wait_until_stored(60)


def test_a_full_redis_is_left_room(redis_only: Local) -> None:
    client = Client(redis_only.url)
    client.ledger.redis.config_set("maxmemory", "8mb")
    job = client.submit(np.concatenate([DIGITS] * 4), detached=True)
    wait_for(lambda: "of its maxmemory is used" in (job.waiting_for or ""))
    assert client.ledger.redis.info("memory")["used_memory"] < 8 << 20
    job.cancel()


def test_a_table_that_was_broken_off_can_be_asked_for_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = client.submit(DIGITS)
    results, broken = job.results, threading.Event()

    def break_off() -> Iterator[pa.RecordBatch]:
        for batch in results():
            yield batch
            if not broken.is_set():
                broken.set()
                raise KeyboardInterrupt

    monkeypatch.setattr(job, "results", break_off)
    with pytest.raises(KeyboardInterrupt):
        job.table()
    assert np.array_equal(probabilities(job.table()), EXPECTED)
    assert job.table() is job.table()


def test_a_job_that_nobody_holds_any_longer_is_cancelled(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = threading.active_count()
    for batch in client.submit(itertools.repeat(DIGITS)).results():
        assert batch.num_rows
        break
    wait_for(lambda: threading.active_count() <= threads)
    assert client.jobs()[-1].state == "cancelled"
    assert client.ledger.active() == []


def test_a_feeder_that_can_t_start_its_thread_says_so(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, start = Client(redis_only.url), threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if not isinstance(thread, Feeder):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        client.submit(DIGITS).table()
    wait_for(lambda: client.jobs()[-1].state == "cancelled")


def test_a_job_that_can_t_be_fed_leaves_nothing(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(redis_only.url)
    monkeypatch.setattr(Feeder, "start", Mock(side_effect=RuntimeError("can't start new thread")))
    with pytest.raises(RuntimeError, match="can't start new thread"):
        client.submit(DIGITS)
    assert client.jobs()[-1].state == "cancelled"


def test_what_redis_loses_at_the_last_moment_is_stored_again(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(redis_only.url)
    flush = Mock(side_effect=lambda job_id: client.ledger.redis.flushall())
    monkeypatch.setattr(client.ledger, "flush", flush)
    job = client.submit(DIGITS, detached=True)
    assert job.wait_until_stored(60)
    assert flush.mock_calls == [call(job.id)]
    record = job.progress()
    assert (record.state, record.images) == ("running", 5000)


def test_what_redis_loses_later_is_stored_again_whole(redis_only: Local) -> None:
    client = Client(redis_only.url)
    job = client.submit(DIGITS)
    assert job._feeder and job.wait_until_stored(60)
    redis = client.ledger.redis
    forget_all(redis)
    job._feeder.repair()  # as whoever waits for results does
    record = job.progress()
    assert (record.state, record.images) == ("running", 5000)


def test_a_redis_that_forgets_all_costs_no_image(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is collected already is not asked for."""
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "512")
    settings.cache_clear()
    job = client.submit(DIGITS)
    first = next(job.results())
    redis = client.ledger.redis
    forget_all(redis)
    table = pa.concat_tables([pa.Table.from_batches([first]), job.table()])
    assert np.array_equal(probabilities(table), EXPECTED)


def test_messages_that_are_lost_are_sent_again_while_results_are_waited_for(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", "0.01")
    settings.cache_clear()
    client = Client(redis_only.url)
    job = client.submit(DIGITS)
    job.wait_until_stored()
    assert client.ledger.redis.delete(QUEUE)
    wait = partial(pytest.raises, JobCancelledError, job.table)
    reader = threading.Thread(target=wait, daemon=True)
    reader.start()
    wait_for(lambda: client.ledger.redis.llen(QUEUE) == job.progress().chunks)
    Client(redis_only.url).job(job.id).cancel()
    reader.join()


def test_what_is_lost_and_no_longer_kept_is_told(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a detached job no more is kept than of an attached one."""
    monkeypatch.setenv("DIGITQ_WINDOW_CHUNKS", "2")
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "4")
    settings.cache_clear()
    client, go_on = Client(redis_only.url, retry_seconds=0), threading.Event()

    def images() -> Iterator[np.ndarray]:
        yield DIGITS[:20]
        assert go_on.wait(20)
        yield DIGITS[:20]

    job = client.submit(images(), detached=True)
    wait_for(lambda: job.progress().chunks == 5)
    assert job._feeder and len(job._feeder._window) == 2
    redis = client.ledger.redis
    forget_all(redis)
    go_on.set()
    with pytest.raises(BrokerError, match=f"Redis has lost chunk 0 of job {job.id}, which"):
        job.wait_until_stored(60)
    assert job.progress().state == "cancelled"


def test_what_a_slow_source_gave_is_not_kept_waiting(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "PENDING_SECONDS", -1.0)
    monkeypatch.setattr(contents, "GATHER_FILES_SECONDS", -1.0)
    for images in (itertools.repeat(DIGITS[0]), itertools.repeat(encode_image(draw_one()))):
        job = client.submit(images)
        assert next(job.results()).num_rows == 1
        job.cancel()


def test_two_readers_of_an_attached_job_are_told(client: Client) -> None:
    job = client.submit(DIGITS)
    first, second = job.results(), job.results()
    next(first)
    next(second)
    with pytest.raises(UsageError, match="read once, by one reader"):
        next(first)


def test_a_job_is_waited_for_until_another_has_stored_it(client: Client, local: Local) -> None:
    go_on = threading.Event()

    def slowly() -> Iterator[np.ndarray]:
        yield DIGITS[:64]
        go_on.wait()

    job = client.submit(slowly(), detached=True)
    other = Client(local.url).job(job.id)
    assert not other.wait_until_stored(timeout_seconds=0.1)
    go_on.set()
    assert other.wait_until_stored(timeout_seconds=60) and len(other.table()) == 64


def test_a_process_does_not_end_before_its_detached_job_is_in_redis(client: Client) -> None:
    code = f"""
import itertools, time, numpy as np
from digitq import Client

def slowly():
    for _ in range(3):
        time.sleep(0.2)
        yield np.zeros((28, 28), np.uint8)

with Client({client.url!r}) as client:
    print(client.submit(slowly(), detached=True).id)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert not done.stderr
    assert len(client.job(done.stdout.strip()).table()) == 3


@pytest.mark.parametrize("interrupted", [False, True])
def test_no_feeder_is_at_work_as_its_process_ends(redis_only: Local, interrupted: bool) -> None:
    """In Arrow's code, it would end the process by SIGABRT."""
    code = f"""
import atexit, itertools, threading, numpy as np
atexit.register(lambda: print(threading.enumerate()))  # after all that comes later
from digitq import Client
from digitq.producer import feeder

def interrupt(thread, timeout):
    del feeder.Feeder.join
    raise KeyboardInterrupt

feeder.EXIT_SECONDS = 60  # a busy machine is no failure
if {interrupted}:
    feeder.Feeder.join = interrupt
digits = itertools.repeat(np.zeros((28, 28), np.uint8))
job = Client({redis_only.url!r}).submit(digits, detached={interrupted})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.endswith("KeyboardInterrupt: \n") if interrupted else not done.stderr
    assert "MainThread" in done.stdout and "feeder" not in done.stdout
    (job,) = Client(redis_only.url).jobs()
    assert job.state == ("feeding" if interrupted else "cancelled")  # the first is detached


def test_an_attached_job_whose_source_stands_still_ends_with_its_process(redis_only: Local) -> None:
    code = f"""
import threading
from digitq import Client

def stand_still():
    threading.Event().wait()
    yield

job = Client({redis_only.url!r}).submit(iter(stand_still()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    (job,) = Client(redis_only.url).jobs()
    assert job.state == "cancelled"


def test_a_detached_job_that_nobody_waits_for_tells_why_it_is_not_whole(
    redis_only: Local, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield DIGITS
        raise OSError("unplugged")

    client = Client(redis_only.url)
    job_id = client.submit(broken(), detached=True).id
    wait_for(lambda: f"job {job_id} is incomplete: unplugged" in caplog.messages)
    with pytest.raises(JobCancelledError, match="cancelled: its source failed: unplugged"):
        client.job(job_id).table()


def test_a_redis_that_is_full_is_told_in_plain_words(redis_only: Local) -> None:
    client = Client(redis_only.url, retry_seconds=0)
    client.ledger.redis.config_set("maxmemory", 1)
    with pytest.raises(BrokerError, match=r"is full: collect or cancel jobs .*maxmemory$"):
        client.submit(DIGITS)
    with pytest.raises(BrokerError, match="is full: collect"):
        client.classify(DIGITS[0])


def test_what_is_waited_for_is_logged(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (batching, digitq.producer.job):
        monkeypatch.setattr(module, "LOGGED_CHECKS", 1)
    client = Client(redis_only.url)
    with pytest.raises(TimeoutError):
        client.classify(DIGITS[0], timeout_seconds=2)
    wait_for(lambda: "1 image waiting for a worker" in caplog.messages)
    job = client.submit(DIGITS)
    reader = threading.Thread(target=lambda: pytest.raises(JobCancelledError, job.table))
    reader.start()
    wait_for(lambda: f"job {job.id} waits for a worker" in caplog.messages)
    job.cancel()
    reader.join()


def test_the_table_of_a_detached_job_is_the_same_for_all_who_ask(client: Client) -> None:
    job = client.submit(DIGITS, detached=True)
    with ThreadPoolExecutor(4) as threads:
        tables = [*threads.map(lambda _: job.table(), range(4))]
    assert [table.num_rows for table in tables] == [len(DIGITS)] * 4


def test_a_second_reader_of_an_attached_job_is_refused(client: Client) -> None:
    job = client.submit(itertools.repeat(DIGITS[:2000], 4))
    reader = job.results()
    next(reader)
    assert job.table().num_rows > 0
    with pytest.raises(UsageError, match="its results can be read once, by one reader"):
        next(reader)


def in_fork(target: Callable[[], None]) -> int | None:
    """The exit status of a forked process."""
    process = get_context("fork").Process(target=target)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_does_not_read_an_attached_job(client: Client) -> None:
    job = client.submit(DIGITS)

    def read() -> None:
        with pytest.raises(UsageError, match="by one reader"):
            job.table()

    assert in_fork(read) == 0
    assert job.table().num_rows == len(DIGITS)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_detached_job_of_a_fork_is_whole(local: Local) -> None:
    """A forked process ends in another way than Python does, and its job lives on all the same."""
    Client(local.url).submit(DIGITS, detached=True)  # this process sees to its own
    before = {job.id for job in Client(local.url).jobs()}

    def submit() -> None:
        Client(local.url).submit(itertools.repeat(DIGITS, 20), detached=True)

    assert in_fork(submit) == 0
    (record,) = [job for job in Client(local.url).jobs() if job.id not in before]
    assert record.state in ("running", "done") and record.images == 20 * len(DIGITS)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_may_wait_for_a_detached_job_of_before(client: Client) -> None:
    job = client.submit(itertools.repeat(DIGITS, 4), detached=True)

    def wait() -> None:
        assert job.wait_until_stored(60)
        assert job.progress().images == 4 * len(DIGITS)

    assert in_fork(wait) == 0


def test_what_a_source_gave_before_it_raised_is_classified(client: Client) -> None:
    """The images of the last, small chunk, too."""
    threads = threading.active_count()

    def broken() -> Iterator[np.ndarray]:
        yield from DIGITS[:10]
        raise ZeroDivisionError("broken")

    rows = 0
    with pytest.raises(ZeroDivisionError):
        for batch in client.submit(broken()).results():
            rows += batch.num_rows
    assert rows == 10
    wait_for(lambda: threading.active_count() <= threads)


def test_a_job_whose_source_raised_leaves_no_thread(client: Client) -> None:
    """Though nobody reads what it gave before."""
    threads = threading.active_count()

    def broken() -> Iterator[np.ndarray]:
        yield DIGITS
        raise ZeroDivisionError("broken")

    job = client.submit(broken())
    with pytest.raises(ZeroDivisionError):
        job.wait_until_stored()
    wait_for(lambda: threading.active_count() <= threads)


def test_a_source_is_closed_as_its_job_is_cancelled(client: Client) -> None:
    closed = threading.Event()

    def images() -> Iterator[np.ndarray]:
        try:
            while True:
                yield DIGITS
        finally:
            closed.set()

    job = client.submit(images())
    next(job.results())
    job.cancel()
    assert closed.wait(60)
