"""Servers other than one Redis: Valkey, Sentinels, and a Cluster, which is refused."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace
from urllib.request import urlopen

import pytest

from digitq import Client
from digitq.cli import digitq
from digitq.operate.facts import find_redis
from digitq.private.processes import EVENTS_KEY, find_free_port
from digitq.protocol.asked.reading import digits
from digitq.protocol.broker.connection import TIMEOUT_SECONDS, connect
from digitq.protocol.errors import BrokerError, UsageError
from digitq.worker.celery import prepare_worker
from tests.drawing import draw_one, random_digits
from tests.servers import Server, assert_both_find_it, serve, serve_sentinel
from tests.waiting import DIGITQ, run_digitq, wait_for


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("cluster"), "--cluster-enabled", "yes") as server:
        yield server


REFUSED = "is a Redis Cluster: Celery needs one without `cluster-enabled`"


@pytest.mark.parametrize(
    "command",
    [
        *("jobs", "status x", "collect x", "cancel x", "doctor", "flower --port=PORT"),
        *("submit FILE", "classify FILE", "evaluate FILE --truth parent"),
    ],
)
def test_a_cluster_is_refused(command: str, cluster: Server, tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    command = command.replace("PORT", str(find_free_port()))
    arguments = command.replace("FILE", str(tmp_path / "1.png")).split()
    with pytest.raises(UsageError, match=REFUSED):
        digitq.main([*arguments, "--broker", cluster.url], standalone_mode=False)


def test_a_worker_ends_at_a_cluster(
    cluster: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it starts any process. test_commands.py has a worker that ends so."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    conf = SimpleNamespace(broker_read_url=cluster.url, digitq_database_url=cluster.url)
    with pytest.raises(SystemExit, match="2"):
        prepare_worker(conf)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("digitq: ") and REFUSED in line


@pytest.mark.slow
def test_a_worker_that_waits_for_redis_ends_at_a_cluster(tmp_path: Path) -> None:
    port, log = find_free_port(), tmp_path / "log"
    with run_digitq(log, "worker", "--broker", f"redis://127.0.0.1:{port}") as worker:
        wait_for(lambda: "Cannot connect to redis" in log.read_text())
        with serve(tmp_path / "cluster", "--cluster-enabled", "yes", port=port):
            assert worker.wait(timeout=60) == 1
    assert log.read_text().count(REFUSED) == 1


@pytest.mark.slow
def test_a_worker_waits_for_a_redis_that_loads_and_ends_at_a_wrong_login(tmp_path: Path) -> None:
    port, log, folder = find_free_port(), tmp_path / "log", tmp_path / "redis"

    def logged(text: str) -> int:
        return log.read_text().count(text)

    with run_digitq(log, "worker", "--broker", f"redis://127.0.0.1:{port}") as worker:
        with serve(folder, port=port) as redis, connect(redis.url) as client:
            wait_for(lambda: logged("Connected to redis") == 1)
            client.mset({f"key{number}": os.urandom(1 << 20) for number in range(20)})
            client.save()
        wait_for(lambda: logged("Cannot connect to redis"))
        with serve(folder, "--key-load-delay", "200000", port=port):  # 0.2 s for each key
            assert logged("Redis is loading")
            wait_for(lambda: logged("Connected to redis") == 2)
        with serve(folder, "--requirepass", "secret", port=port):
            assert worker.wait(timeout=60) == 1
    (line,) = (line for line in log.read_text().splitlines() if "CRITICAL" in line)
    assert "refuses the login" in line


def test_flower_ends_while_redis_is_down(tmp_path: Path) -> None:
    port, log = find_free_port(), tmp_path / "log"
    with serve(tmp_path / "redis") as redis:
        options = ("--broker", redis.url, f"--port={port}")
        with run_digitq(log, "flower", *options) as flower, connect(redis.url) as client:
            wait_for(lambda: client.exists(EVENTS_KEY))
            redis.process.send_signal(signal.SIGSTOP)
            with urlopen(f"http://127.0.0.1:{port}/workers?refresh=1"):  # four threads now wait
                flower.terminate()
            assert flower.wait(timeout=TIMEOUT_SECONDS - 0.5) == 0


def test_valkey(tmp_path: Path) -> None:
    program = shutil.which("valkey-server")
    if not program:
        pytest.skip("no valkey-server is installed")
    with serve(tmp_path / "valkey", program=program) as server:
        assert_both_find_it(f"valkey://127.0.0.1:{server.port}/3")


def test_a_master_that_a_sentinel_knows(tmp_path: Path) -> None:
    """Another of the Sentinels is away."""
    with (
        serve(tmp_path / "redis") as redis,
        serve_sentinel(tmp_path / "sentinel", redis) as sentinel,
    ):
        sentinels = f"127.0.0.1:1,127.0.0.1:{sentinel.port}"
        assert_both_find_it(f"sentinel://127.0.0.1:{sentinel.port}/3?master_name=mymaster")
        with connect(f"sentinel://{sentinels}/3?master_name=mymaster") as client:
            assert find_redis(client, redis.port) == ("127.0.0.1", redis.port)
        with pytest.raises(BrokerError, match=r"\(No master found for 'other'\)"):
            Client(f"sentinel://{sentinels}/0?master_name=other")
        with pytest.raises(UsageError, match="is a Sentinel: its URL is sentinel://"):
            Client(sentinel.url)


def test_a_command_that_starts_during_a_failover_waits(tmp_path: Path) -> None:
    with ExitStack() as stack:
        master = stack.enter_context(serve(tmp_path / "redis"))
        sentinel = stack.enter_context(serve_sentinel(tmp_path / "sentinel", master))
        url = f"sentinel://127.0.0.1:{sentinel.port}/0?master_name=mymaster"
        assert Client(url).jobs() == []
        master.process.kill()
        master.process.wait()
        with pytest.raises(BrokerError, match="can't reach Redis at sentinel://"):
            Client(url, retry_seconds=0.1).jobs()
        waiting = stack.enter_context(ThreadPoolExecutor()).submit(lambda: Client(url).jobs())
        with serve(tmp_path / "redis", port=master.port):
            assert waiting.result(60) == []


def test_a_command_that_starts_while_redis_restarts_waits_and_says_so(tmp_path: Path) -> None:
    draw_one().save(tmp_path / "1.png")
    port = find_free_port()
    url = f"redis://127.0.0.1:{port}/0"
    command = [*DIGITQ, "submit", str(tmp_path / "1.png"), "--broker", url]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            assert process.stderr and process.stdout
            line = process.stderr.readline()
            assert line.startswith(f"waiting for Redis at {url} (") and "Connection refused" in line
            assert ", at most 120 s: is it running? `digitq up` starts one" in line
            with serve(tmp_path / "redis", port=port) as server:
                job, err = process.stdout.read().strip(), process.stderr.read()
                assert process.wait(60) == 0
                assert Client(server.url).job(job).progress().images == 1
            assert err.startswith("1 image is in Redis; ")
        finally:
            process.kill()


def test_what_stays_wrong_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password, and the name of no host, of Redis or of a Sentinel."""
    with serve(tmp_path / "redis", "--requirepass", "right") as server:
        for url in (server.url, f"redis://:wrong@127.0.0.1:{server.port}"):
            with pytest.raises(BrokerError, match="refuses the login"):
                Client(url)

    def find_none(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", find_none)
    for url in ("redis://nowhere", "rediss://nowhere", "sentinel://nowhere?master_name=mymaster"):
        with pytest.raises(BrokerError, match="can't reach Redis at"):
            Client(url)
    assert not caplog.messages


def test_the_passwords_of_a_sentinel_and_its_master(tmp_path: Path) -> None:
    password = ("--requirepass", "of;redis")
    with (
        serve(tmp_path / "redis", *password) as redis,
        serve_sentinel(tmp_path / "sentinel", redis, "--requirepass", "of/sentinel") as sentinel,
        connect(f"redis://:of%2Fsentinel@127.0.0.1:{sentinel.port}") as asked,
    ):
        asked.execute_command("SENTINEL", "SET", "mymaster", "auth-pass", "of;redis")
        place = f"127.0.0.1:{sentinel.port}/3?master_name=mymaster"
        assert_both_find_it(f"sentinel://:of;redis@{place}&sentinel_password=of%2Fsentinel")
        with pytest.raises(BrokerError, match="Add sentinel_password if they ask for one"):
            Client(f"sentinel://:of;redis@{place}")


@pytest.mark.slow
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_failover_in_the_midst_of_a_job(fault: signal.Signals, tmp_path: Path) -> None:
    """The master ends, or stands still until another one is master."""
    with ExitStack() as stack:
        master = stack.enter_context(serve(tmp_path / "master"))
        options = ("--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0")
        replica = stack.enter_context(serve(tmp_path / "replica", *options))
        sentinel = stack.enter_context(serve_sentinel(tmp_path / "sentinel", master))
        url = f"sentinel://127.0.0.1:{sentinel.port}/0?master_name=mymaster"
        log, port = tmp_path / "worker.log", find_free_port()
        stack.enter_context(run_digitq(log, "worker", "--broker", url, "--concurrency", "1"))
        flower = ("flower", "--broker", url, f"--port={port}")
        stack.enter_context(run_digitq(tmp_path / "flower.log", *flower))
        client = stack.enter_context(Client(url))
        with connect(sentinel.url) as asked, connect(replica.url) as other:
            wait_for(lambda: asked.execute_command("SENTINEL", "REPLICAS", "mymaster"))
            wait_for(lambda: other.info()["master_link_status"] == "up")
            images = random_digits(8_000)
            job = client.submit(images, digits("cnn"))
            wait_for(lambda: job.progress().done_chunks > 2)
            master.process.send_signal(fault)
            wait_for(lambda: other.info()["role"] == "master")
            master.process.send_signal(signal.SIGCONT)
            table = job.table()
        assert (table.num_rows, table.column("label").null_count) == (8_000, 0)
        assert table.equals(client.submit(images, digits("cnn")).table())  # a run without a fault
        with urlopen(f"http://127.0.0.1:{port}/broker") as page:  # Flower has found it, too
            assert b"<td>digitq</td>" in page.read()
