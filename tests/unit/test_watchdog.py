"""A worker that does nothing though there is work: when it is restarted, and how."""

import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from protocol.celery import app
from protocol.ledger import QUEUE
from worker import watchdog

RESTARTED = """
import ctypes, os, signal, sys, threading
from worker.watchdog import PR_SET_PDEATHSIG, parent_death_signal, restart

if "AGAIN" in os.environ:
    print(parent_death_signal())
    sys.exit()
os.environ["AGAIN"] = "1"
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGNAL)
thread = threading.Thread(target=restart, args=(parent_death_signal(),))
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2)")
@pytest.mark.parametrize("number", [0, int(signal.SIGKILL)])
def test_a_worker_that_starts_itself_again_still_ends_with_its_parent(number: int) -> None:
    code = RESTARTED.replace("SIGNAL", str(number))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{number}\n", done.stderr


@pytest.mark.parametrize("told_none", [False, True])
def test_a_worker_that_was_told_to_take_nothing_is_not_idle(
    told_none: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `cancel_consumer`, of Celery or in Flower."""
    restart, clock = Mock(), Mock()
    monkeypatch.setattr(watchdog, "restart", restart)
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr(watchdog, "state", SimpleNamespace(active_requests=[], total_count={}))
    queues = {} if told_none else {QUEUE: object()}
    monkeypatch.setattr(app.amqp.queues, "_consume_from", queues)
    redis = Mock(llen=Mock(return_value=1))
    clock.monotonic.return_value = time.monotonic()
    dog = watchdog.Watchdog()
    for _ in range(2):
        dog._look(redis)
        clock.monotonic.return_value += watchdog.IDLE_SECONDS + 1
    assert restart.called == (not told_none)
