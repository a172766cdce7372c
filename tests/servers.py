"""Servers that a test starts besides digitq's own, and whether both clients find the same one."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from digitq.private.processes import find_free_port, find_redis_server
from digitq.protocol.app import make_app
from digitq.protocol.broker.connection import connect
from digitq.protocol.errors import BrokerError
from tests.waiting import wait_for


class Server(NamedTuple):
    """A Redis, a Valkey or a Sentinel on a port of this host."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        try:
            with connect(self.url) as client:
                return bool(client.ping())
        except BrokerError as error:
            return "refuses the login" in str(error)


@contextmanager
def serve(
    folder: Path, *options: str, program: str | None = None, port: int | None = None
) -> Iterator[Server]:
    """Run a server with these options, which may begin with its configuration."""
    folder.mkdir(exist_ok=True)
    port = port or find_free_port()
    command = [program or find_redis_server(), *options, "--port", str(port), "--dir", str(folder)]
    with open(folder / "log", "ab") as log, subprocess.Popen(command, stdout=log) as process:
        server = Server(port, process)
        try:
            wait_for(server.answers)
            yield server
        finally:
            process.kill()


@contextmanager
def serve_sentinel(folder: Path, master: Server, *options: str) -> Iterator[Server]:
    """Run a Sentinel that decides alone, within a second, that its master is lost."""
    folder.mkdir(exist_ok=True)
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds mymaster 1000\n"
        "sentinel failover-timeout mymaster 5000\n"
    )
    with serve(folder, str(configuration), "--sentinel", *options) as sentinel:
        yield sentinel


def assert_both_find_it(url: str) -> None:
    """In database 3."""
    app = make_app(url)
    with app.connection_for_write() as celery, connect(url, one_thread=True) as ledger:
        kombu = celery.default_channel.client
        kombu.set("of kombu", url)
        ledger.set("of the ledger", url)
        assert kombu.get("of the ledger") == ledger.get("of kombu") == url.encode()
        results = app.backend.client
        assert results.get("of the ledger") == url.encode()
        clients = kombu, ledger, results
        assert {int(client.client_info()["db"]) for client in clients} == {3}
