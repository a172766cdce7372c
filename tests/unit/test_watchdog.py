"""When the watchdog restarts a worker or kills one of its processes, and how."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock, call

import pytest

from digitq.protocol.app import CLASSIFY, CLASSIFY_IMAGE, app
from digitq.protocol.errors import BrokerError
from digitq.protocol.keys import BOOKED_QUEUE, CALLS_QUEUE, QUEUE
from digitq.worker.service import watchdog

RESTARTED = """
import ctypes, os, signal, sys, threading, time
import billiard
from digitq.worker.service.watchdog import PR_SET_PDEATHSIG, parent_death_signal, restart

if "AGAIN" in os.environ:
    print(parent_death_signal(), os.path.exists(f"/proc/{os.environ['CHILD']}"))
    sys.exit()
os.environ["AGAIN"] = "1"
child = billiard.Process(target=time.sleep, args=(60,))
child.start()
os.environ["CHILD"] = str(child.pid)
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGNAL)
thread = threading.Thread(target=restart, args=(parent_death_signal(),))
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2)")
@pytest.mark.parametrize("number", [0, int(signal.SIGKILL)])
def test_a_worker_that_starts_itself_again_ends_with_its_parent_and_ends_its_pool(
    number: int,
) -> None:
    code = RESTARTED.replace("SIGNAL", str(number))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{number} False\n", done.stderr


class Dog:
    """A watchdog in a worker that reads the queue, with a clock that the test sets."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.restart, self.kill, self.clock = Mock(), Mock(), Mock()
        self.requests: list[SimpleNamespace] = []
        self.redis = Mock(exists=Mock(return_value=1), zscore=Mock(return_value=None))
        self.clock.monotonic.return_value = 0.0
        self.queues: dict[str, object] = {QUEUE: object()}
        state = SimpleNamespace(active_requests=self.requests, total_count={})
        patch.setattr(watchdog, "restart", self.restart)
        patch.setattr(watchdog, "time", self.clock)
        patch.setattr(watchdog, "state", state)
        patch.setattr(watchdog, "connect", lambda url: self.redis)
        patch.setattr(os, "kill", self.kill)
        patch.setattr(app.amqp.queues, "_consume_from", self.queues)
        conf = SimpleNamespace(digitq_database_url="")
        patch.setattr(watchdog, "app", SimpleNamespace(amqp=app.amqp, conf=conf))

    def add(
        self, pid: int | None, name: str = CLASSIFY, args: tuple[object, ...] = ("j", 0)
    ) -> None:
        """Add a task that a process of the pool is running."""
        self.requests.append(SimpleNamespace(id="r", name=name, args=args, worker_pid=pid))

    def look(self, *moments: float) -> None:
        """Run the watchdog until it has looked at these times."""
        times = iter(moments)

        def sleep(seconds: float) -> None:
            if (moment := next(times, None)) is None:
                raise SystemExit
            self.clock.monotonic.return_value = moment

        self.clock.sleep.side_effect = sleep
        with pytest.raises(SystemExit):
            watchdog.Watchdog().run()


@pytest.fixture
def dog(monkeypatch: pytest.MonkeyPatch) -> Dog:
    return Dog(monkeypatch)


@pytest.mark.parametrize("told_none", [False, True])
def test_a_worker_that_was_told_to_take_nothing_is_not_idle(told_none: bool, dog: Dog) -> None:
    """As by `cancel_consumer` of Celery, or in Flower."""
    if told_none:
        dog.queues.clear()
    dog.look(0, watchdog.IDLE_SECONDS + 1)
    assert dog.restart.called == (not told_none)


def test_each_queue_that_a_worker_reads_is_looked_at(dog: Dog) -> None:
    dog.queues[BOOKED_QUEUE] = object()
    dog.redis.exists.side_effect = lambda *lists: BOOKED_QUEUE in lists and CALLS_QUEUE in lists
    dog.look(0, watchdog.IDLE_SECONDS + 1)
    assert dog.restart.called


@pytest.mark.parametrize("name", [CLASSIFY, CLASSIFY_IMAGE])
def test_a_worker_that_is_at_a_chunk_is_left_alone(name: str, dog: Dog) -> None:
    dog.add(pid=5, name=name)
    dog.redis.zscore.return_value = 1.0  # its chunk is still running
    dog.look(0, watchdog.IDLE_SECONDS + 1)
    assert not dog.restart.called and not dog.kill.called


@pytest.mark.parametrize("name", [CLASSIFY, CLASSIFY_IMAGE])
@pytest.mark.parametrize(
    ("pid", "killed"),
    [(5, True), (os.getpid(), False), (None, False)],
    ids=["a child", "itself", "none yet"],
)
def test_a_process_that_hangs_is_killed_unless_it_is_the_worker_itself(
    pid: int | None, killed: bool, name: str, dog: Dog
) -> None:
    """As with `--pool solo`."""
    dog.add(pid, name)
    dog.look(0, watchdog.IDLE_SECONDS - 1)
    assert not dog.kill.called
    dog.look(0, watchdog.IDLE_SECONDS + 1)
    assert dog.kill.mock_calls == [call(5, signal.SIGKILL)] * killed


def test_tasks_of_others_are_not_looked_at(dog: Dog) -> None:
    dog.add(pid=5, name="others.task")
    dog.add(pid=5, args=("j",))
    dog.look(0, watchdog.IDLE_SECONDS + 1)
    assert not dog.redis.zscore.called and not dog.kill.called


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_a_redis_that_was_lost_says_nothing_of_the_time_before(
    lost: bool, hangs: bool, dog: Dog
) -> None:
    if hangs:
        dog.add(pid=5)
    asked = dog.redis.zscore if hangs else dog.redis.exists
    answer = None if hangs else 1
    asked.side_effect = [answer, BrokerError("lost") if lost else answer, answer]
    dog.look(0, watchdog.IDLE_SECONDS / 2, watchdog.IDLE_SECONDS + 1)
    assert dog.kill.called == (hangs and not lost)
    assert dog.restart.called == (not hangs and not lost)
