"""`--watch` on a real Redis and in a real terminal. Steps of the ledger stand for workers here."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from digitq import Client
from digitq.cli import main
from digitq.private.processes import Local, kill
from digitq.protocol.ledger import Ledger
from digitq.protocol.records import ChunkResult, JobSpec
from tests.waiting import DIGITQ, wait_for

SPEC = JobSpec("7e3f350e5555", "mlp", "scans", attached=False, in_flight=9, ttl=600)
ROWS = 24  # a terminal has this many


class Terminal:
    """A command in a terminal, and all that it has shown."""

    def __init__(self, columns: int, *arguments: str) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        variables = {**os.environ, "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES"):
            variables.pop(name, None)
        self.process = subprocess.Popen(
            [*DIGITQ, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=variables,
            restore_signals=True,
        )
        os.close(theirs)
        self._shown = b""
        self._thread = threading.Thread(target=self._read, args=(ours,))
        self._thread.start()

    def _read(self, terminal: int) -> None:
        with suppress(OSError):  # the command has ended
            while more := os.read(terminal, 1 << 16):
                self._shown += more
        os.close(terminal)

    @property
    def raw(self) -> str:
        return self._shown.decode(errors="replace")

    @property
    def text(self) -> str:
        """In one line, without colours and movements of the cursor."""
        return " ".join(re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", " ", self.raw).split())

    def shows(self, text: str) -> None:
        """Wait until it has been shown."""
        wait_for(lambda: text in self.text or self.process.poll() is not None)
        assert text in self.text, self.text

    def end(self) -> int:
        status = self.process.wait(60)
        self._thread.join()
        assert "Traceback" not in self.raw
        assert self.raw.count("\x1b[?1049h") == self.raw.count("\x1b[?1049l") == 1  # other screen
        assert self.raw.rindex("\x1b[?25h") > self.raw.rindex("\x1b[?25l")  # the cursor
        return status


@contextmanager
def watch(columns: int, *arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(columns, *arguments)
    try:
        yield terminal
    finally:
        terminal.process.kill()


@pytest.fixture
def ledger(redis_only: Local) -> Ledger:
    """With a job of 30 images, of which 10 are done, and a worker."""
    ledger = Client(redis_only.url).ledger
    for number in range(3):
        ledger.dispatch(SPEC, (0, 0), number, 10, b"chunk")
    ledger.seal(SPEC, (0, 0), 3)
    beat(ledger)
    complete(ledger, 0)
    return ledger


def beat(ledger: Ledger) -> None:
    about = {"host": "h", "version": "0.2.0", "fingerprint": "f", "processes": 2, "started": 0}
    ledger.note_worker("w@h", {**about, "images_per_second": 5})


def complete(ledger: Ledger, number: int) -> None:
    ledger.begin(SPEC.id, number)
    ledger.complete(SPEC.id, number, ChunkResult(b"", 2, "pixels", 0, 0, review=3))


def test_without_a_terminal_it_is_shown_once_as_without_watch(
    redis_only: Local, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        beat(ledger)  # a slow machine may have forgotten the worker
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--broker", redis_only.url])
        return int(ended.value.code or 0), *capsys.readouterr()

    assert run("jobs", "--watch") == run("jobs")
    status, out, err = run("jobs", "--watch")
    assert (status, err) == (0, "") and out.splitlines()[1].startswith(f"{SPEC.id} running ")
    status, out, _ = run("status", SPEC.id, "--watch")
    assert status == 0 and "10 of 30 images (33%), " in out
    told = 2, "digitq: --json prints once: leave out --watch\n"
    assert run("jobs", "--watch", "--json")[::2] == told
    assert run("status", SPEC.id, "--watch", "--json")[::2] == told
    status, _, err = run("status", "nope", "--watch")
    assert status == 2 and "no job 'nope'" in err


@pytest.mark.parametrize("columns", [40, 100])
def test_all_jobs_are_watched_until_ctrl_c(columns: int, redis_only: Local, ledger: Ledger) -> None:
    with watch(columns, "jobs", "--watch", "--broker", redis_only.url) as terminal:
        terminal.shows("33%")
        complete(ledger, 1)
        terminal.shows("66%")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
        last = terminal.raw.rpartition("\x1b[?1049l")[2]  # what was seen last stays
        assert "66%" in last and ("scans" in last) == (columns == 100)
        rows = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", last).split("\r\n")
        assert rows[0].startswith("JOB ") and max(map(len, rows)) <= columns


def test_jobs_for_which_a_terminal_has_no_room_are_counted(
    redis_only: Local, ledger: Ledger
) -> None:
    """Jobs under way are shown first, however old they are."""
    for number in range(30):
        ended = SPEC._replace(id=f"{number:012}")
        ledger.open(ended)
        ledger.cancel(ended.id)
    waiting = SPEC._replace(id="7e3f350e6666")
    ledger.dispatch(waiting, (0, 0), 0, 10, b"chunk")
    ledger.heartbeat(waiting.id, held_images=7)
    with watch(90, "jobs", "--watch", "--limit", "20", "--broker", redis_only.url) as terminal:
        terminal.shows("Redis: `digitq collect")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
        last = terminal.raw.rpartition("\x1b[?1049l")[2]
        rows = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", last).rstrip().split("\r\n")
        assert [row.split(" ")[0] for row in rows[:3]] == ["JOB", SPEC.id, waiting.id]
        assert rows[3].startswith("000000000029 cancelled")
        more = rows.index("11 older jobs not shown: --limit shows more") - 1
        assert rows[more] == f"… and {21 - (more - 1)} more jobs" and len(rows) == ROWS - 1


def test_a_job_that_is_done_ends_the_watch(redis_only: Local, ledger: Ledger) -> None:
    with watch(60, "status", SPEC.id, "--watch", "--broker", redis_only.url) as terminal:
        terminal.shows(f"job {SPEC.id}: running")
        for number in (1, 2):
            complete(ledger, number)
        assert terminal.end() == 0
        assert f"job {SPEC.id}: done" in terminal.raw.rpartition("\x1b[?1049l")[2]


def test_a_lost_redis_and_a_forgotten_job_are_said_in_a_line(
    redis_only: Local, ledger: Ledger
) -> None:
    """This Redis keeps nothing when it is started again."""
    command = "--watch", "--broker", redis_only.url
    with watch(80, "jobs", *command) as jobs, watch(80, "status", SPEC.id, *command) as status:
        jobs.shows("33%")
        status.shows("10 of 30 images")
        kill(redis_only._processes["redis"])
        for terminal in (jobs, status):
            terminal.shows("Redis is lost since ")
        redis_only._start_redis()
        jobs.shows("no jobs")
        assert status.end() == 3
        assert status.text.endswith(f"digitq: Redis no longer has job {SPEC.id}")
        jobs.process.terminate()
        assert jobs.end() == 128 + signal.SIGTERM
