"""Who waits for a single call is woken once there is an outcome, whatever became of others."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import Mock, patch

import numpy as np
import pyarrow as pa
import pytest

from digitq.producer import batching
from digitq.producer.batching import Batcher, Call, wake_callers
from digitq.protocol.asked.reading import Reading
from digitq.protocol.chunk import RESULT_SCHEMA
from digitq.protocol.prediction import Prediction, to_predictions
from tests.waiting import wait_for

SEVEN = Prediction(7, 1.0, (0.0,) * 7 + (1.0, 0.0, 0.0), None, False)
LOST = OSError("Redis is lost")


def make_call(loop: asyncio.AbstractEventLoop | None = None) -> Call:
    """One that a coroutine of the loop awaits, or a thread."""
    call = Call(np.zeros(784, np.uint8))
    call.awaited = loop.create_future() if loop else None
    return call


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_everybody_gets_their_own_outcome() -> None:
    """Threads and two event loops; one has given up, and a loop is closed."""
    closed = asyncio.new_event_loop()
    gone = make_call(closed)
    closed.close()
    with running_loop() as first, running_loop() as second:
        calls = [make_call(loop) for loop in (first, second, first, None)]
        given_up = make_call(first)
        assert given_up.awaited and given_up.awaited.cancel()
        outcomes = [SEVEN, SEVEN, LOST, LOST]
        wake = first.call_soon_threadsafe
        with patch.object(first, "call_soon_threadsafe", wraps=wake) as woken:
            wake_callers([(gone, SEVEN), (given_up, SEVEN), *zip(calls, outcomes, strict=True)])
        assert woken.call_count == 1

        async def result_of(call: Call) -> Prediction:
            assert call.awaited
            return await asyncio.wait_for(call.awaited, 20)

        for call, outcome in zip(calls, outcomes, strict=True):
            assert call.outcome is outcome and call.answered.acquire(timeout=20)
            if not call.awaited:
                continue
            found = asyncio.run_coroutine_threadsafe(result_of(call), call.awaited.get_loop())
            if outcome is SEVEN:
                assert found.result(20) is SEVEN
            else:
                with pytest.raises(OSError, match="Redis is lost"):
                    found.result(20)


def test_predictions_can_be_hashed() -> None:
    row = {
        "id": "0",
        "label": 7,
        "confidence": 1.0,
        "probabilities": list(SEVEN.probabilities or ()),
    }
    bad = {"id": "1", "error": "gone", "review": True, "reason": "error"}
    batch = pa.RecordBatch.from_pylist([row | {"review": False}, bad], RESULT_SCHEMA)
    found = to_predictions(batch)
    assert found == [SEVEN, Prediction(None, None, None, "gone", True, "error")]
    assert {SEVEN: "it"}[found[0]] == "it"


def test_a_coroutine_waits_no_longer_than_it_says() -> None:
    batcher = Batcher(Mock(submit=lambda *args, **more: threading.Event().wait(60)))
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        asyncio.run(batcher.ask_async(make_call(), Reading("mlp"), timeout_seconds=0.05))


def test_a_list_of_allowed_numbers_is_forgotten_after_its_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "IDLE_THREAD_SECONDS", 0.01)
    batcher = Batcher(Mock(submit=Mock(side_effect=LOST)))
    for number in range(20):
        with pytest.raises(OSError, match="Redis is lost"):
            batcher.ask(make_call(), Reading("number", b"\n%d" % number), timeout_seconds=60)
    wait_for(lambda: not batcher._queues)
