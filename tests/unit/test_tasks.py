"""What a worker does around the images that it reads: signs of life, and notes."""

import signal
from collections.abc import Iterator
from unittest.mock import Mock, call

import PIL.Image
import pyarrow as pa
import pytest

from producer.chunking import cut_chunks
from producer.images import image_source
from protocol.errors import BrokerError
from protocol.ledger import Begun
from tests.drawing import draw_one, draw_tight_ring, encode_image
from worker import classify, limits, tasks
from worker.classify import Read, classify_chunk
from worker.images import Step

SURE, UNSURE = encode_image(draw_one()), encode_image(PIL.Image.fromarray(draw_tight_ring()))


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """One that suspects no image, of a job that goes on."""
    ledger = Mock()
    ledger.suspects.return_value = []
    monkeypatch.setattr(tasks, "ledger", lambda: ledger)
    monkeypatch.setattr(tasks, "hasty_ledger", lambda: ledger)
    return ledger


def answer(images: list[bytes], read: Read) -> pa.RecordBatch:
    return classify_chunk(next(cut_chunks(image_source(images).pieces)), "mlp", read)


def test_a_worker_says_between_two_steps_of_an_image_that_it_goes_on(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RENEW_SECONDS", -1.0)  # each time
    steps = tasks._renewing("job", 4, classify.read_image)(0, b"", lambda content: iter("abc"))
    for count, step in enumerate("abc", 1):
        assert next(steps) == step
        assert ledger.renew.mock_calls == [call("job", 4)] * count
    assert [*steps] == []
    assert ledger.renew.call_count == 4


def test_a_worker_says_so_no_more_often_than_it_needs_to(ledger: Mock) -> None:
    answer([SURE] * 3, tasks._renewing("job", 4, classify.read_image))
    assert ledger.renew.mock_calls == []


def test_a_chunk_that_is_nobody_s_any_more_is_dropped(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RENEW_SECONDS", -1.0)
    ledger.renew.side_effect = [True, True, False]
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(tasks.Dropped):
        answer([SURE] * 3, tasks._renewing("job", 4, classify.read_image))
    assert signal.getsignal(signal.SIGALRM) == before


def test_the_work_goes_on_without_redis(ledger: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "RENEW_SECONDS", -1.0)
    ledger.renew.side_effect = BrokerError("can't reach Redis")
    result = answer([SURE], tasks._renewing("job", 4, classify.read_image))
    assert result.column("error").to_pylist() == [None]


@pytest.mark.parametrize(
    ("failures", "cancelled"), [(tasks.MOST_FAILURES - 1, False), (tasks.MOST_FAILURES, True)]
)
def test_a_chunk_that_fails_again_and_again_ends_its_job(
    failures: int, cancelled: bool, ledger: Mock
) -> None:
    ledger.begin.return_value = Begun(b"rubbish", "mlp", 1, 0.0)
    ledger.fail.return_value = failures
    with pytest.raises(pa.ArrowInvalid):
        tasks.classify("job", 4)
    assert ledger.fail.mock_calls == [call("job", 4)]
    assert ledger.cancel.called == cancelled
    if cancelled:
        job_id, why = ledger.cancel.call_args.args
        assert job_id == "job" and why.startswith("a worker can't classify chunk 4: ")


def test_where_a_worker_died_each_image_is_noted_as_long_as_it_is_at_hand(ledger: Mock) -> None:
    ledger.suspects.return_value = [3]
    answer([SURE, UNSURE, b"text"], tasks._careful("job", 4))
    notes = [[3, 0], [3], [3, 1], [3], [3, 2], [3], [3, ~1], [3]]
    assert ledger.suspect.mock_calls == [call("job", 4, note) for note in notes]


@pytest.mark.parametrize(
    ("deaths", "errors", "views"),
    [
        ([1], [None, None], True),
        ([1, 1], [None, "workers die of this image"], False),
        ([~1, 0, 1], [None, None], True),
        ([~1, ~1], [None, None], False),
    ],
)
def test_an_image_is_given_up_or_its_other_views_are(
    deaths: list[int], errors: list[str | None], views: bool, ledger: Mock
) -> None:
    ledger.suspects.return_value = deaths
    result = answer([SURE, UNSURE], tasks._careful("job", 4))
    assert result.column("error").to_pylist() == errors
    assert (call("job", 4, [*deaths, ~1]) in ledger.suspect.mock_calls) == views


def test_whatever_happens_to_an_image_it_is_noted_no_longer(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(content: bytes) -> Iterator[Step]:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(classify, "trace_digit", fail)
    answer([SURE], tasks._careful("job", 4))
    assert ledger.suspect.mock_calls[-1] == call("job", 4, [])


@pytest.mark.parametrize("step", ["suspect", "renew"])
def test_waiting_for_redis_takes_no_image_s_time(
    step: str, ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RENEW_SECONDS", -1.0)

    def wait_long(*args: object) -> bool:
        for _ in range(int(limits.CLOCK_SECONDS / classify.watch._every) + 2):
            signal.raise_signal(signal.SIGALRM)  # as it comes each time that the watch looks
        return True

    getattr(ledger, step).side_effect = wait_long
    result = answer([SURE], tasks._renewing("job", 4, tasks._careful("job", 4)))
    assert getattr(ledger, step).call_count == 2
    assert result.column("error").to_pylist() == [None]
