"""Waiting for conditions; running commands, and finding the processes they have started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DIGITQ = [sys.executable, "-m", "digitq"]


def wait_for(
    condition: Callable[[], object], seconds: float = 60, pause_seconds: float = 0.01
) -> None:
    """Wait until the condition holds. Raises `AssertionError` where it never does. The pause
    between two looks is longer for a condition that takes long to look at."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(pause_seconds)


def freeze(*processes: int) -> None:
    """Stop processes, and wait until each of their threads stands still: one may finish what it has
    begun."""
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    for pid in processes:
        wait_for(lambda pid=pid: all(map(_stands_still, Path(f"/proc/{pid}/task").iterdir())))


@contextmanager
def run_digitq(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of digitq that goes on until it is killed."""
    with (
        open(log, "wb") as file,
        subprocess.Popen([*DIGITQ, *arguments], stdout=file, stderr=file) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def processes_marked(mark: str) -> list[int]:
    """The running processes in whose environment the mark is; zombies do not count."""
    return [pid for pid in _pids() if f"DIGITQ_TEST_MARK={mark}" in _read(pid, "environ")]


def children_of(parent: int) -> list[int]:
    """The processes that one has started."""
    return [
        pid
        for pid in _pids()
        if _read(pid, "stat").rpartition(")")[2].split()[1:2] == [str(parent)]
    ]


def _stands_still(thread: Path) -> bool:
    """Also if it has just ended."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return True


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:  # it has just ended
        return ""
