"""`Client.classify` and `classify_async`: single images, on a real Redis with real workers."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from warnings import catch_warnings

import pytest
import torch

import digitq
from digitq import Client
from digitq.private.processes import Local
from digitq.producer.batching import MAX_THREADS, PIXELS_LIMITS, CallQueue, read_call
from digitq.protocol.asked.reading import Reading
from digitq.protocol.chunk import MODEL_ROWS
from digitq.protocol.errors import BrokerError, JobFailedError, UsageError
from digitq.protocol.keys import ACTIVE, CALLS_QUEUE, JOBS
from digitq.worker.models.model import load_model
from tests.drawing import draw_one, encode_image, random_digits
from tests.waiting import children_of, freeze, wait_for

CALLERS = 64
UNDER_WAY = PIXELS_LIMITS.max_batches  # batches at a time; the other calls wait
DIGITS = random_digits(CALLERS)
torch.set_num_threads(1)  # as in a worker: the last bits change with the number of threads
ALONE = [tuple(load_model("mlp").classify(digit.reshape(1, 784))[0].tolist()) for digit in DIGITS]


def chunks_sent(client: Client) -> int:
    """How many messages went into the queue since the server's counts were set back."""
    return int(client.ledger.redis.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"])


def keys_of_jobs(client: Client) -> list[bytes]:
    return [*client.ledger.redis.keys("digitq:job:*"), *client.ledger.redis.keys(JOBS)]


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CALLERS) as pool:
        yield pool


def test_a_forked_process_waits_for_no_thread_of_its_parent(client: Client) -> None:
    """Batches are under way there, and the lock is held."""
    key, busy = (os.getpid(), Reading("mlp"), True), [threading.current_thread()] * UNDER_WAY
    client._calls._queues[key] = CallQueue(Reading("mlp"), is_pixels=True, threads=busy)
    more, held, done = client._calls._queues[key].more, threading.Event(), threading.Event()

    def hold() -> None:
        with more:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with catch_warnings(action="ignore"):  # of forks beside threads
        child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            os._exit(client.classify(DIGITS[0]).probabilities != ALONE[0])
        finally:
            os._exit(2)
    done.set()
    holder.join()
    assert os.waitpid(child, 0)[1] == 0
    del client._calls._queues[key]


def test_threads_share_chunks_and_get_the_answers_of_a_lone_caller(
    client: Client, callers: ThreadPoolExecutor
) -> None:
    client.ledger.redis.config_resetstat()
    together = threading.Barrier(CALLERS)

    def ask(number: int) -> list[float] | None:
        together.wait()
        return client.classify(DIGITS[number]).probabilities

    assert list(callers.map(ask, range(CALLERS))) == ALONE
    assert 1 <= chunks_sent(client) < CALLERS / 2


def test_calls_of_separate_clients_are_classified_together(
    local: Local, client: Client, callers: ThreadPoolExecutor
) -> None:
    """While the worker stands still, they gather. Flower hears of those that Celery did not see."""
    worker = local._processes["worker1"].pid
    events = client.ledger.redis.pubsub(ignore_subscribe_messages=True)
    os.killpg(worker, signal.SIGSTOP)
    try:
        answers = [callers.submit(Client(local.url).classify, digit) for digit in DIGITS]
        wait_for(lambda: client.ledger.redis.llen(CALLS_QUEUE) > CALLERS / 2)
        events.subscribe("/0.celeryev/task.succeeded")
        events.get_message(timeout=20)
    finally:
        os.killpg(worker, signal.SIGCONT)
    assert [answer.result().probabilities for answer in answers] == ALONE
    wait_for(lambda: events.get_message(timeout=1))
    events.close()


def test_tasks_of_an_event_loop_share_chunks(client: Client) -> None:
    client.ledger.redis.config_resetstat()

    async def ask_all() -> list[list[float] | None]:
        answers = await asyncio.gather(*map(client.classify_async, DIGITS))
        return [answer.probabilities for answer in answers]

    assert asyncio.run(ask_all()) == ALONE
    assert 1 <= chunks_sent(client) < CALLERS / 2


def test_the_event_loop_runs_on_meanwhile(redis_only: Local) -> None:
    """Without workers there is no answer: a call can be given up."""
    client = Client(redis_only.url, retry_seconds=1)

    async def give_up() -> None:
        for image in (DIGITS[0], encode_image(draw_one())):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.classify_async(image), 0.05)

    asyncio.run(give_up())


def test_an_error_is_its_caller_s_alone(
    client: Client, callers: ThreadPoolExecutor, tmp_path: Path
) -> None:
    good = encode_image(draw_one())
    images: list[Any] = [good, b"text", object(), draw_one()]
    images += [tmp_path / "none.png", DIGITS[0], DIGITS[:2]]
    answers = [callers.submit(client.classify, image) for image in images]
    assert answers[0].result().label == answers[3].result().label is not None
    assert answers[1].result().error == "not an image that can be read"
    assert answers[4].result().error == "can't be read: No such file or directory"
    assert answers[5].result().probabilities == ALONE[0]
    with pytest.raises(UsageError, match="image 0 has the type object"):
        answers[2].result()
    with pytest.raises(UsageError, match="`classify` takes one image"):
        answers[6].result()


def test_each_call_has_its_model(client: Client, callers: ThreadPoolExecutor) -> None:
    models = ["mlp", "cnn", "random"] * 4
    readings = map(digitq.digits, models)
    answers = callers.map(client.classify, [DIGITS[0]] * len(models), readings)
    for model, answer in zip(models, answers, strict=True):
        expected = load_model(model).classify(DIGITS[:1].reshape(1, 784))[0]
        assert answer.probabilities == tuple(expected.tolist())
    with pytest.raises(UsageError, match="there are: mlp, cnn, random"):
        client.classify(DIGITS[0], digitq.digits("cnn9"))


def test_calls_of_a_slow_model_keep_to_its_chunks(redis_only: Local) -> None:
    calls = Client(redis_only.url)._calls
    queue = CallQueue(Reading("cnn"), is_pixels=True)
    queue.waiting.extend(read_call(DIGITS[0], Reading("mlp")) for _ in range(600))
    assert len(calls._take_calls(queue)) == MODEL_ROWS["cnn"]


def test_a_thousand_calls_leave_nothing_in_redis(
    client: Client, callers: ThreadPoolExecutor
) -> None:
    before = keys_of_jobs(client)
    for answer in callers.map(lambda n: client.classify(DIGITS[n % CALLERS]), range(1000)):
        assert answer.error is None
    assert keys_of_jobs(client) == before
    assert client.ledger.redis.scard(ACTIVE) == 0 and client.ledger.redis.llen(CALLS_QUEUE) == 0


@pytest.fixture
def harmed() -> Iterator[Local]:
    """A Redis with a worker of its own, for a test that harms them. A worker that had calls which
    Redis forgot may still be busy with them, and takes no others once it is frozen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITQ_DEADLINE_SECONDS", "1")
        with Local(workers=1) as local:
            local.wait_until_ready()
            yield local


@pytest.mark.parametrize("harm", ["Redis forgets the calls", "the worker is killed with them"])
def test_calls_outlive_harm(
    harm: str, callers: ThreadPoolExecutor, harmed: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker stands still with some calls in hand; others are in the queue."""
    monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", "1")
    client = Client(harmed.url, retry_seconds=1)
    child = children_of(harmed._processes["worker1"].pid)[0]
    freeze(child)
    answers = [callers.submit(client.classify, digit) for digit in DIGITS[:8]]
    wait_for(lambda: len(client.jobs()) > client.ledger.redis.llen(CALLS_QUEUE))
    in_hand = len(client.jobs())
    answers += [callers.submit(client.classify, digit) for digit in DIGITS[8:]]
    wait_for(lambda: len(client.jobs()) > in_hand)
    if harm.startswith("Redis"):
        client.ledger.redis.flushall()
        os.kill(child, signal.SIGCONT)
    else:
        os.kill(child, signal.SIGKILL)
    assert [answer.result().probabilities for answer in answers] == ALONE


def test_a_lost_redis_is_every_caller_s_error(callers: ThreadPoolExecutor) -> None:
    with Local(workers=0) as local:
        client = Client(local.url, retry_seconds=0)
        answers = [callers.submit(client.classify, digit) for digit in DIGITS]
        wait_for(lambda: client.ledger.redis.llen(CALLS_QUEUE))
    for answer in answers:
        with pytest.raises(BrokerError, match="can't reach Redis"):
            answer.result()


def test_a_batch_that_failed_is_every_caller_s_error(
    callers: ThreadPoolExecutor, redis_only: Local
) -> None:
    client = Client(redis_only.url, retry_seconds=1)
    answer = callers.submit(client.classify, DIGITS[0])
    wait_for(client.jobs)
    client.ledger.give_up(client.jobs()[0].id, "a worker can't")
    with pytest.raises(JobFailedError, match="has failed: a worker can't"):
        answer.result()


def test_a_thread_that_can_t_start_is_the_caller_s_error(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody's who asks later."""
    client = Client(local.url, retry_seconds=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("no thread")))
        with pytest.raises(RuntimeError, match="no thread"):
            client.classify(DIGITS[0])
    (queue,) = client._calls._queues.values()
    assert not queue.waiting
    assert client.classify(DIGITS[0]).probabilities == ALONE[0]


def test_a_call_is_given_up_and_kept_no_longer(redis_only: Local) -> None:
    client = Client(redis_only.url, retry_seconds=1)
    with pytest.raises(TimeoutError, match=r"no answer within 0.1 s"):  # sent
        client.classify(DIGITS[0], timeout_seconds=0.1)
    (queue,) = client._calls._queues.values()
    queue.threads *= MAX_THREADS  # so that none is free
    for seconds in (0.1, 0, -1):
        with pytest.raises(TimeoutError):
            client.classify(DIGITS[1], timeout_seconds=seconds)
        assert not queue.waiting

    async def give_up() -> None:
        await asyncio.wait_for(client.classify_async(DIGITS[2]), 0.1)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert not queue.waiting


def test_calls_do_not_wait_for_one_that_is_lost(redis_only: Local) -> None:
    """Until its deadline, as where a worker died with it."""
    client = Client(redis_only.url, retry_seconds=1)
    lost = read_call(DIGITS[0], Reading("mlp"))
    sending = client._calls._queued(lost, Reading("mlp"))
    sending.__enter__()
    wait_for(lambda: client.ledger.redis.llen(CALLS_QUEUE))
    client.ledger.redis.delete(CALLS_QUEUE)
    client._calls._ledger = Mock(wraps=client.ledger, sweep_job=Mock())  # it stays lost
    redis_only._start_worker("worker1")
    assert client.classify(DIGITS[1], timeout_seconds=float("inf")).probabilities == ALONE[1]
    assert lost.outcome is None


def test_nothing_keeps_python_from_ending(redis_only: Local) -> None:
    """A call that was given up, and one whose thread is interrupted, with no worker to answer."""
    code = f"""
import asyncio, os, signal, numpy as np
from digitq import Client
from tests.waiting import wait_for

client = Client({redis_only.url!r})
image = np.zeros((28, 28), np.uint8)
try:
    asyncio.run(asyncio.wait_for(client.classify_async(image), 0.1))
except TimeoutError:
    print("given up")
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.1)
client.classify(image)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "given up\n"
    assert done.stderr.endswith("KeyboardInterrupt\n"), done.stderr


def test_pixels_that_were_reshaped_go_with_pixels(
    client: Client, callers: ThreadPoolExecutor
) -> None:
    """And files with files."""
    images = [DIGITS[0][..., None], encode_image(draw_one())] * 8
    answers = [*callers.map(client.classify, images)]
    assert all(answer.probabilities == ALONE[0] for answer in answers[::2])
    assert all(answer.label == 1 for answer in answers[1::2])
