"""A deployment to harm: a Redis with its append-only file, workers, and a proxy before Redis."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Timer
from unittest.mock import patch

from digitq.private.processes import Local, kill
from digitq.protocol.broker.connection import connect
from digitq.protocol.errors import BrokerError
from digitq.protocol.ledger import Ledger
from tests.chaos.proxy import Proxy
from tests.waiting import DIGITQ, children_of

POLL_SECONDS = 0.01  # between two looks at a condition
PATIENCE_SECONDS = 240.0


class Deployment(Local):
    """Starts again what is killed, as an init system would, whenever it is tended."""

    def __init__(self, deadline_seconds: float, stop_seconds: float, workers: int = 2) -> None:
        """`stop_seconds` is how long what stands still does so."""
        super().__init__(workers)
        self._settings = {
            "DIGITQ_CHUNK_ROWS": "64",
            "DIGITQ_DEADLINE_SECONDS": str(deadline_seconds),
        }
        self.stop_seconds = stop_seconds
        self.producer: int | None = None  # the process that feeds or collects now
        self.results = Path()  # the folder of the files it writes
        self.proxy: Proxy | None = None
        self._ledger: Ledger | None = None  # it connects again by itself
        self.forgets = False  # Redis's file is gone at its next start
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._stopped: list[Timer] = []

    def __exit__(self, *exception: object) -> None:
        for timer in self._stopped:
            timer.cancel()
        super().__exit__()
        if self.proxy:
            self.proxy.close()

    @property
    def direct_url(self) -> str:
        """Past the proxy."""
        return super().url

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/proxy.sock?db=0"

    def _start_redis(self) -> None:
        if self.forgets:
            self.forgets = False
            for file in self.folder.rglob("appendonly*.aof*"):
                file.unlink()
        if not self.proxy:
            self.proxy = Proxy(self.folder / "proxy.sock", self.socket)
        super()._start_redis()

    def _start(self, name: str, *command: str, **variables: str) -> None:
        if name == "redis":
            command = (*command, "--appendonly", "yes")
        with patch.dict(os.environ, self._settings):
            super()._start(name, *command, **variables)

    def ledger(self) -> Ledger:
        """The ledger, past the proxy. Raises `BrokerError` where Redis is down by a fault."""
        self._ledger = self._ledger or Ledger(connect(self.direct_url))
        return self._ledger

    def pid(self, name: str) -> int:
        """Of `redis`, or the main process of `worker1` …"""
        return self._processes[name].pid

    def worker_names(self) -> list[str]:
        return [name for name in self._processes if name.startswith("worker")]

    def child(self, name: str) -> int | None:
        """The pool process of a worker, where it has one now."""
        return next(iter(children_of(self.pid(name))), None)

    def signal(self, pid: int | None, number: signal.Signals) -> None:
        """Send a signal to a process that may be gone."""
        with suppress(ProcessLookupError):
            if pid:
                os.kill(pid, number)

    def stop(self, pid: int | None, seconds: float) -> None:
        """Have a process stand still. A thread wakes it: others may be waiting for it."""
        self.signal(pid, signal.SIGSTOP)
        timer = Timer(seconds, self.signal, (pid, signal.SIGCONT))
        timer.start()
        self._stopped.append(timer)

    def written(self) -> list[int]:
        """The sizes of the unfinished result file and its journal, where there are any."""
        sizes = []
        for file in self.results.glob("*.partial*"):
            with suppress(FileNotFoundError):  # it has just got its name
                sizes.append(file.stat().st_size)
        return sizes

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do this when the deployment is tended after so long."""
        self._later.append((time.monotonic() + seconds, action))

    def tend(self) -> None:
        """Start again what has died; do what is due."""
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                kill(process)
                self._start_redis() if name == "redis" else self._start_worker(name)
        due = [action for end, action in self._later if end <= time.monotonic()]
        self._later = [(end, action) for end, action in self._later if end > time.monotonic()]
        for action in due:
            try:
                action()
            except BrokerError:  # Redis stands still, or writes nothing: until that is undone
                self.later(POLL_SECONDS, action)

    def heal(self) -> None:
        """Undo at once all that was to be undone later."""
        for timer in self._stopped:
            timer.cancel()
            timer.function(*timer.args)
        self._stopped.clear()
        self._later = [(0.0, action) for _, action in self._later]
        self.tend()

    def wait_for(self, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
        """Tend the deployment until the condition holds. Raises `AssertionError`."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the condition never came true"
            self.tend()
            time.sleep(POLL_SECONDS)  # between two looks

    def digitq(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a command of digitq on this Redis."""
        signal.signal(signal.SIGINT, signal.default_int_handler)  # an ignored one is inherited
        return subprocess.Popen(
            [*DIGITQ, *map(str, arguments)],
            env={**os.environ, **self._settings, "DIGITQ_BROKER_URL": self.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
