"""Connections to Redis: a lost Redis is waited for, and no command gets another one's reply."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pyarrow as pa
import pytest
import redis
from redis.connection import AbstractConnection, HiredisRespSerializer

import digitq.protocol.broker.connection
from digitq import Client
from digitq.private.processes import Local, find_redis_server
from digitq.protocol.broker.connection import (
    FIRST_RETRY_SECONDS,
    MAX_RETRY_SECONDS,
    SEND_BYTES,
    Packer,
    RetryingRedis,
    connect,
    is_passing,
)
from digitq.protocol.chunk import PIXELS, Chunk, pixels_batch
from digitq.protocol.errors import BrokerError
from digitq.protocol.keys import record_key
from digitq.protocol.ledger import Ledger
from digitq.protocol.records import JobSpec
from digitq.worker import tasks
from digitq.worker.classify import classify_chunk
from tests.waiting import wait_for


@pytest.fixture
def worker_redis(redis_only: Local) -> Iterator[RetryingRedis]:
    with connect(redis_only.url, one_thread=True) as client:
        client.mset({"x": b"of x", "y": b"of y"})
        yield client


def test_a_client_for_one_thread_keeps_one_connection(worker_redis: RetryingRedis) -> None:
    connection = worker_redis.connection
    for _ in range(2):
        assert worker_redis.get("x") == b"of x"
        worker_redis.client_kill_filter(_type="normal", skipme=False)  # it connects again
    assert worker_redis.connection is connection


def test_a_reply_that_nobody_waited_for_is_not_the_next_ones(worker_redis: RetryingRedis) -> None:
    with (
        patch.object(RetryingRedis, "parse_response", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        worker_redis.get("x")
    assert [worker_redis.get(key) for key in "yxy"] == [b"of y", b"of x", b"of y"]


def test_each_thread_of_a_worker_has_its_own(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = SimpleNamespace(digitq_database_url=redis_only.url)
    monkeypatch.setattr(tasks, "app", SimpleNamespace(conf=conf))
    monkeypatch.setattr(tasks, "own", threading.local())
    found = [tasks.ledger(), tasks.ledger()]
    thread = threading.Thread(target=lambda: found.append(tasks.ledger()))
    thread.start()
    thread.join()
    assert found[0] is found[1] is not found[2]


def test_a_redis_that_stands_still_is_no_slow_chunk(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the deadline of a lost chunk would become three times as long."""
    batch = pixels_batch(pa.array(["a"]), np.zeros((1, PIXELS), np.uint8))
    spec = JobSpec("j", "random", "test", attached=False, in_flight=1, ttl=60)
    done = classify_chunk(Chunk(0, batch), "random")
    passed = 0.0  # seconds; the test's clock

    def classify_slowly(*args: object) -> pa.RecordBatch:
        nonlocal passed
        passed += 0.25
        return done

    with connect(redis_only.url) as client:
        ledger = Ledger(client)
        ledger.dispatch(spec, (0, 0), 0, 1, Chunk(0, batch).encode())

        def slowly(send: Callable[..., Any]) -> Callable[..., Any]:
            def send_slowly(*args: Any, **options: Any) -> Any:
                nonlocal passed
                passed += 1.5
                return send(*args, **options)

            return send_slowly

        clock = SimpleNamespace(monotonic=lambda: passed)
        for module in (tasks, digitq.protocol.broker.connection):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(client, "execute", slowly(client.execute))
        monkeypatch.setattr(tasks, "own", SimpleNamespace(ledger=ledger))
        monkeypatch.setattr(tasks, "classify_chunk", classify_slowly)
        assert tasks.classify("j", 0).startswith("1 of 1 ")
        assert passed >= 3.25  # Redis stalled at `begin` and at `complete`
        assert ledger.record("j").silent_seconds == 0.25


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of a client that waits for Redis, in seconds. Only they move its clock."""
    made: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(made), sleep=made.append)
    monkeypatch.setattr(digitq.protocol.broker.connection, "time", clock)
    return made


def test_a_redis_that_is_gone_is_told_once_and_waited_for_no_longer_than_asked(
    pauses: list[float],
) -> None:
    told: list[str] = []
    with connect("redis://:secret@127.0.0.1:1/0", retry_seconds=10) as client:
        client.on_disconnect = told.append
        with pytest.raises(
            BrokerError, match=r"can't reach Redis at redis://\*\*\*@127\.0\.0\.1:1"
        ):
            client.ping()
    assert 10 < sum(pauses) <= 10 + MAX_RETRY_SECONDS
    (line,) = told
    assert line.startswith("waiting for Redis at redis://***@127.0.0.1:1/0 (")


class BrokenConnection:
    """A connection that is lost between the replies to two commands."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self._replies = iter(
            [redis.ConnectionError(), b"first", redis.ConnectionError(), b"second"]
        )

    def pack_commands(self, commands: object) -> object:
        return commands

    def send_packed_command(self, commands: object) -> None:
        self.log.append(commands)

    def read_response(self) -> object:
        reply = next(self._replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def disconnect(self) -> None:
        self.log.append("disconnect")


def test_what_is_answered_is_not_sent_again(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, connection, pool = RetryingRedis(), BrokenConnection(), Mock()
    client.retry_seconds = 10
    monkeypatch.setattr(client, "connection_pool", pool)
    pool.get_connection.return_value = connection
    begin, fetch = ("INCR", "count"), ("GET", "text")
    assert client.execute(begin, fetch) == [(b"first", pauses[0]), (b"second", sum(pauses))]
    both, fetch_alone = (begin, fetch), (fetch,)
    assert connection.log == [both, "disconnect", both, "disconnect", fetch_alone]
    assert pool.release.call_count == 3


def test_a_redis_that_loads_its_file_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a client that starts meanwhile, unless it has no time to wait."""
    monkeypatch.setattr(digitq.protocol.broker.connection, "TELL_LOSS_SECONDS", 0)
    path, url = tmp_path / "redis.sock", f"unix://{tmp_path}/redis.sock"
    options = ["--port", "0", "--unixsocket", path, "--dir", tmp_path, "--rdbcompression", "no"]
    command = [find_redis_server(), *options, "--key-load-delay", "200000"]  # µs
    with subprocess.Popen(command) as server, connect(url, retry_seconds=10) as redis:
        redis.mset(
            {f"key {number}": bytes(3 << 20) for number in range(20)}
        )  # Redis answers between two keys
        redis.save()
        server.kill()
    with subprocess.Popen(command) as server:
        try:
            wait_for(lambda: is_loading(url))
            with pytest.raises(BrokerError, match="still loads its file: try again when it has"):
                Client(url, retry_seconds=0)
            with Client(url, retry_seconds=60) as client:
                assert client.ledger.redis.exists("key 19")
        finally:
            server.kill()
    assert "is loading" in caplog.text


def is_loading(url: str) -> bool:
    with redis.Redis.from_url(url, retry=None) as client:
        try:
            return not client.ping()
        except redis.exceptions.BusyLoadingError:
            return True
        except redis.ConnectionError:  # it does not listen yet
            return False


def test_a_login_that_is_refused_is_not_tried_again(redis_only: Local, pauses: list[float]) -> None:
    url = redis_only.url.replace("unix://", "unix://guest:wrong@")
    with connect(url, retry_seconds=60) as client, pytest.raises(BrokerError, match="the login"):
        client.ping()
    assert pauses == []


def test_a_full_redis_is_waited_for(redis_only: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(redis_only.url, retry_seconds=60) as client, connect(redis_only.url) as other:
        other.config_set("maxmemory", 1)
        make_room = Mock(side_effect=lambda seconds: other.config_set("maxmemory", 0))
        clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=make_room)
        monkeypatch.setattr(digitq.protocol.broker.connection, "time", clock)
        assert client.set("x", "y")
        make_room.assert_called_once_with(FIRST_RETRY_SECONDS)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("MISCONF Redis is configured to save RDB snapshots, but it can't persist on disk", True),
        ("@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.", True),
        ("BUSY Redis is busy running a script", True),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
    ],
)
def test_what_redis_can_t_do_now_it_may_do_later(text: str, passes: bool) -> None:
    assert is_passing(redis.ResponseError(text)) == passes


def test_what_redis_says_of_a_script_is_told_without_its_place(redis_only: Local) -> None:
    with connect(redis_only.url) as client:
        client.replicaof("127.0.0.1", 1)  # nothing listens there
        with pytest.raises(BrokerError, match=r" says: (READONLY )?You can't write .* replica$"):
            Ledger(client).open(JobSpec("j", "mlp", "source", attached=True, in_flight=1, ttl=60))


def test_a_server_that_says_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digitq.protocol.broker.connection, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        begun = time.monotonic()
        with connect(url) as client, pytest.raises(BrokerError, match="can't reach Redis"):
            client.ping()
        assert time.monotonic() - begun < 5  # the default timeout


def test_a_failover_is_waited_for(redis_only: Local) -> None:
    """A master that steps down ends a blocked read; a new master lacks replicas at first."""
    with connect(redis_only.url, 30) as client, connect(redis_only.url) as other:
        waiting = threading.Thread(target=Ledger(client).wait, args=("j", b"0", 4000))
        waiting.start()
        blocked: list[int] = []
        while not blocked:
            blocked = [int(one["id"]) for one in other.client_list() if "b" in one["flags"]]
        other.client_unblock(blocked[0], error=True)
        wait_for(lambda: other.info("commandstats")["cmdstat_xread"]["calls"] == 2)
        other.config_set("min-replicas-to-write", 1)
        writing = threading.Thread(target=client.set, args=("x", "y"))
        writing.start()
        wait_for(lambda: other.info("commandstats").get("cmdstat_set", {}).get("rejected_calls"))
        other.config_set("min-replicas-to-write", 0)
        writing.join()
        assert other.get("x") == b"y"
        other.xadd(f"{record_key('j')}:done", {"chunk": 0})
        waiting.join()


@pytest.mark.parametrize("way", ["execute_command", "transact"])
def test_what_is_interrupted_leaves_no_reply_for_the_next(way: str, redis_only: Local) -> None:
    """Even if the reply comes late."""
    with connect(redis_only.url) as client, connect(redis_only.url) as other:
        client.mset({"x": b"of x", "y": b"of y"})
        connection = client.connection_pool.get_connection()
        client.connection_pool.release(connection)
        send = connection.send_packed_command

        def send_only(*args: object, **options: object) -> None:
            send(*args, **options)
            raise KeyboardInterrupt

        other.execute_command("CLIENT", "PAUSE", 200, "ALL")
        with (
            patch.object(connection, "send_packed_command", send_only),
            pytest.raises(KeyboardInterrupt),
        ):
            client.get("x") if way == "execute_command" else client.transact(("GET", "x"))
        assert client.get("y") == b"of y"


def test_a_command_is_sent_in_parts_of_a_limited_size() -> None:
    payload = bytes(range(256)) * (SEND_BYTES // 100)
    command = ("SCRIPT LOAD", "é", 2.5, memoryview(payload))
    parts = Packer(SEND_BYTES).pack(*command)
    assert max(map(len, parts)) == SEND_BYTES
    assert b"".join(parts) == b"".join(HiredisRespSerializer().pack(*command))


@contextmanager
def slow_way(behind: Path, bytes_per_second: int) -> Iterator[str]:
    """The URL of a Redis behind a slow network with small buffers."""
    with socket.socket() as door, ExitStack() as stack:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        door.bind(("127.0.0.1", 0))
        door.listen()

        def carry(near: socket.socket, far: socket.socket, seconds: float) -> None:
            with suppress(OSError):
                while block := near.recv(1 << 14):
                    far.sendall(block)
                    time.sleep(len(block) * seconds)  # the fault itself

        def take() -> None:
            with suppress(OSError):
                while True:
                    near = stack.enter_context(door.accept()[0])
                    far = stack.enter_context(socket.socket(socket.AF_UNIX))
                    far.connect(str(behind))
                    for ends in ((near, far, 1 / bytes_per_second), (far, near, 0)):
                        threading.Thread(target=carry, args=ends, daemon=True).start()

        threading.Thread(target=take, daemon=True).start()
        yield f"redis://127.0.0.1:{door.getsockname()[1]}/0"


def test_a_slow_way_is_no_lost_redis(redis_only: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digitq.protocol.broker.connection, "TIMEOUT_SECONDS", 2.0)
    with slow_way(redis_only.socket, 2 << 20) as url, connect(url) as client:
        payload = bytes(6 << 20)  # three seconds
        assert client.transact(("SET", "large", payload)) == [b"OK"]
        assert client.strlen("large") == len(payload)


def test_a_connection_that_another_thread_closes_is_opened_again(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `Client.close` does while a job is fed: redis-py then has no socket to send with."""
    closed: list[AbstractConnection] = []

    def close_once(connection: AbstractConnection) -> None:
        if not closed:
            closed.append(connection)
            connection.disconnect()

    monkeypatch.setattr(AbstractConnection, "check_health", close_once)
    with connect(redis_only.url, retry_seconds=60) as client:
        assert client.read(("PING",)) == [True]
    assert closed
