"""Signs of life, and the probe that looks at them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery.utils.nodenames import default_nodename, host_format

from digitq.check import check_worker
from digitq.cli import main
from protocol.host.probe import MAX_PULSE_AGE_SECONDS, Pulse, node_name
from worker.service import heartbeat as worker_pulse

ONE_BEAT = "from protocol.host.probe import Pulse; Pulse('w').beat('')"


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


def test_a_sign_of_life_is_about_one_worker() -> None:
    pulse = Pulse("a/b")
    assert "no worker a/b was here" in (pulse.find_fault("live") or "")
    assert pulse.beat("no Redis")
    assert pulse.find_fault("live") is None and pulse.find_fault("ready") == "no Redis"
    assert pulse.beat("") and pulse.find_fault("ready") is None
    assert Pulse("a_b").find_fault("live")
    assert [*pulse.path.parent.iterdir()] == [pulse.path]


def test_a_silent_worker_is_not_live() -> None:
    pulse = Pulse("w")
    pulse.beat("")
    then = pulse.path.stat().st_mtime - MAX_PULSE_AGE_SECONDS - 1
    os.utime(pulse.path, (then, then))
    assert pulse.find_fault("live") == "no sign of life for 11 s"


def test_a_worker_that_has_ended_is_not_live_and_leaves_its_name(folder: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(folder)}
    subprocess.run([sys.executable, "-c", ONE_BEAT], env=environment, check=True)
    pulse = Pulse("w")
    assert "has ended" in (pulse.find_fault("live") or "")
    assert pulse.beat("") and pulse.find_fault("live") is None


def test_a_name_belongs_to_the_first_worker() -> None:
    pulse = Pulse("w")
    pulse.beat("")
    pulse.path.write_text(f"{os.getppid()} ")  # as if another process had
    assert not pulse.beat("no Redis")
    assert pulse.find_fault("ready") is None


@pytest.mark.parametrize("content", [b"", b"none ", b"\xff"])
def test_a_damaged_sign_of_life_is_none(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    pulse = Pulse("w@h")
    pulse.path.write_bytes(content)
    assert check_worker(["--check", "live", "-nw@h"]) == 1
    assert capsys.readouterr().err.endswith(" is missing or damaged\n")
    assert pulse.beat("") and pulse.find_fault("ready") is None


def test_signs_of_life_go_on_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Enough(Exception):
        """Ends the beat."""

    worker = SimpleNamespace(hostname="w", pool=None)
    missing = iter([ZeroDivisionError("odd"), ZeroDivisionError("odd"), ""])

    def find_missing(_: object) -> str:
        found = next(missing)
        if isinstance(found, Exception):
            raise found
        return found

    def sleep(_: float) -> None:
        if Pulse("w").find_fault("ready") is None:
            raise Enough

    monkeypatch.setattr(worker_pulse, "find_missing", find_missing)
    monkeypatch.setattr(worker_pulse, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(Enough):
        worker_pulse.beat(worker)
    (message,) = caplog.messages
    assert message.endswith("no sign of life can be given: ZeroDivisionError: odd")


def test_a_restarted_worker_is_not_ready() -> None:
    worker_pulse.say_not_ready("w")
    assert "no worker w was here" in (Pulse("w").find_fault("live") or "")
    Pulse("w").beat("")
    worker_pulse.say_not_ready("w")
    assert Pulse("w").find_fault("live") is None
    assert Pulse("w").find_fault("ready") == "it is starting"


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
    Pulse("w@h").beat("no Redis")
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
    assert worker_pulse.has_loaded(SimpleNamespace(info=info, num_processes=2)) == loaded
