"""The ledger and Celery find the same database, however its URL names it."""

import os
import select
import socket
import socketserver
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from digitq.doctor import deployment
from digitq.local.folders import private_folder
from digitq.local.processes import Local
from protocol.broker.connection import connect
from protocol.celery import make_app
from protocol.errors import BrokerError


def assert_both_find_it(url: str) -> None:
    """In database 3."""
    with make_app(url).connection_for_write() as celery, connect(url, one_thread=True) as ledger:
        kombu = celery.default_channel.client
        kombu.set("of kombu", url)
        ledger.set("of the ledger", url)
        assert kombu.get("of the ledger") == ledger.get("of kombu") == url.encode()
        assert {client["db"] for client in ledger.client_list()} == {"3"}


@pytest.mark.parametrize("query", ["db=3", "virtual_host=3"])
def test_a_socket(query: str, redis_only: Local) -> None:
    for scheme in ("unix", "redis+socket"):
        assert_both_find_it(f"{scheme}://{redis_only.socket}?{query}")


@pytest.mark.parametrize(
    "name",
    [b"a%20b#c?d;e'f\"g \xc3\xa9{db}&h@i+j\\k", b"x" * 120, b"\xff"],
    ids=["odd", "long", "bytes"],
)
def test_a_private_redis_wherever_temporary_files_are(
    name: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with private_folder() as folder:  # pytest's own may have too long a path
        monkeypatch.setattr(tempfile, "tempdir", f"{folder}/{os.fsdecode(name)}")
        os.mkdir(tempfile.tempdir)
        with Local(workers=0) as local:
            assert_both_find_it(local.url.replace("db=0", "db=3"))


class TlsServer(socketserver.ThreadingTCPServer):
    """TLS for the Redis behind a socket."""

    daemon_threads = True

    def __init__(self, certificate: Path, path: Path) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.path = str(path)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)


class Passing(socketserver.BaseRequestHandler):
    """One connection, there and back."""

    server: TlsServer

    def handle(self) -> None:
        with (
            suppress(OSError),  # the client trusts us not, or is gone
            self.server.context.wrap_socket(self.request, server_side=True) as client,
            socket.socket(socket.AF_UNIX) as behind,
        ):
            behind.connect(self.server.path)
            other = {client: behind, behind: client}
            while True:
                ready = [client] if client.pending() else select.select([*other], [], [])[0]
                for side in ready:
                    if not (data := side.recv(1 << 16)):
                        return
                    other[side].sendall(data)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of localhost, signed by itself, and its key, in a place that a URL must quote."""
    path = tmp_path / "a b;c&d.pem"
    command = (
        "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=localhost"
    )
    more = ["-addext", "subjectAltName=DNS:localhost", "-keyout", path, "-out", f"{path}.crt"]
    subprocess.run(["openssl", *command.split(), *more], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
def tls_port(redis_only: Local, certificate: Path) -> Iterator[int]:
    with TlsServer(certificate, redis_only.socket) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_tls(tls_port: int, certificate: Path) -> None:
    trusted = f"ssl_ca_certs={quote(str(certificate))}"
    for query in (f"3?{trusted}", f"?db=3&{trusted}", "3?ssl_cert_reqs=none"):
        assert_both_find_it(f"rediss://localhost:{tls_port}/{query}")


def test_tls_trusts_nobody_unasked(tls_port: int) -> None:
    url = f"rediss://localhost:{tls_port}/3"
    refused = pytest.raises((BrokerError, redis.ConnectionError), match="CERTIFICATE_VERIFY_FAILED")
    with make_app(url).connection_for_write() as celery, refused:
        celery.connect()
    with connect(url) as ledger, refused:
        ledger.ping()


def test_the_doctor_sees_a_redis_that_is_open_behind_tls(
    tls_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "hosts_seen_by_others", lambda host: ["127.0.0.1"])
    # The certificate is of nobody known
    assert deployment.redis_open_at("localhost", tls_port, tls=True) == ["127.0.0.1"]
