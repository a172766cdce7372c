"""Real services for the tests: each starts its own Redis and workers, and ends them."""

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from digitq import Client
from digitq.private import processes
from digitq.private.processes import Local
from digitq.protocol.broker.connection import connect
from digitq.protocol.formats.mnist import RAW
from digitq.protocol.host.cores import usable_cores
from digitq.protocol.settings import settings

# What is imported and collected stays until the end: to search it for garbage takes seconds.
gc.disable()  # until all tests are collected
# Threads of torch that wait must not take the processor from the other test processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# After `&` in a script, Ctrl-C is ignored; the programs that a test starts would ignore it, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("quick", max_examples=50, deadline=None)
hypothesis.settings.load_profile("quick")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """Two processes more than there are cores, since tests also wait; five at most."""
    return min(usable_cores() + 2, 5)


def pytest_collection_finish() -> None:
    """From here on, only objects that tests make are searched for garbage."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start the server that `DIGITQ_TEST_REDIS` names, as `valkey-server`, wherever Redis is
    started. By default it is the one that digitq finds."""
    with pytest.MonkeyPatch.context() as patch:
        if name := os.environ.get("DIGITQ_TEST_REDIS"):
            server = shutil.which(name)
            assert server, f"DIGITQ_TEST_REDIS={name}: there is no such program"
            folder = tmp_path_factory.mktemp("server")
            (folder / "redis-server").symlink_to(os.path.abspath(server))
            patch.setenv("PATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No `DIGITQ_*` variable of the outside but MNIST's place; settings are read anew."""
    for name in [name for name in os.environ if name.startswith("DIGITQ_")]:
        if name != "DIGITQ_MNIST":
            monkeypatch.delenv(name)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def mnist_root() -> Path:
    """The folder of all of MNIST, for tests that the sample is not enough for."""
    root = settings().mnist_root
    if not (root / RAW).is_dir():
        reason = f"no MNIST in {root}: set DIGITQ_MNIST"
        assert settings().mnist is None, reason
        pytest.skip(reason)
    return root


@pytest.hookimpl(tryfirst=True)  # before pytest selects tests by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m mnist` selects the tests that need all of MNIST."""
    for item in items:
        if "mnist_root" in getattr(item, "fixturenames", ()):
            item.add_marker("mnist")


@pytest.fixture
def redis_only() -> Iterator[Local]:
    """A private Redis without workers."""
    with Local(workers=0) as local:
        yield local


@pytest.fixture(scope="session")
def two_processes() -> Iterator[Local]:
    """A private Redis with a worker of two processes, for which torch is loaded only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "PROCESSES_PER_WORKER", 2)
        with Local(workers=1) as running:
            running.wait_until_ready()
            patch.undo()
            yield running


@pytest.fixture(scope="module")
def local(two_processes: Local) -> Local:
    """A private Redis with two worker processes, for the tests of one file: no job of another is
    there."""
    with connect(two_processes.url) as redis:
        for key in redis.scan_iter("digitq:*"):
            redis.delete(key)
    return two_processes


@pytest.fixture
def client(local: Local) -> Client:
    """A client of `local`."""
    return Client(local.url)
