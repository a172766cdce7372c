"""An image that takes too long is interrupted."""

import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pyarrow as pa
import pytest

from digitq.protocol.chunk import Chunk
from digitq.worker import classify
from digitq.worker.classify import Reader, T
from digitq.worker.picture import ImageError
from digitq.worker.sight import limits
from digitq.worker.sight.limits import Watch
from tests.drawing import draw_one, encode_image
from tests.waiting import wait_for


def loop(content: bytes) -> None:
    while True:
        pass


def test_what_takes_too_long_is_an_error() -> None:
    watch = Watch(seconds=0.1)
    with watch.running():
        with pytest.raises(ImageError, match=r"takes longer than 0\.1 s"), watch.on(1):
            loop(b"")
        with watch.on(2):
            pass  # the next image has its own time


def test_a_process_of_others_is_neither_ended_nor_limited() -> None:
    """What its other threads compute is no image's time."""
    watch = Watch(seconds=0.2)
    watch.spare_process()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    busy = threading.Thread(target=spin, args=(0.5,))
    busy.start()
    with watch.running(), watch.on(1):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
        assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
        busy.join()
        with pytest.raises(ImageError):
            loop(b"")


def test_only_the_slow_image_has_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    read = classify.trace_digit
    monkeypatch.setattr(classify, "watch", Watch(seconds=1))
    monkeypatch.setattr(
        classify, "trace_digit", lambda data: loop(data) if data == b"" else read(data)
    )
    good = encode_image(draw_one())
    batch = pa.record_batch({"id": ["a", "b", "c"], "image": [good, b"", good]})
    errors = classify.classify_chunk(Chunk(0, batch), "mlp").column("error").to_pylist()
    assert errors == [None, "takes longer than 1 s", None]


def spin(seconds: float) -> None:
    """Use the processor for this long."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_an_image_has_its_time_in_all_its_turns_together() -> None:
    watch = Watch(seconds=0.2)
    begun = time.process_time()
    with watch.running(), pytest.raises(ImageError):
        while time.process_time() < begun + 5:
            with watch.on(1):
                spin(0.15)
            with watch.on(2):
                pass


def test_an_image_is_ended_in_its_own_time_though_others_are_slow_as_well() -> None:
    watch = Watch(seconds=0.4)
    begun = time.process_time()
    with watch.running(), pytest.raises(ImageError):
        while time.process_time() < begun + 10:
            for image in range(4):
                with watch.on(image):
                    spin(0.07)
    assert 0.45 < time.process_time() - begun < 5  # about 4 × 0.4


def read_thrice(watch: Watch, work: Callable[[], object]) -> None:
    for _ in range(3):
        with watch.running(), watch.on(1):
            work()


def test_an_image_has_one_time_however_often_it_is_read() -> None:
    with pytest.raises(ImageError):
        read_thrice(Watch(seconds=0.2), lambda: spin(0.12))


def test_the_time_that_it_waits_is_one_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CLOCK_SECONDS", 1)
    with pytest.raises(ImageError):
        read_thrice(Watch(seconds=1), lambda: threading.Event().wait(0.6))


def test_the_next_chunks_images_have_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CLOCK_SECONDS", 1)
    watch = Watch(seconds=0.2)
    for work in (lambda: spin(0.12), lambda: threading.Event().wait(0.6)):
        for _ in range(3):
            watch.forget()
            with watch.running(), watch.on(1):
                work()


def test_an_image_of_another_chunk_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify, "watch", Watch(seconds=0.5))

    def read_slowly(row: int, content: bytes, reader: Reader[T]) -> Iterator[T]:
        spin(0.3)
        return reader(content)

    file = encode_image(draw_one())
    chunk = Chunk(0, pa.record_batch({"id": ["a"], "image": [file]}))
    for _ in range(3):
        result = classify.classify_chunk(chunk, "random", read_slowly)
        assert result.column("error").to_pylist() == [None]


def test_who_swallows_the_limit_meets_it_again() -> None:
    watch = Watch(seconds=0.1)
    with watch.running(), pytest.raises(ImageError), watch.on(1):
        with suppress(ImageError):
            spin(5)
        spin(5)


def test_what_is_no_work_on_the_image_at_hand_is_not_counted() -> None:
    watch = Watch(seconds=0.1)
    with watch.running(), watch.on(1):
        with watch.on(None):
            spin(0.3)
        with pytest.raises(ImageError):
            spin(5)


def test_what_only_waits_is_ended_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CLOCK_SECONDS", 0.1)
    watch = Watch(seconds=1)
    with watch.running(), pytest.raises(ImageError), watch.on(1):
        threading.Event().wait(60)


def test_waiting_counts_in_all_turns_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CLOCK_SECONDS", 0.3)
    watch = Watch(seconds=0.2)
    with watch.running(), pytest.raises(ImageError):
        for _ in range(30):
            with watch.on(1):
                threading.Event().wait(0.1)


def test_time_between_images_is_nobody_s() -> None:
    watch = Watch(seconds=0.05)
    with watch.running():
        spin(0.2)
        with watch.on(1):
            pass
        spin(0.2)


def test_elsewhere_than_in_the_main_thread_there_is_no_limit() -> None:
    done = []

    def work() -> None:
        watch = Watch(seconds=0.01)
        with watch.running(), watch.on(1):
            spin(0.1)
            done.append(resource.getrlimit(resource.RLIMIT_DATA))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [resource.getrlimit(resource.RLIMIT_DATA)]


def test_signals_and_timers_are_as_they_were() -> None:
    numbers = (signal.SIGALRM, signal.SIGPROF)
    before = [signal.getsignal(number) for number in numbers]
    outer = signal.setitimer(signal.ITIMER_REAL, 1000)  # pytest-timeout sets one, too
    try:
        with Watch().running():
            assert signal.getsignal(signal.SIGALRM) != before[0]
        assert [signal.getsignal(number) for number in numbers] == before
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
        assert signal.getitimer(signal.ITIMER_PROF)[0] == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)


def test_each_look_puts_off_the_moment_when_all_is_lost() -> None:
    watch = Watch(seconds=0.1)
    with watch.running(), watch.on(1):
        signal.setitimer(signal.ITIMER_PROF, limits.LOST_SECONDS / 2)
        later = limits.LOST_SECONDS * 0.7
        wait_for(lambda: signal.getitimer(signal.ITIMER_PROF)[0] > later, seconds=10)


NEVER_BACK = """
import hashlib
from digitq.worker.sight import limits
limits.LOST_SECONDS = 0.3
watch = limits.Watch(seconds=0.2)
with watch.running(), watch.on(1):
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)  # takes minutes outside of Python
"""


def test_a_decoder_that_never_comes_back_ends_its_process() -> None:
    ended = subprocess.run([sys.executable, "-c", NEVER_BACK], timeout=60)
    assert ended.returncode == -signal.SIGPROF
