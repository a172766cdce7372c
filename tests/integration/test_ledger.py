"""The ledger's steps, one by one, on a real Redis."""

import json
import logging
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from digitq.private.processes import Local
from digitq.protocol.app import CLASSIFY, CLASSIFY_IMAGE, make_app
from digitq.protocol.asked.known import name_known
from digitq.protocol.asked.own_network import OwnNetwork
from digitq.protocol.broker.connection import Command, RetryingRedis, connect
from digitq.protocol.chunk import Kind
from digitq.protocol.errors import BrokerError, JobCancelledError, JobFailedError, UnknownJobError
from digitq.protocol.keys import (
    ACTIVE,
    BOOKED_QUEUE,
    CALLS_QUEUE,
    COUNTERS,
    IMAGES_QUEUE,
    JOBS,
    NETWORK,
    QUEUE,
    SWEEPING,
    WATERMARK,
    lists_of,
    record_key,
)
from digitq.protocol.ledger import Ledger
from digitq.protocol.ledger.script import (
    MAX_BOOKED,
    MAX_BOOKED_BYTES,
    MAX_SWEPT,
    QUICK_ATTEMPTS,
    RESULT_SECONDS,
)
from digitq.protocol.overview import look_around
from digitq.protocol.records import ChunkResult, JobSpec
from digitq.worker.celery import log_ends

SPEC = JobSpec("j", "mlp", "test", attached=False, in_flight=2, ttl=60)
START = (0, 0)


@pytest.fixture(scope="module")
def server() -> Iterator[RetryingRedis]:
    with Local(workers=0) as local, connect(local.url) as client:
        yield client


@pytest.fixture
def ledger(server: RetryingRedis) -> Ledger:
    server.flushall()
    return Ledger(server)


def store(ledger: Ledger, *numbers: int, spec: JobSpec = SPEC) -> None:
    for number in numbers:
        stored, _ = ledger.dispatch(spec, START, number, 10, b"chunk %d" % number)
        assert stored > number


def take_messages(ledger: Ledger) -> list[int]:
    """Empty the queue of jobs; returns the numbers of the chunks, the oldest message first."""
    messages = ledger.redis.lrange(QUEUE, 0, -1)[::-1]
    ledger.redis.delete(QUEUE)
    return [json.loads(json.loads(message)["body"])[0][1] for message in messages]


def result(
    payload: bytes, failed: int = 0, silent_seconds: float = 0.1, **others: Any
) -> ChunkResult:
    return ChunkResult(payload, failed, "pixels", 0, silent_seconds, **others)


def take(ledger: Ledger, job_id: str) -> bytes | None:
    return ledger.take(job_id, wait_seconds=0.01)


def complete(ledger: Ledger, number: int, failed: int = 0) -> bool:
    return bool(ledger.complete("j", number, result(b"result %d" % number, failed)))


def test_only_a_few_chunks_are_published_at_a_time(ledger: Ledger) -> None:
    store(ledger, 0, 1, 2, 3)
    assert ledger.begin("j", 0) is not None
    assert ledger.redis.llen(QUEUE) == 2
    assert complete(ledger, 0) and ledger.redis.llen(QUEUE) == 3
    assert complete(ledger, 1) and ledger.redis.llen(QUEUE) == 4
    assert complete(ledger, 2) and take_messages(ledger) == [0, 1, 2, 3]


def test_more_are_published_where_the_workers_have_taken_all(ledger: Ledger) -> None:
    store(ledger, 0, 1, 2)
    assert take_messages(ledger) == [0, 1]
    store(ledger, 3)
    assert take_messages(ledger) == [2]  # more than the two, since the queue is empty
    assert complete(ledger, 0) and take_messages(ledger) == [3]


def test_a_message_is_as_celery_writes_it(ledger: Ledger) -> None:
    """Except for fields that workers do not need."""
    store(ledger, 0)
    ours = json.loads(ledger.redis.rpop(QUEUE))
    app = make_app(ledger.redis.url)
    app.conf.result_backend = "disabled"  # the message is the same
    app.send_task(
        CLASSIFY,
        ("j", 0),
        task_id=ours["headers"]["id"],
        argsrepr="job j, chunk 0, 10 images",
        kwargsrepr="",
    )
    theirs = json.loads(ledger.redis.rpop(QUEUE))
    theirs["properties"]["delivery_tag"] = ours["headers"]["id"]  # kombu generates its own ids
    said_twice = {"properties": {"argsrepr", "kwargsrepr"}, "headers": set()}
    sender = {"origin", "reply_to"}
    for part, twice in said_twice.items():
        spare = {name: theirs[part].pop(name) for name in set(theirs[part]) - set(ours[part])}
        says_nothing = (None, 0, {}, [None, None])
        assert {name for name in spare if spare[name] not in says_nothing} <= sender | twice
    assert json.loads(ours.pop("body")) == [*json.loads(theirs.pop("body"))[:2], {}]
    assert ours == theirs


def test_a_message_says_in_flower_how_many_images_it_is_for(ledger: Ledger) -> None:
    ledger.dispatch(SPEC, START, 0, 1, b"chunk")
    message = json.loads(ledger.redis.rpop(QUEUE))
    assert message["headers"]["argsrepr"] == "job j, chunk 0, 1 image"


def test_a_worker_gets_the_chunk_and_the_model(ledger: Ledger) -> None:
    store(ledger, 0)
    begun = ledger.begin("j", 0)
    assert begun and begun[:3] == (b"chunk 0", "mlp", 1)


def test_a_worker_gets_a_large_chunk(ledger: Ledger) -> None:
    payload = bytes(range(256)) * 1000
    ledger.dispatch(SPEC, START, 0, 10, memoryview(payload))
    assert ledger.record("j").bytes == len(payload)
    begun = ledger.begin("j", 0)
    assert begun and begun.payload == payload


def test_a_large_chunk_that_is_cancelled_as_it_is_begun_is_given_to_nobody(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.dispatch(SPEC, START, 0, 10, bytes(1 << 20))
    ask = ledger.redis.execute

    def ask_late(first: Command, second: Command) -> list[tuple[Any, float]]:
        monkeypatch.setattr(ledger.redis, "execute", ask)
        replies = ask(first)
        ledger.cancel("j")
        return replies + ask(second)

    monkeypatch.setattr(ledger.redis, "execute", ask_late)
    assert ledger.begin("j", 0) is None


def test_a_redis_that_has_lost_its_scripts_gets_them_again(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.redis.script_flush()
    assert ledger.begin("j", 0) is not None


def test_a_message_delivered_twice_is_begun_once(ledger: Ledger) -> None:
    store(ledger, 0)
    assert ledger.begin("j", 0) is not None
    assert ledger.begin("j", 0) is None


def test_the_first_to_complete_wins(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.begin("j", 0)
    assert ledger.complete("j", 0, result(b"first"))
    assert not ledger.complete("j", 0, result(b"second", failed=10))
    assert ledger.results("j", 0, 2, drop=[]) == [(b"first", None), (None, None)]
    assert ledger.record("j").done_images == 10 and ledger.record("j").failed == 0


def take_ended(ledger: Ledger) -> list[str]:
    taken = []
    while job_id := ledger.next_ended():
        taken.append(job_id)
        ledger.forget_ended(job_id)
    return taken


@pytest.mark.parametrize("how", ["completed", "sealed", "cancelled", "failed"])
def test_the_end_of_a_job_is_told_once(how: str, ledger: Ledger) -> None:
    store(ledger, 0)
    if how == "sealed":  # after the last chunk
        assert complete(ledger, 0)
    assert take_ended(ledger) == []
    if how in ("completed", "sealed"):
        ledger.seal(SPEC, START, 1)
    if how == "completed":
        assert complete(ledger, 0)
    if how == "failed":
        ledger.give_up("j", "why")
    assert take_ended(ledger) == ["j"] * (how != "cancelled")
    ledger.cancel("j")
    assert take_ended(ledger) == ["j"] * (how == "cancelled")


def test_the_end_of_a_job_is_kept_until_it_is_logged(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store(ledger, 0)
    store(ledger, 0, spec=SPEC._replace(id="k"))
    ledger.cancel("j")
    ledger.give_up("k", "why")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("digitq.worker.celery.log_end", Mock(side_effect=KeyboardInterrupt))
        log_ends(ledger)
    caplog.set_level(logging.WARNING)
    log_ends(ledger)
    caplog.set_level(logging.INFO)
    log_ends(ledger)
    log_ends(ledger)
    assert [text[:17] for text in caplog.messages] == ["job k has failed:", "job j was cancell"]


def test_a_job_s_first_chunk_is_known(ledger: Ledger) -> None:
    store(ledger, 0, 1)
    sources = [begun and begun.source for begun in (ledger.begin("j", 1), ledger.begin("j", 0))]
    assert sources == [SPEC.source, None]


def test_the_pace_is_that_of_the_last_chunk_of_a_kind(ledger: Ledger) -> None:
    paces: dict[Kind, float] = {"pixels": 0, "image": 0}
    told: list[tuple[Kind, float]] = [("image", 0.5), ("pixels", 3e-7), ("image", 0.02)]
    for number, (kind, pace) in enumerate([*told, ("image", 0), ("pixels", 0)]):
        assert ledger.dispatch(SPEC, START, number, 10, b"chunk") == (number + 1, paces)
        ledger.begin("j", number)
        ledger.complete("j", number, ChunkResult(b"result", 0, kind, pace, 0))
        paces[kind] = pace or paces[kind]


def test_who_completes_a_chunk_is_told_how_far_the_job_is(ledger: Ledger) -> None:
    store(ledger, 0, 1, 2)
    first = ledger.complete("j", 0, result(b"", failed=3))
    assert first == "10 of 30 stored so far, 3 failed"
    ledger.seal(SPEC, START, 3)
    second, last = (ledger.complete("j", number, result(b"", failed=1)) for number in (2, 1))
    assert [second, last] == ["20 of 30 (66 %), 4 failed", "30 of 30 (100 %), 5 failed"]


def test_a_chunk_that_redis_has_lost_is_not_counted(ledger: Ledger) -> None:
    """Its worker hands in the result before the chunk is stored again."""
    store(ledger, 0, 1)
    assert ledger.begin("j", 1)
    ledger.redis.hdel(record_key("j") + ":rows", 1)
    assert not complete(ledger, 1) and ledger.record("j").done_chunks == 0
    assert complete(ledger, 0) and ledger.record("j").done_chunks == 1


def test_a_job_is_done_when_it_is_sealed_and_complete(ledger: Ledger) -> None:
    store(ledger, 0, 1)
    complete(ledger, 0)
    complete(ledger, 1, failed=3)
    assert ledger.record("j").state == "feeding"
    ledger.seal(SPEC, START, 2)
    record = ledger.record("j")
    assert (record.state, record.images, record.done_images, record.failed) == ("done", 20, 20, 3)
    assert record.bytes == 0 and ledger.active() == []


def test_a_job_that_is_one_chunk_is_whole_at_once_and_forgotten_when_taken(ledger: Ledger) -> None:
    for _ in range(2):  # as if the first reply was lost
        ledger.submit(SPEC, 10, b"chunk 0")
    assert take_as_a_worker(ledger) == [("j", 0)]
    record = ledger.record("j")
    assert (record.state, record.images, record.bytes) == ("running", 10, 7)
    begun = ledger.begin("j", 0)
    assert begun and begun.payload == b"chunk 0"
    ledger.submit(SPEC, 10, b"chunk 0")
    assert take_as_a_worker(ledger) == [] and take(ledger, "j") is None
    complete(ledger, 0)
    assert ledger.redis.keys("digitq:job*") == [b"digitq:job:j:results"]
    assert ledger.active() == [] and 0 < ledger.redis.ttl("digitq:job:j:results") <= SPEC.ttl
    # It is sent again because the reply was lost
    assert ledger.submit(SPEC, 10, b"chunk 0", wait_seconds=10) == b"result 0"
    assert ledger.redis.keys("digitq:job*") == []


def test_a_job_that_is_one_chunk_can_be_cancelled(ledger: Ledger) -> None:
    ledger.submit(SPEC, 10, b"chunk 0")
    ledger.cancel("j")
    with pytest.raises(JobCancelledError):
        ledger.submit(SPEC, 10, b"chunk 0")
    assert take(ledger, "j") is None


def test_an_empty_job_is_done_at_once(ledger: Ledger) -> None:
    ledger.seal(SPEC, START, 0)
    assert ledger.record("j").state == "done"


def test_a_begun_chunk_past_its_deadline_is_published_again(ledger: Ledger) -> None:
    store(ledger, 0, 1)
    ledger.begin("j", 0)
    take_messages(ledger)
    ledger.sweep(deadline_seconds=60)
    assert take_messages(ledger) == []
    ledger.sweep(deadline_seconds=0)
    assert sorted(take_messages(ledger)) == [0, 1]
    begun = ledger.begin("j", 0)
    assert begun and begun.attempt == 2
    assert ledger.begin("j", 1) and ledger.record("j").most_attempts == 2


def test_the_chunk_of_a_process_that_died_is_queued_again_for_its_worker_only(
    ledger: Ledger,
) -> None:
    store(ledger, 0)
    for _ in range(QUICK_ATTEMPTS):
        assert take_messages(ledger) == [0] and ledger.begin("j", 0, "one@host")
        ledger.requeue("j", 0, "two@host")  # which had it before
        assert take_messages(ledger) == []
        ledger.requeue("j", 0, "one@host")
        ledger.requeue("j", 0, "one@host")  # the reply was lost
    assert take_messages(ledger) == [0] and ledger.begin("j", 0, "one@host")
    ledger.requeue("j", 0, "one@host")
    assert take_messages(ledger) == []  # until the deadline


def test_a_queued_chunk_is_left_alone_while_its_message_may_be_there(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.sweep(deadline_seconds=0)
    assert take_messages(ledger) == [0]


def test_a_message_overtaken_by_later_ones_is_lost(ledger: Ledger) -> None:
    """Even if older ones are begun after these."""
    store(ledger, 0, 1, 2, spec=SPEC._replace(in_flight=3))
    take_messages(ledger)
    ledger.begin("j", 2)
    ledger.begin("j", 0)
    ledger.dispatch(SPEC._replace(id="another"), START, 0, 10, b"queued for long")
    ledger.sweep_job("j", deadline_seconds=0)
    assert 1 in take_messages(ledger)[1:]


def test_a_message_overtaken_by_those_of_the_same_time_is_waited_for(ledger: Ledger) -> None:
    store(ledger, 0, 1)
    ledger.begin("j", 1)
    now = ledger.redis.time()[0]
    ledger.redis.zadd(f"{record_key('j')}:queued", {"0": now - 100})
    for published, messages in [(now - 90, [0, 1]), (now - 60, [0, 1, 0])]:
        ledger.redis.set(WATERMARK, published)
        ledger.sweep_job("j", deadline_seconds=30)
        assert ledger.redis.llen(QUEUE) == len(messages)
    assert take_messages(ledger) == messages


def test_slow_chunks_raise_their_deadline(ledger: Ledger) -> None:
    """Also if another worker has begun the slow chunk meanwhile, or a fast chunk follows."""
    store(ledger, 0, 1, 2)
    ledger.begin("j", 0)
    ledger.sweep(0)
    assert ledger.begin("j", 0)
    ledger.complete("j", 0, result(b"by the first, after 40 s", silent_seconds=40))
    ledger.begin("j", 2)
    complete(ledger, 2)
    ledger.begin("j", 1)
    now = ledger.redis.time()[0]
    ledger.redis.zadd("digitq:job:j:running", {"1": now - 100})
    take_messages(ledger)
    ledger.sweep(30)
    assert take_messages(ledger) == []
    ledger.redis.zadd("digitq:job:j:running", {"1": now - 130})
    ledger.sweep(30)
    assert take_messages(ledger) == [1]


def test_workers_and_collectors_go_on_where_redis_is_out_of_memory(ledger: Ledger) -> None:
    """Only they can make room."""
    store(ledger, 0)
    ledger.submit(SPEC._replace(id="i"), 10, b"chunk 0")
    ledger.redis.config_set("maxmemory", 1)
    try:
        assert ledger.begin("j", 0) is not None
        assert ledger.renew("j", 0)
        ledger.note_poison_rows("j", 0, [1])
        assert ledger.poison_rows("j", 0) == [1]
        ledger.redis.delete(QUEUE, CALLS_QUEUE)
        ledger.sweep(deadline_seconds=0)  # one job is queued, the other is running
        assert take_as_a_worker(ledger) == [("i", 0), ("j", 0)]
        assert ledger.begin("j", 0) is not None
        assert complete(ledger, 0)
        with pytest.raises(BrokerError, match="maxmemory"):
            store(ledger, 1)
        assert ledger.results("j", 0, 1, drop=[]) == [(b"result 0", None)]
        assert ledger.results("j", 0, 1, drop=[0]) == [(None, None)]
        ledger.free("j", 1, 10)
        ledger.cancel("i")  # this makes room, too
        assert ledger.record("i").state == "cancelled"
    finally:
        ledger.redis.config_set("maxmemory", 0)
    take_messages(ledger)
    store(ledger, 1)
    assert take_messages(ledger) == [1]


def test_a_job_with_damaged_keys_stops_no_sweep_of_others(ledger: Ledger) -> None:
    """Whoever may submit can write them. No chunk of any job was queued again."""
    store(ledger, 0)
    assert ledger.begin("j", 0)
    for name in ("a", "z"):
        ledger.redis.set(record_key(name), "text")
        ledger.redis.sadd(ACTIVE, name)
    store(ledger, 0, spec=SPEC._replace(id="k"))
    ledger.redis.set(f"{record_key('k')}:running", "text")
    assert ledger.sweep(0)
    assert ledger.redis.zscore(f"{record_key('j')}:queued", 0)


@pytest.mark.parametrize("damage", [{"id": b"\1" * (4 << 20)}, {f"f{n}": n for n in range(200)}])
def test_a_damaged_record_makes_no_step_take_memory(ledger: Ledger, damage: dict[str, Any]) -> None:
    store(ledger, 0)
    ledger.begin("j", 0)
    ledger.redis.hset(record_key("j"), mapping=damage)
    before = ledger.redis.info("memory")["used_memory_lua"]
    with pytest.raises(BrokerError, match="(?s)record of (a )?job .*is damaged"):
        ledger.sweep_job("j", deadline_seconds=0)
    assert ledger.redis.info("memory")["used_memory_lua"] < before + (16 << 20)


def test_of_all_who_sweep_one_does_so_in_an_interval(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.begin("j", 0)
    assert ledger.sweep(deadline_seconds=60, interval_seconds=60)
    assert not ledger.sweep(deadline_seconds=0, interval_seconds=60)
    assert ledger.record("j").sent_again == 0
    ledger.redis.set(SWEEPING, f"{ledger.redis.time()[0] + 3600} 0")  # the clock was set back
    assert ledger.sweep(deadline_seconds=0, interval_seconds=60)
    assert ledger.record("j").sent_again == 1


def test_a_sweep_looks_at_a_bounded_number_of_jobs_and_others_look_at_the_rest(
    ledger: Ledger,
) -> None:
    jobs = 3 * MAX_SWEPT
    for number in range(jobs):
        ledger.submit(SPEC._replace(id=f"j{number}"), 10, b"chunk 0")
        ledger.begin(f"j{number}", 0)
    ledger.sweep(deadline_seconds=0)
    assert MAX_SWEPT / 2 < ledger.counters()["sent_again"] < 2 * MAX_SWEPT
    for _ in range(9):
        ledger.sweep(deadline_seconds=0)
    assert len({job_id for job_id, _ in take_as_a_worker(ledger)}) == jobs


def test_the_newest_jobs_are_read_and_those_that_have_not_ended(ledger: Ledger) -> None:
    for number in range(5):
        spec = SPEC._replace(id=f"j{number}")
        ledger.open(spec)
        if number:
            ledger.seal(spec, START, 0)
    assert [record.id for record in ledger.records(2)] == ["j0", "j3", "j4"]
    assert [record.id for record in ledger.records()] == [f"j{number}" for number in range(5)]
    assert ledger.count_jobs() == 5


@pytest.mark.parametrize("wrong", ["j:rows", "j:chunks", "", "\udcff", "ä", "j\n"])
def test_an_id_that_can_be_none_is_unknown(wrong: str, ledger: Ledger) -> None:
    store(ledger, 0)
    with pytest.raises(UnknownJobError):
        ledger.record(wrong)


def test_failures_of_a_chunk_are_counted_until_it_is_done(ledger: Ledger) -> None:
    store(ledger, 0, 1)
    assert [ledger.fail("j", number) for number in (0, 0, 1, 0, 7)] == [1, 2, 1, 3, 0]
    assert ledger.begin("j", 0) and complete(ledger, 0)
    assert ledger.fail("j", 0) == 0
    assert ledger.redis.hkeys("digitq:job:j:failures") == [b"1"]


def test_a_job_that_nobody_feeds_or_works_on_has_its_time(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.redis.expire("digitq:job:j", 5)
    ledger.sweep(deadline_seconds=60)
    assert ledger.redis.ttl("digitq:job:j") <= 5
    ledger.heartbeat("j")
    assert ledger.redis.ttl("digitq:job:j") > 5


def test_a_step_sent_again_changes_nothing(ledger: Ledger) -> None:
    """If a reply is lost, the client sends the script again."""
    store(ledger, 0, 0)
    ledger.begin("j", 0)
    store(ledger, 0)
    assert ledger.record("j").images == 10
    complete(ledger, 0)
    store(ledger, 0)
    assert take_messages(ledger) == [0]
    assert not ledger.redis.exists("digitq:job:j:chunks")


def test_a_redis_that_forgot_all_names_the_chunk_it_needs(ledger: Ledger) -> None:
    store(ledger, 0, 1, 2)
    ledger.redis.flushall()
    assert ledger.dispatch(SPEC, (1, 10), 3, 10, b"chunk 3")[0] == 1
    assert not ledger.redis.exists("digitq:job:j:chunks")
    for number in (1, 2, 3):
        ledger.dispatch(SPEC, (1, 10), number, 10, b"chunk")
    record = ledger.record("j")
    assert (record.chunks, record.done_chunks, record.images) == (4, 1, 40)


def test_a_redis_that_lost_its_last_second_is_caught_up(ledger: Ledger) -> None:
    store(ledger, 0)
    assert ledger.dispatch(SPEC, (5, 50), 5, 10, b"chunk 5")[0] == 6
    assert take_messages(ledger) == [0, 5]
    assert ledger.record("j").chunks == 6
    assert ledger.seal(SPEC, (8, 80), 8) == 8


def test_a_cancelled_job_leaves_its_record(ledger: Ledger) -> None:
    store(ledger, 0, 1, 2)
    ledger.begin("j", 0)
    ledger.cancel("j")
    assert ledger.record("j").state == "cancelled"
    assert not complete(ledger, 0)
    assert ledger.begin("j", 1) is None
    with pytest.raises(JobCancelledError):
        store(ledger, 3)
    with pytest.raises(JobCancelledError):
        ledger.seal(SPEC, START, 3)
    assert sorted(ledger.redis.keys("digitq:job:*")) == [b"digitq:job:j", b"digitq:job:j:done"]
    assert 0 < ledger.redis.ttl("digitq:job:j:done") <= 10


def truths(ledger: Ledger, chunks: int) -> list[bytes | None]:
    return [truth for _, truth in ledger.results("j", 0, chunks, drop=[])]


def test_right_answers_stay_as_long_as_results(ledger: Ledger) -> None:
    for number in range(2):
        ledger.dispatch(SPEC, START, number, 10, b"chunk", b"truth %d" % number)
    assert truths(ledger, 3) == [b"truth 0", b"truth 1", None]
    assert 0 < ledger.redis.ttl("digitq:job:j:truths") <= SPEC.ttl
    ledger.begin("j", 0)
    assert complete(ledger, 0)
    ledger.free("j", 1, 10)
    assert truths(ledger, 2) == [None, b"truth 1"]
    ledger.cancel("j")
    with pytest.raises(JobCancelledError):
        ledger.dispatch(SPEC, START, 2, 10, b"chunk", b"truth 2")
    assert not ledger.redis.exists("digitq:job:j:truths")


def test_a_job_that_is_done_keeps_its_end_when_it_is_cancelled(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.seal(SPEC, START, 1)
    ledger.begin("j", 0)
    assert complete(ledger, 0)
    ended = ledger.record("j").finished
    ledger.cancel("j")
    record = ledger.record("j")
    assert record.state == "cancelled" and record.finished == ended is not None


def test_a_job_that_is_done_can_not_fail(ledger: Ledger) -> None:
    """A worker whose chunk another has done may still give it up."""
    store(ledger, 0)
    ledger.seal(SPEC, START, 1)
    ledger.begin("j", 0)
    assert complete(ledger, 0)
    ledger.give_up("j", "a worker can't")
    assert ledger.record("j").state == "done"
    assert [payload for payload, _ in ledger.results("j", 0, 1, drop=[])] == [b"result 0"]


def test_a_call_leaves_the_network_of_a_job_in_redis_for_as_long(ledger: Ledger) -> None:
    network = OwnNetwork("a5c9", b"card and weights")
    spec = SPEC._replace(ttl=1000, network=network)
    store(ledger, 0, spec=spec)
    ledger.know(spec, START)
    ledger.submit(spec._replace(id="call", ttl=60, known=b"known"), 1, b"chunk")
    assert ledger.network("a5c9") == network
    assert ledger.redis.ttl(NETWORK + "a5c9") > 60


def test_nothing_comes_back_to_life(ledger: Ledger) -> None:
    """A worker or a sweep may still be busy with a job that is cancelled or forgotten."""
    store(ledger, 0, 1, 2)
    ledger.begin("j", 0)
    ledger.cancel("j")
    take_messages(ledger)
    ledger.sweep_job("j", 0)
    assert take_messages(ledger) == []
    ledger.note_poison_rows("j", 0, [1])
    assert len(ledger.redis.keys("digitq:job:*")) == 2
    ledger.redis.flushall()
    ledger.finish("j")
    ledger.heartbeat("j")
    assert ledger.redis.keys("*") == []


def test_a_silent_submitter_is_noticed(ledger: Ledger) -> None:
    store(ledger, 0)
    for silent_seconds, state in [(0, "feeding"), (50, "feeding"), (70, "abandoned")]:
        ledger.redis.hset("digitq:job:j", "fed", ledger.redis.time()[0] - silent_seconds)
        assert ledger.record("j").state == state
    ledger.heartbeat("j")
    assert ledger.record("j").state == "feeding"
    ledger.seal(SPEC, START, 1)
    ledger.redis.hset("digitq:job:j", "fed", ledger.redis.time()[0] - 70)
    assert ledger.record("j").state == "running"  # all of it is stored: it needs no submitter


def test_a_chunk_that_is_done_leaves_only_its_result(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.begin("j", 0)
    ledger.note_poison_rows("j", 0, [1])
    ledger.fail("j", 0)
    complete(ledger, 0)
    key = record_key("j").encode()
    assert {*ledger.redis.keys(key + b"*")} == {key, key + b":results", key + b":done"}


def test_a_finished_job_leaves_its_record(ledger: Ledger) -> None:
    store(ledger, 0)
    complete(ledger, 0)
    ledger.seal(SPEC, START, 1)
    ledger.finish("j")
    assert ledger.record("j").state == "collected"
    assert ledger.redis.keys("digitq:job:j:results") == []


def test_every_key_of_a_job_goes_in_time(ledger: Ledger) -> None:
    store(ledger, 0, 1, 2)
    ledger.begin("j", 0)
    ledger.begin("j", 1)
    ledger.note_poison_rows("j", 1, [4])
    ledger.fail("j", 1)
    assert endless_keys(ledger) == {b"digitq:active"}
    complete(ledger, 0)
    assert ledger.renew("j", 1)  # the only running chunk
    assert len(ledger.redis.keys("digitq:*")) > 8 and endless_keys(ledger) == {b"digitq:active"}


def test_the_list_of_jobs_stays_as_long_as_any_of_them(ledger: Ledger) -> None:
    ledger.open(SPEC._replace(id="long", ttl=5000))
    ledger.open(SPEC)
    assert ledger.redis.ttl(JOBS) > SPEC.ttl


def test_what_is_left_of_a_job_that_redis_forgot_goes_in_time(ledger: Ledger) -> None:
    assert ledger.dispatch(SPEC, (1, 10), 3, 10, b"chunk 3")[0] == 1
    assert ledger.redis.exists("digitq:job:j") and endless_keys(ledger) == {b"digitq:active"}


def test_a_worker_passes_over_a_job_whose_record_is_gone(ledger: Ledger) -> None:
    store(ledger, 0, 1)
    ledger.begin("j", 0)
    ledger.redis.delete("digitq:job:j")
    assert ledger.begin("j", 1) is None
    ledger.note_poison_rows("j", 0, [1])
    assert not ledger.redis.exists("digitq:job:j") and endless_keys(ledger) == {b"digitq:active"}


def endless_keys(ledger: Ledger) -> set[bytes]:
    """Those that stay for ever, besides the counters."""
    keys = {*ledger.redis.keys("digitq:*")} - {COUNTERS.encode()}
    return {key for key in keys if ledger.redis.ttl(key) < 0}


def test_what_outlives_a_job_is_cleared_away(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.redis.delete("digitq:job:j")
    ledger.sweep(0)
    assert ledger.active() == []
    assert ledger.records() == []
    assert ledger.redis.zcard("digitq:jobs") == 0


def test_an_unknown_job_is_said(ledger: Ledger) -> None:
    for step in (ledger.record, ledger.cancel):
        with pytest.raises(UnknownJobError, match="no job 'x'"):
            step("x")


def test_waiting_ends_with_a_completion(ledger: Ledger) -> None:
    store(ledger, 0, 1)
    complete(ledger, 0)
    first = ledger.wait("j", b"0", timeout_ms=1000)
    assert first != b"0"
    assert ledger.wait("j", first, timeout_ms=10) == first
    complete(ledger, 1)
    last = ledger.wait("j", first, timeout_ms=1000)
    assert last > first
    ledger.seal(SPEC, START, 2)  # wakes a collector that has all results
    assert ledger.wait("j", last, timeout_ms=1000) > last


def test_the_rows_workers_died_of_are_noted(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.begin("j", 0)
    assert ledger.poison_rows("j", 0) == []
    ledger.note_poison_rows("j", 0, [3, 3, 5])
    assert ledger.poison_rows("j", 0) == [3, 3, 5]
    complete(ledger, 0)
    assert ledger.poison_rows("j", 0) == []


def test_local_redis_is_private(redis_only: Local) -> None:
    assert (redis_only.socket).stat().st_mode & 0o077 == 0
    assert redis_only.folder.stat().st_mode & 0o077 == 0


def test_a_hundred_threads_and_more_may_wait_at_once(server: RetryingRedis) -> None:
    with connect(server.url) as client:
        held = [client.connection_pool.get_connection() for _ in range(150)]
        assert server.info("clients")["connected_clients"] >= len(held)
        client.connection_pool.disconnect()


def test_a_silent_submitter_is_heard_of_in_a_full_redis(ledger: Ledger) -> None:
    """Otherwise a collector would wait for room that only collecting makes."""
    store(ledger, 0)
    used = ledger.redis.info("memory")["used_memory"]
    ledger.redis.config_set("maxmemory", used // 2)
    try:
        ledger.heartbeat("j")
    finally:
        ledger.redis.config_set("maxmemory", 0)


def test_jobs_that_expired_are_forgotten_as_others_come(ledger: Ledger) -> None:
    for number in range(5):
        ledger.open(SPEC._replace(id=f"old{number}"))
        ledger.redis.delete(record_key(f"old{number}"))
    for number in range(5):
        ledger.open(SPEC._replace(id=f"new{number}"))
    listed = ledger.redis.zrange(JOBS, 0, -1)
    assert sorted(listed) == [b"new%d" % number for number in range(5)]


@pytest.mark.parametrize("place", ["queued", "running"])
def test_a_clock_that_was_set_back_loses_no_chunk(place: str, ledger: Ledger) -> None:
    store(ledger, 0)
    take_messages(ledger)
    if place == "running":
        ledger.begin("j", 0)
    later = ledger.redis.time()[0] + 3600
    ledger.redis.zadd(f"{record_key('j')}:{place}", {"0": later})
    ledger.sweep(deadline_seconds=30)
    assert take_messages(ledger) == [0]
    ledger.sweep(deadline_seconds=30)
    ledger.redis.lpush(QUEUE, "another's")  # an empty queue means lost messages
    assert ledger.begin("j", 0) is not None


def test_a_result_of_a_job_whose_record_is_gone_makes_none(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.begin("j", 0)
    ledger.redis.delete(record_key("j"))
    assert not complete(ledger, 0)
    assert ledger.redis.exists(record_key("j")) == 0


def test_a_job_that_ended_says_why_whoever_asks(ledger: Ledger) -> None:
    for state, end, error, text in [
        ("cancelled", ledger.cancel, JobCancelledError, "was cancelled: its source broke"),
        ("failed", ledger.give_up, JobFailedError, "has failed: its source broke"),
    ]:
        ledger.redis.flushall()
        store(ledger, 0)
        end("j", "its source broke")
        record = ledger.record("j")
        assert (record.state, record.reason) == (state, "its source broke") and record.is_stopped
        with pytest.raises(error, match=f"job j {text}"):
            ledger.dispatch(SPEC, START, 1, 10, b"chunk 1")
        with pytest.raises(error, match=f"job j {text}"):
            ledger.seal(SPEC, START, 1)


def take_as_a_worker(ledger: Ledger) -> list[tuple[str, int]]:
    """The jobs and chunks of all messages, in the order in which kombu takes them."""
    taken = []
    with make_app(ledger.redis.url).connection_for_read() as connection:
        while message := connection.default_channel.basic_get(QUEUE, no_ack=True):
            job_id, number = json.loads(message.body)[0]
            taken.append((job_id, number))
    return taken


def test_single_calls_pass_chunks_of_jobs(ledger: Ledger) -> None:
    """They say nothing about the chunks that they have passed."""
    store(ledger, 0, 1)
    ledger.submit(SPEC._replace(id="call"), 1, b"chunk 0")
    assert ledger.begin("call", 0) is not None
    ledger.sweep_job("j", deadline_seconds=0)
    assert take_as_a_worker(ledger) == [("call", 0), ("j", 0), ("j", 1)]


def test_single_calls_do_not_pass_each_other(ledger: Ledger) -> None:
    """Otherwise a call would wait for as long as others come."""
    store(ledger, 0)
    for name in ("a", "b", "c"):
        ledger.submit(SPEC._replace(id=name), 1, b"chunk 0")
    assert take_as_a_worker(ledger) == [("a", 0), ("b", 0), ("c", 0), ("j", 0)]


def test_a_lost_call_is_found_though_chunks_wait(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.submit(SPEC._replace(id="call"), 1, b"chunk 0")
    ledger.redis.delete(CALLS_QUEUE)
    ledger.sweep(deadline_seconds=60)
    assert take_as_a_worker(ledger) == [("j", 0)]
    ledger.submit(SPEC._replace(id="another"), 1, b"chunk 0")
    store(ledger, 1)
    ledger.sweep_job("call", deadline_seconds=0)
    assert take_as_a_worker(ledger) == [("another", 0), ("j", 1)]
    ledger.sweep_job("call", deadline_seconds=0)
    assert take_as_a_worker(ledger) == [("call", 0)]


def test_the_watermark_goes_back_with_the_clock(ledger: Ledger) -> None:
    store(ledger, 0)
    later = ledger.redis.time()[0] + 3600
    ledger.redis.set(WATERMARK, later)
    ledger.begin("j", 0)
    assert float(ledger.redis.get(WATERMARK)) < later


def test_the_first_end_of_a_job_counts(ledger: Ledger) -> None:
    store(ledger, 0)
    ledger.give_up("j", "why")
    ledger.cancel("j")
    assert (ledger.record("j").state, ledger.record("j").reason) == ("failed", "why")


# What is seen of jobs and workers


ABOUT = {"host": "h", "version": "0.2.0", "fingerprint": "f", "processes": 2, "started": 5.0}


def test_counters_outlive_jobs_and_count_a_chunk_once(ledger: Ledger) -> None:
    """However often it was begun, sent again and completed."""
    store(ledger, 0, 1)
    ledger.begin("j", 0)
    ledger.sweep(deadline_seconds=0)  # its worker has died
    ledger.begin("j", 0)
    done = result(b"result", 1, review=2, work_seconds=0.5, fingerprint="f")
    assert [ledger.complete("j", 0, done) is None for _ in range(3)] == [False, True, True]
    assert (ledger.record("j").review, ledger.record("j").sent_again) == (2, 1)
    assert ledger.record("j").image_seconds == 0.05
    ledger.submit(SPEC._replace(id="call", model="cnn"), 1, b"call")
    ledger.begin("call", 0)
    ledger.complete("call", 0, result(b"answer"))
    assert take(ledger, "call") == b"answer"
    ledger.cancel("j")
    chunks = {"begun": 3, "completed": 2, "sent_again": 1, "bytes": len(b"chunk 0call")}
    mlp = {"images:mlp": 10, "failed:mlp": 1, "review:mlp": 2, "work_us:mlp": 500_000}
    cnn = {"images:cnn": 1, "failed:cnn": 0, "review:cnn": 0, "work_us:cnn": 0}
    assert ledger.counters() == {**chunks, **mlp, **cnn}


def test_a_list_of_allowed_numbers_is_stored_once_for_many_calls(ledger: Ledger) -> None:
    known = b"\n1\n2"
    for id in ("first", "second", "third"):
        ledger.redis.config_resetstat()
        ledger.submit(SPEC._replace(id=id, known=known), 1, b"chunk")
        assert ("cmdstat_set" in ledger.redis.info("commandstats")) == (id == "first")
        assert (begun := ledger.begin(id, 0)) and begun.known == name_known(known)
        assert ledger.known(id, begun.known) == known
        assert take(ledger, id) is None and ledger.complete(id, 0, result(b"answer"))
        assert take(ledger, id) == b"answer"
    (key,) = ledger.redis.keys("digitq:known:*")
    assert 0 < ledger.redis.ttl(key) <= SPEC.ttl


def submit_calls(ledger: Ledger, *ids: str) -> None:
    for id in ids:
        ledger.submit(SPEC._replace(id=id), 2, id.encode(), is_shared=True)


def begun_calls(ledger: Ledger, images: int = 100) -> list[str]:
    return [call.job_id for call in ledger.begin_calls("first", images, 1 << 20, "one@host")]


def test_a_worker_begins_the_calls_that_wait_together(ledger: Ledger) -> None:
    submit_calls(ledger, "first")
    ledger.redis.delete(CALLS_QUEUE)  # Celery has taken it
    assert not (alone := ledger.begin("first", 0)) or not alone.shares
    submit_calls(ledger, "second", "third", "fourth")
    assert ledger.begin_calls("first", 5, len("seco"), "one@host") == []
    calls = ledger.begin_calls("first", 5, 1 << 20, "one@host")
    assert [(call.job_id, call.payload) for call in calls] == [
        ("second", b"second"),
        ("third", b"third"),
    ]
    ledger.complete_calls("2 calls", [(call, result(call.payload)) for call in calls])
    assert [take(ledger, id) for id in ("second", "third", "fourth")] == [b"second", b"third", None]
    assert begun_calls(ledger) == ["fourth"] and begun_calls(ledger) == []


@pytest.mark.parametrize("other", ["model", "alone", "begun before", "no message"])
def test_only_calls_of_the_same_kind_are_begun_together(ledger: Ledger, other: str) -> None:
    submit_calls(ledger, "first")
    ledger.redis.delete(CALLS_QUEUE)
    if other == "model":
        ledger.submit(SPEC._replace(id="cnn", model="cnn"), 1, b"", is_shared=True)
    elif other == "alone":
        ledger.submit(SPEC._replace(id="file"), 1, b"")
    elif other == "begun before":  # its worker may have died of it
        submit_calls(ledger, "deadly")
        ledger.begin("deadly", 0)
        ledger.redis.delete(CALLS_QUEUE)
        ledger.sweep_job("deadly", deadline_seconds=0)
    else:
        ledger.redis.lpush(CALLS_QUEUE, b"rubbish")
    submit_calls(ledger, "second")
    assert begun_calls(ledger) == []
    assert ledger.redis.llen(CALLS_QUEUE) == 2
    ledger.redis.rpop(CALLS_QUEUE)
    assert begun_calls(ledger) == ["second"]


# Images of other programs


def image_message(task: str, body: str = "AAAA") -> str:
    return json.dumps(
        {"body": body, "headers": {"task": CLASSIFY_IMAGE, "id": task}, "properties": {}}
    )


def send_images(ledger: Ledger, *tasks: str, body: str = "AAAA") -> None:
    for task in tasks:
        ledger.redis.lpush(IMAGES_QUEUE, image_message(task, body))


def take_image(ledger: Ledger) -> str:
    """Take the next message as a worker does; returns the id of the job."""
    (job_id, number), *_ = json.loads(json.loads(ledger.redis.rpop(BOOKED_QUEUE))["body"])
    assert number == 0
    return str(job_id)


def test_an_image_is_a_call_whose_answer_is_celery_s_result(ledger: Ledger) -> None:
    """Whoever waits for it hears of it, and the ledger keeps nothing."""
    send_images(ledger, "task 1", "task-1", "task-2")
    assert ledger.queued_images() == 3
    assert ledger.book_images() == (0, [image_message("task 1").encode()])  # ids have no spaces
    assert ledger.queued_images() == 0
    first = ledger.begin(job_id := take_image(ledger), 0)
    assert first and (first.task, first.payload) == ("task-1", image_message("task-1").encode())
    events = ledger.redis.pubsub(ignore_subscribe_messages=True)
    events.subscribe("celery-task-meta-task-1")
    events.get_message(timeout=20)
    assert ledger.begin_calls(job_id, 7, 1 << 20, "w") == []  # it takes a third of those that wait
    done = result(b"answer", model="cnn")
    assert [ledger.complete(job_id, 0, done) is None for _ in range(2)] == [False, True]
    assert events.get_message(timeout=20)["data"] == b"answer"
    events.close()
    assert ledger.redis.get("celery-task-meta-task-1") == b"answer"
    assert 0 < ledger.redis.ttl("celery-task-meta-task-1") <= RESULT_SECONDS
    assert ledger.counters()["images:cnn"] == 1
    assert not ledger.redis.keys(f"{record_key(job_id)}*") and len(ledger.active()) == 1


def test_an_image_that_gets_no_answer_leaves_nothing(ledger: Ledger) -> None:
    send_images(ledger, "task")
    ledger.book_images()
    ledger.begin(job_id := take_image(ledger), 0)
    ledger.complete(job_id, 0, result(b""))
    assert not ledger.redis.keys("celery-task-meta-*") and not ledger.active()


def test_the_ledger_takes_a_bounded_number_of_images(ledger: Ledger) -> None:
    """And in one step a bounded size, so that Redis does not stand still."""
    send_images(ledger, *map(str, range(MAX_BOOKED + 10)))
    assert ledger.book_images() == (10, [])
    take_image(ledger)
    assert ledger.book_images() == (9, [])
    ledger.redis.delete(IMAGES_QUEUE, BOOKED_QUEUE)
    send_images(ledger, *"abc", body="A" * (MAX_BOOKED_BYTES // 2))
    assert [ledger.book_images()[0] for _ in range(2)] == [1, 0]


def test_an_image_that_is_sent_twice_is_one_call(ledger: Ledger) -> None:
    send_images(ledger, "task", "task")
    assert ledger.book_images() == (0, [])
    assert ledger.redis.llen(BOOKED_QUEUE) == len(ledger.active()) == 1


def test_an_image_that_a_worker_was_about_to_book_is_booked_by_another(ledger: Ledger) -> None:
    send_images(ledger, "task")
    ledger.await_image()  # it dies now
    assert ledger.queued_images() == 1
    assert ledger.book_images() == (0, [])
    assert take_image(ledger)


def test_images_are_booked_whatever_their_priority(ledger: Ledger) -> None:
    for name in lists_of(IMAGES_QUEUE):
        ledger.redis.lpush(name, image_message(f"task-{len(name)}-{name[-1]}"))
    assert ledger.book_images() == (0, [])
    assert ledger.redis.llen(BOOKED_QUEUE) == len(lists_of(IMAGES_QUEUE))


def test_images_are_no_jobs_but_count_in_the_backlog(ledger: Ledger) -> None:
    """However many there are, they hide no job from whoever lists the newest."""
    store(ledger, 0)
    send_images(ledger, "booked", "begun")
    ledger.book_images()
    send_images(ledger, "sent")
    ledger.begin(take_image(ledger), 0, "one@host")
    assert [job.id for job in ledger.records(limit=1)] == ["j"]
    assert ledger.count_jobs() == 1
    seen = look_around(ledger)
    assert [job.id for job in seen.jobs] == ["j"] and seen.queued_images == 3
    assert [chunk.worker for chunk in seen.running] == ["one@host"]
    assert seen.backlog_images == 3 + seen.jobs[0].images


def test_a_lost_image_is_found_though_others_wait(ledger: Ledger) -> None:
    """Its message was taken by a worker that died. Chunks of jobs say nothing of it."""
    send_images(ledger, "lost", "next", "last")
    ledger.book_images()
    lost = take_image(ledger)
    store(ledger, 0)
    ledger.begin("j", 0)
    ledger.sweep(deadline_seconds=0)
    assert ledger.redis.llen(BOOKED_QUEUE) == 2
    ledger.begin(take_image(ledger), 0)
    ledger.sweep(deadline_seconds=0)
    messages = ledger.redis.lrange(BOOKED_QUEUE, 0, -1)
    assert lost in [json.loads(json.loads(message)["body"])[0][0] for message in messages]


def test_an_image_is_booked_begun_and_answered_in_a_full_redis(ledger: Ledger) -> None:
    send_images(ledger, "task")
    ledger.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(BrokerError):
            ledger.await_image()
        assert ledger.book_images() == (0, [])
        assert ledger.begin(job_id := take_image(ledger), 0)
        assert ledger.complete(job_id, 0, result(b"answer"))
    finally:
        ledger.redis.config_set("maxmemory", 0)
    assert ledger.redis.get("celery-task-meta-task") == b"answer"


def test_a_record_names_each_kind_of_worker_that_answered(ledger: Ledger) -> None:
    """Up to eight."""
    store(ledger, *range(12))
    kinds = ["a", "b", "a", *"cdefghij"]
    for number, kind in enumerate(kinds):
        ledger.complete("j", number, result(b"", fingerprint=8 * kind))
    assert ledger.record("j").fingerprints == tuple(8 * kind for kind in "abcdefgh")


def test_a_heartbeat_counts_the_images_of_its_worker_and_expires(ledger: Ledger) -> None:
    store(ledger, 0, 1)
    assert ledger.complete("j", 0, result(b"", worker="w@h"))  # it has given no heartbeat yet
    assert not ledger.has_worker()
    assert ledger.note_worker("w@h", {**ABOUT, "images_per_second": 0})[0] == 0
    ledger.complete("j", 1, result(b"", worker="w@h"))
    images, redis_time, _ = ledger.note_worker("w@h", {**ABOUT, "images_per_second": 2.5})
    assert images == 10 and abs(redis_time - time.time()) < 60
    assert ledger.has_worker()
    (state,) = ledger.workers()
    assert (state.name, state.host, state.fingerprint, state.processes) == ("w@h", "h", "f", 2)
    assert (state.images, state.images_per_second) == (10, 2.5) and 0 <= state.silent_seconds < 5
    for key in ("digitq:workers", "digitq:worker:w@h"):
        assert 0 < ledger.redis.ttl(key) < 30
    ledger.redis.delete("digitq:worker:w@h")
    assert ledger.workers() == []


def test_a_heartbeat_passes_where_redis_is_out_of_memory(ledger: Ledger) -> None:
    ledger.redis.config_set("maxmemory", 1)
    try:
        ledger.note_worker("w", {**ABOUT, "images_per_second": 0})
        assert [worker.name for worker in ledger.workers()] == ["w"]
    finally:
        ledger.redis.config_set("maxmemory", 0)


def test_a_running_chunk_has_its_worker_its_age_and_its_silence(ledger: Ledger) -> None:
    store(ledger, 0, 1)
    ledger.begin("j", 0, "w@h")
    time.sleep(0.02)
    ledger.renew("j", 0)
    ((job_id, number, worker, seconds, silent_seconds),) = ledger.running_chunks(["j", "none"])
    assert (job_id, number, worker) == ("j", 0, "w@h")
    assert 0 <= silent_seconds < seconds - 0.01 < 5
