"""No image takes longer than it may."""

import signal
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pytest

from protocol.chunk import Chunk
from tests.drawing import draw_one, encode_image
from worker import classify
from worker.decoding import ImageError
from worker.limits import Watch


def loop(content: bytes) -> None:
    while True:
        pass


def test_what_takes_too_long_is_an_error() -> None:
    watch = Watch(seconds=0.1)
    with watch.running():
        with pytest.raises(ImageError, match=r"takes longer than 0\.1 s"), watch.image():
            loop(b"")
        with watch.image():
            pass  # the next one has its own time


def test_only_the_slow_image_has_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    read = classify.read_digit
    monkeypatch.setattr(classify, "watch", Watch(seconds=0.2))
    monkeypatch.setattr(
        classify, "read_digit", lambda data: loop(data) if data == b"" else read(data)
    )
    good = encode_image(draw_one())
    batch = pa.record_batch({"id": ["a", "b", "c"], "image": [good, b"", good]})
    errors = classify.classify_chunk(Chunk(0, 0, batch), "mlp").column("error").to_pylist()
    assert errors == [None, "takes longer than 0.2 s", None]


def test_time_between_images_is_nobody_s() -> None:
    watch = Watch(seconds=0.05)
    with watch.running():
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            pass


def test_elsewhere_than_in_the_main_thread_there_is_no_limit() -> None:
    done = []

    def work() -> None:
        with Watch(seconds=0.01).running():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_signals_are_as_they_were() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with Watch().running():
        assert signal.getsignal(signal.SIGALRM) != before
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == signal.getitimer(signal.ITIMER_PROF) == (0, 0)


NEVER_BACK = """
import hashlib
from worker import limits
limits.LOST_SECONDS = 0.3
watch = limits.Watch(seconds=0.2)
with watch.running(), watch.image():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)  # minutes, without a word from Python
"""


def test_a_decoder_that_never_comes_back_ends_its_process() -> None:
    ended = subprocess.run([sys.executable, "-c", NEVER_BACK], timeout=60)
    assert ended.returncode == -signal.SIGPROF
