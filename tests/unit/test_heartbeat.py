"""The heartbeats of a worker, the rate that they tell, and the probe that looks at their file."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from celery.utils.nodenames import default_nodename, host_format

from digitq.cli import main
from digitq.protocol.errors import BrokerError
from digitq.protocol.host.probe import MAX_FILE_AGE_SECONDS, HeartbeatFile, node_name
from digitq.protocol.keys import QUEUE
from digitq.worker.service import heartbeat_threads as heartbeat
from digitq.worker.service.meter import RATE_SECONDS, Meter
from digitq.worker_check import check_worker
from tests.waiting import wait_for

ONE_HEARTBEAT = "from digitq.protocol.host.probe import HeartbeatFile; HeartbeatFile('w').write('')"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "given", [None, "w", "w@%h", "w@host", "%n@%d", "@%n", "w@", "a@b@c", "w%i@%h", "w%I@h"]
)
@pytest.mark.parametrize("host", ["host", "host.example.org"])
def test_a_worker_s_name_is_the_one_that_celery_makes(
    given: str | None, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    monkeypatch.setattr("celery.utils.nodenames.gethostname", lambda: host)
    assert node_name(given) == host_format(default_nodename(given or ""))


def test_a_heartbeat_is_about_one_worker() -> None:
    file = HeartbeatFile("a/b")
    assert "no worker a/b was here" in (file.find_fault("live") or "")
    file.write("no Redis")
    assert file.find_fault("live") is None and file.find_fault("ready") == "no Redis"
    file.write("")
    assert file.find_fault("ready") is None
    assert HeartbeatFile("a_b").find_fault("live")
    assert [*file.path.parent.iterdir()] == [file.path]


def test_a_silent_worker_is_not_live() -> None:
    file = HeartbeatFile("w")
    file.write("")
    then = file.path.stat().st_mtime - MAX_FILE_AGE_SECONDS - 1
    os.utime(file.path, (then, then))
    assert file.find_fault("live") == "no heartbeat for 11 s"


def test_a_worker_that_has_ended_is_not_live_and_leaves_its_name(folder: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(folder)}
    subprocess.run([sys.executable, "-c", ONE_HEARTBEAT], env=environment, check=True)
    file = HeartbeatFile("w")
    assert "has ended" in (file.find_fault("live") or "")
    file.write("")
    assert file.find_fault("live") is None


def test_a_name_belongs_to_the_first_worker() -> None:
    file = HeartbeatFile("w")
    file.write("")
    file.path.write_text(f"{os.getppid()} ")  # as if another process had
    with pytest.raises(FileExistsError, match="another worker of this host is w; set --hostname"):
        file.write("no Redis")
    assert file.find_fault("ready") is None


@pytest.mark.parametrize("content", [b"", b"none ", b"\xff"])
def test_a_damaged_file_is_no_heartbeat(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    file = HeartbeatFile("w@h")
    file.path.write_bytes(content)
    assert check_worker(["--check", "live", "-nw@h"]) == 1
    assert capsys.readouterr().err.endswith(" is missing or damaged\n")
    file.write("")
    assert file.find_fault("ready") is None


def test_heartbeats_go_on_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a warm shutdown, at the end of which Celery's pool is closed."""

    class Enough(BaseException):
        """Ends the heartbeats."""

    odd, lost = ZeroDivisionError("odd"), BrokerError("lost")
    beat = Mock(side_effect=[None, odd, lost, odd, None, lost, Enough])
    monkeypatch.setattr(heartbeat, "WORKER_HEARTBEAT_SECONDS", 0)
    with pytest.raises(Enough):
        heartbeat.repeat(beat, "`--check`")
    assert caplog.messages == ["`--check` can't see this worker: ZeroDivisionError: odd"]


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> Iterator[frozenset[str]]:
    """A worker of these queues is connected."""
    monkeypatch.setattr(heartbeat, "connected", Mock(is_set=lambda: True))
    yield frozenset(heartbeat.app.amqp.queues.consume_from)
    heartbeat.app.amqp.queues.select(None)


def test_a_worker_that_takes_nothing_from_a_queue_is_not_ready(ready: frozenset[str]) -> None:
    pool = SimpleNamespace(info={}, num_processes=1)
    assert heartbeat.find_missing(pool, ready) == ""
    heartbeat.app.amqp.queues.deselect(QUEUE)
    told = "it was told to take nothing from the queue digitq"
    assert heartbeat.find_missing(pool, ready) == told
    assert heartbeat.find_missing(pool, ready - {QUEUE}) == ""  # it was started so, with -Q


def test_a_worker_with_a_process_that_is_stopped_is_not_ready(ready: frozenset[str]) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        pool = SimpleNamespace(info={"processes": [os.getpid(), child.pid]}, num_processes=1)
        try:
            assert heartbeat.find_missing(pool, ready) == ""
            child.send_signal(signal.SIGSTOP)
            told = f"process {child.pid} is stopped"
            wait_for(lambda: heartbeat.find_missing(pool, ready) == told)
        finally:
            child.kill()


def test_a_restarted_worker_is_not_ready() -> None:
    heartbeat.say_not_ready("w")
    assert "no worker w was here" in (HeartbeatFile("w").find_fault("live") or "")
    HeartbeatFile("w").write("")
    heartbeat.say_not_ready("w")
    assert HeartbeatFile("w").find_fault("live") is None
    assert HeartbeatFile("w").find_fault("ready") == "it is starting"


def test_a_folder_of_another_user_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert check_worker(["--check", "live", "-nw"]) == 1
    err = capsys.readouterr().err
    assert err.endswith(f"w is not live: {folder}/digitq-workers-12345 belongs to another user\n")


def test_a_folder_that_can_t_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    assert check_worker(["--check", "ready"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", [["-n", "w@h"], ["-nw@h"], ["--hostname", "w@h"]])
def test_a_probe_says_what_it_finds(name: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    HeartbeatFile("w@h").write("no Redis")
    arguments = ["--broker", "redis://x", *name, "-c", "4", "-B"]
    assert check_worker([*arguments, "--check", "live"]) == 0
    assert capsys.readouterr() == ("w@h is live\n", "")
    assert check_worker([*arguments, "--check=ready"]) == 1
    assert capsys.readouterr() == ("", "digitq: w@h is not ready: no Redis\n")


@pytest.mark.parametrize("arguments", [[], ["--check"], ["--check", "alive"], ["--checks"]])
def test_what_asks_for_no_probe(arguments: list[str]) -> None:
    assert check_worker(arguments) is None


@pytest.mark.parametrize(("wanted", "status"), [("live", 1), ("ready", 1), ("alive", 2)])
def test_the_command_line_knows_the_probe(wanted: str, status: int) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["worker", "-nw", "--check", wanted])
    assert ended.value.code == status


@pytest.mark.parametrize(
    ("info", "loaded"),
    [
        ({}, True),  # a pool of threads
        ({"writes": "N/A"}, False),  # it has not started yet
        ({"writes": {"inqueues": {"total": 1}}}, False),
        ({"writes": {"inqueues": {"total": 2}}}, True),
    ],
)
def test_a_pool_has_loaded_the_networks_once_all_its_processes_say_so(
    info: dict[str, object], loaded: bool
) -> None:
    assert heartbeat.has_loaded(SimpleNamespace(info=info, num_processes=2)) == loaded


def test_a_rate_leaves_out_the_idle_time_before_the_work() -> None:
    meter = Meter()
    assert meter.rate == 0
    for second in range(0, 60, 2):
        meter.read(7, second)
    assert meter.rate == 0
    for second in range(60, 80, 2):
        meter.read(7 + 100 * (second - 58), second)
        assert meter.rate == 100


def test_a_rate_is_that_of_the_last_seconds() -> None:
    meter = Meter()
    for second in range(100):
        meter.read(100 * min(second, 50), second)
        assert meter.rate <= 100 and (meter.rate > 0) == (0 < second < 50 + RATE_SECONDS)


def test_a_count_that_redis_has_lost_gives_no_rate() -> None:
    meter = Meter()
    for second, count in enumerate((100, 200, 5, 15)):
        meter.read(count, second)
    assert meter.rate == 10
