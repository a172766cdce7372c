"""What a worker does besides reading images: deadlines, notes, giving up."""

import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import Mock, call

import PIL.Image
import pyarrow as pa
import pytest

import digitq
from digitq.producer.sources.in_memory import Image, image_source
from digitq.protocol.errors import BrokerError, DigitqError
from digitq.protocol.records import Begun
from digitq.protocol.settings import settings
from digitq.worker import classify, tasks
from digitq.worker.classify import Read, classify_chunk
from digitq.worker.sight import limits
from digitq.worker.sight.normalisation.steps import Step
from tests.cutting import cut_items
from tests.drawing import draw_one, draw_tight_ring, encode_image, random_digits
from tests.weights import copy_weights

RENEWAL = ("job", 4, 0.0)  # job, chunk, and when it was begun
SURE, UNSURE = encode_image(draw_one()), encode_image(PIL.Image.fromarray(draw_tight_ring()))


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """A ledger without poison rows whose job goes on."""
    ledger = Mock()
    ledger.poison_rows.return_value = []
    ledger.complete.return_value = "48,512 of 120,000 (40 %), 16 failed"
    monkeypatch.setattr(tasks, "ledger", lambda: ledger)
    monkeypatch.setattr(tasks, "ledger_without_retry", lambda: ledger)
    return ledger


def begin(ledger: Mock, images: Sequence[Image], attempt: int) -> None:
    """Have the ledger give a worker these images."""
    chunk = next(cut_items(image_source(images).items))
    ledger.begin.return_value = Begun(chunk.encode(), "mlp", attempt, time.monotonic())


def answer(images: list[bytes], read: Read) -> pa.RecordBatch:
    return classify_chunk(next(cut_items(image_source(images).items)), "mlp", read)


def test_a_worker_says_between_two_steps_of_an_image_that_it_goes_on(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RENEW_SECONDS", -1.0)  # at every step
    steps = tasks.Deadline(*RENEWAL).read(0, b"", lambda content: iter("abc"))
    for count, step in enumerate("abc", 1):
        assert next(steps) == step
        assert ledger.renew.mock_calls == [call("job", 4)] * count
    assert [*steps] == []
    assert ledger.renew.call_count == 4


def test_a_worker_says_so_no_more_often_than_it_needs_to(ledger: Mock) -> None:
    answer([SURE] * 3, tasks.Deadline("job", 4, time.monotonic()).read)
    assert ledger.renew.mock_calls == []


def test_a_worker_says_so_well_within_a_short_deadline(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", "0.3")
    settings.cache_clear()
    clock = Mock()
    monkeypatch.setattr(tasks, "time", clock)
    deadline = tasks.Deadline("job", 4, 0.0)
    for now, said in [(0.09, False), (0.11, True)]:
        clock.monotonic.return_value = now
        deadline.renew()
        assert ledger.renew.called == said


def test_a_chunk_that_is_nobody_s_any_more_is_dropped(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RENEW_SECONDS", -1.0)
    ledger.renew.side_effect = [True, True, False]
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(tasks.Dropped):
        answer([SURE] * 3, tasks.Deadline(*RENEWAL).read)
    assert signal.getsignal(signal.SIGALRM) == before


def test_of_a_chunk_only_the_longest_silence_counts(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the total time of its images."""
    clock = Mock()
    monkeypatch.setattr(tasks, "time", clock)
    clock.monotonic.return_value = 0.0
    deadline = tasks.Deadline("job", 4, 0.0)
    for now in (0.5, 2.0, 5.0, 6.5):
        clock.monotonic.return_value = now
        deadline.renew()
    assert ledger.renew.call_count == 3
    assert deadline.longest_gap() == 3.0
    clock.monotonic.return_value = 10.5
    assert deadline.longest_gap() == 4.0


def test_a_careful_worker_says_between_two_steps_of_an_image_that_it_goes_on(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a slow worker would be taken for dead, and its image for the cause."""
    monkeypatch.setattr(tasks, "RENEW_SECONDS", -1.0)
    steps = tasks.careful_reader(tasks.Deadline(*RENEWAL))(0, b"", lambda content: iter("abc"))
    assert [*steps] == ["c"]
    assert ledger.mock_calls == [
        call.poison_rows("job", 4),
        call.note_poison_rows("job", 4, [0]),
        *[call.renew("job", 4)] * 4,
        call.note_poison_rows("job", 4, []),
    ]


def test_the_work_goes_on_without_redis(ledger: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "RENEW_SECONDS", -1.0)
    ledger.renew.side_effect = BrokerError("can't reach Redis")
    result = answer([SURE], tasks.Deadline(*RENEWAL).read)
    assert result.column("error").to_pylist() == [None]


@pytest.mark.parametrize(
    ("failures", "gives_up"), [(tasks.MAX_FAILURES - 1, False), (tasks.MAX_FAILURES, True)]
)
def test_a_chunk_that_fails_again_and_again_ends_its_job(
    failures: int, gives_up: bool, ledger: Mock, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.begin.return_value = Begun(b"rubbish", "mlp", 1, 0.0)
    ledger.fail.return_value = failures
    with pytest.raises(DigitqError, match="a chunk is damaged"):
        tasks.classify("job", 4)
    assert ledger.fail.mock_calls == [call("job", 4)]
    assert ledger.give_up.called == gives_up
    if gives_up:
        job_id, why = ledger.give_up.call_args.args
        assert job_id == "job" and why.startswith("a worker can't classify chunk 4: ")
    assert caplog.messages[0].startswith("chunk 4 of job job: not classified: ")


def test_a_redis_that_is_lost_is_no_failure_of_a_chunk(ledger: Mock) -> None:
    begin(ledger, [SURE], attempt=2)
    ledger.note_poison_rows.side_effect = BrokerError("can't reach Redis")
    with pytest.raises(BrokerError):
        tasks.classify("job", 4)
    assert not ledger.fail.called and not ledger.give_up.called


def test_a_redis_that_is_lost_as_a_network_is_fetched_is_no_failure(
    ledger: Mock, tmp_path: Path
) -> None:
    own = copy_weights(tmp_path / "own", "mlp", temperature=7.0)
    begin(ledger, [SURE], attempt=1)
    ledger.begin.return_value = ledger.begin.return_value._replace(known="name")
    ledger.known.return_value = digitq.digits(weights=own).known
    ledger.network.side_effect = BrokerError("can't reach Redis")
    with pytest.raises(BrokerError):
        tasks.classify("job", 4)
    assert not ledger.fail.called and not ledger.give_up.called


def test_a_chunk_that_is_dropped_is_no_failure(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RENEW_SECONDS", -1.0)
    ledger.renew.return_value = False
    begin(ledger, [SURE], attempt=1)
    assert tasks.classify("job", 4) == tasks.DISCARDED
    assert not ledger.fail.called and not ledger.complete.called


@pytest.mark.parametrize(("attempt", "noted"), [(1, False), (2, True)])
def test_a_chunk_s_images_are_noted_once_a_worker_may_have_died_of_it(
    attempt: int, noted: bool, ledger: Mock
) -> None:
    begin(ledger, [SURE, b"text"], attempt)
    assert tasks.classify("job", 4).startswith("48,512 of 120,000 (40 %), 16 failed, ")
    assert ledger.note_poison_rows.called == noted
    result = ledger.complete.call_args.args[-1]
    assert (result.failed, result.kind) == (1, "image") and 0 < result.image_seconds < 60


def test_chunks_of_pixels_have_a_pace_too(ledger: Mock) -> None:
    begin(ledger, [random_digits(3)], 1)
    tasks.classify("job", 4)
    result = ledger.complete.call_args.args[-1]
    assert (result.failed, result.kind) == (0, "pixels") and 0 < result.image_seconds < 60


def test_what_is_no_image_says_nothing_of_the_pace(ledger: Mock) -> None:
    begin(ledger, [b"text"], 1)
    tasks.classify("job", 4)
    assert ledger.complete.call_args.args[-1][1:4] == (1, "image", 0)


def test_where_a_worker_died_each_image_is_noted_as_long_as_it_is_at_hand(ledger: Mock) -> None:
    ledger.poison_rows.return_value = [3]
    answer(
        [SURE, UNSURE, b"text"], tasks.careful_reader(tasks.Deadline("job", 4, time.monotonic()))
    )
    notes = [[3, 0], [3], [3, 1], [3], [3, 2], [3], [3, ~1], [3]]
    assert ledger.note_poison_rows.mock_calls == [call("job", 4, note) for note in notes]


@pytest.mark.parametrize(
    ("deaths", "errors", "views"),
    [
        ([1], [None, None], True),
        ([1, 1], [None, "this image crashes workers"], False),
        ([~1, 0, 1], [None, None], True),
        ([~1, ~1], [None, None], False),
    ],
)
def test_an_image_is_given_up_or_its_other_views_are(
    deaths: list[int], errors: list[str | None], views: bool, ledger: Mock
) -> None:
    ledger.poison_rows.return_value = deaths
    result = answer(
        [SURE, UNSURE], tasks.careful_reader(tasks.Deadline("job", 4, time.monotonic()))
    )
    assert result.column("error").to_pylist() == errors
    assert (call("job", 4, [*deaths, ~1]) in ledger.note_poison_rows.mock_calls) == views


def test_whatever_happens_to_an_image_it_is_noted_no_longer(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(content: bytes) -> Iterator[Step]:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(classify, "trace_digit", fail)
    answer([SURE], tasks.careful_reader(tasks.Deadline("job", 4, time.monotonic())))
    assert ledger.note_poison_rows.mock_calls[-1] == call("job", 4, [])


@pytest.mark.parametrize("step", ["note_poison_rows", "renew"])
def test_waiting_for_redis_takes_no_image_s_time(
    step: str, ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RENEW_SECONDS", -1.0)

    def wait_long(*args: object) -> bool:
        for _ in range(int(limits.MAX_CLOCK_SECONDS / classify.watch._every) + 2):
            signal.raise_signal(signal.SIGALRM)  # the watch's timer
        return True

    getattr(ledger, step).side_effect = wait_long
    result = answer([SURE], tasks.careful_reader(tasks.Deadline(*RENEWAL)))
    assert getattr(ledger, step).call_count >= 2
    assert result.column("error").to_pylist() == [None]


def test_a_chunk_that_is_begun_again_and_again_ends_its_job(ledger: Mock) -> None:
    """No matter why it was never completed."""
    begin(ledger, [SURE], attempt=tasks.MAX_ATTEMPTS)
    assert tasks.classify("job", 4).endswith(f" images/s, attempt {tasks.MAX_ATTEMPTS}")
    begin(ledger, [SURE], attempt=tasks.MAX_ATTEMPTS + 1)
    assert tasks.classify("job", 4) == tasks.DISCARDED
    why = f"chunk 4 was begun {tasks.MAX_ATTEMPTS} times and never done"
    assert ledger.give_up.mock_calls == [call("job", why)]


def test_calls_with_lengths_do_not_displace_a_list(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "lists", {})
    known = {"list": b"\n7\n8", **{f"length {n}": rb'["\\d{%d}", ""]' % n for n in range(1, 9)}}
    ledger.known.side_effect = lambda job_id, name: known[name]
    for name in (*known, "list"):
        assert tasks.fetch_known("job", name).encode() == known[name]
    assert [one.args[1] for one in ledger.known.mock_calls] == [*known]
