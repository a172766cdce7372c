"""TLS to Redis: whom it trusts, and what it says of a certificate or a file that is wrong."""

import asyncio
import select
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from flower.utils.broker import Broker as FlowerBroker

import digitq.protocol.broker.connection
from digitq import Client
from digitq.operate import facts
from digitq.operate.doctor import examine
from digitq.private.processes import Local, find_free_port
from digitq.protocol.app import make_app
from digitq.protocol.errors import DigitqError
from digitq.protocol.keys import QUEUE
from digitq.protocol.settings import settings
from tests.servers import assert_both_find_it
from tests.waiting import DIGITQ, run_digitq, wait_for


class TlsServer(socketserver.ThreadingTCPServer):
    """TLS for the Redis behind a socket."""

    daemon_threads = True

    allow_reuse_address = True

    def __init__(self, certificate: Path, path: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Passing)
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


def make_certificate(path: Path, name: str) -> Path:
    """A certificate that is its own CA, with its key in the same file."""
    command = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj"
    more = [f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", path]
    files = [*more, "-out", f"{path}.crt"]
    subprocess.run(["openssl", *command.split(), *files], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of localhost, in a place that a URL must quote."""
    return make_certificate(tmp_path / "a b;c&d.pem", "localhost")


@contextmanager
def serve_tls(*arguments: Any) -> Iterator[int]:
    """Run a `TlsServer`; gives its port."""
    with TlsServer(*arguments) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def tls_port(redis_only: Local, certificate: Path) -> Iterator[int]:
    with serve_tls(certificate, redis_only.socket) as port:
        yield port


def test_tls(tls_port: int, certificate: Path) -> None:
    trusted = f"ssl_ca_certs={quote(str(certificate))}"
    for query in (f"3?{trusted}", f"?db=3&{trusted}", "3?ssl_cert_reqs=none"):
        assert_both_find_it(f"rediss://localhost:{tls_port}/{query}")


def say(url: str) -> str:
    """What a person reads when the broker can't be used: one line."""
    with pytest.raises(DigitqError) as refused:
        Client(url)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_tls_trusts_nobody_unasked(tls_port: int) -> None:
    url = f"rediss://localhost:{tls_port}/3"
    refused = pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED")
    with make_app(url).connection_for_write() as celery, refused:
        celery.connect()
    assert say(url) == (
        f"Redis at {url} has a certificate that no trusted CA has signed (self-signed "
        "certificate): name the file of its CA, ?ssl_ca_certs=/path/ca.pem"
    )


def test_a_certificate_of_another_ca_or_another_host(
    tls_port: int, certificate: Path, tmp_path: Path
) -> None:
    other = quote(str(make_certificate(tmp_path / "other.pem", "other")))
    wrong_ca = say(f"rediss://localhost:{tls_port}/0?ssl_ca_certs={other}")
    assert "has a certificate that no trusted CA has signed" in wrong_ca
    wrong_host = say(f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={quote(str(certificate))}")
    assert wrong_host.endswith(
        "has a certificate for another name (IP address mismatch, certificate is not valid for "
        "'127.0.0.1'): name Redis in the URL as its certificate does"
    )


@pytest.mark.parametrize(
    ("query", "line"),
    [
        (
            "ssl_ca_certs=/none.pem",
            "the broker's ssl_ca_certs=/none.pem: No such file or directory",
        ),
        ("ssl_ca_certs=/", "the broker's ssl_ca_certs=/: Is a directory"),
        ("ssl_ca_path=/none", "the broker's ssl_ca_path=/none: No such file or directory"),
        ("ssl_certfile=/none", "the broker's ssl_certfile=/none: No such file or directory"),
        ("ssl_keyfile=/dev/null", "the broker's ssl_keyfile is of no use without ssl_certfile"),
        ("ssl_ciphers=none", "the broker's ssl_ciphers=none: No cipher can be selected"),
    ],
)
def test_a_file_or_value_that_can_t_be_used(query: str, line: str) -> None:
    """This is said before a connection is tried."""
    assert say(f"rediss://localhost:1/0?{query}") == line


def test_a_file_without_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    query = f"ssl_ca_certs={quote(str(tmp_path / 'ca.pem'))}"
    assert "/ca.pem: [X509" in say(f"rediss://localhost:1/0?{query}")


def test_a_redis_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digitq.protocol.broker.connection, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setenv("DIGITQ_BROKER_RETRY_SECONDS", "0.01")
    settings.cache_clear()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # as Redis is, which waits for more
        line = say(f"rediss://localhost:{silent.getsockname()[1]}/0")
    assert "is it running with TLS? Add ssl_certfile and ssl_keyfile" in line


def test_a_worker_and_flower_end_with_the_same_line(tls_port: int) -> None:
    url = f"rediss://localhost:{tls_port}/0"
    runs = [
        subprocess.Popen([*DIGITQ, *words, "--broker", url], stderr=subprocess.PIPE, text=True)
        for words in (["worker"], ["flower", f"--port={find_free_port()}"])
    ]
    for run in runs:
        assert run.communicate(timeout=60)[1] == f"digitq: {say(url)}\n" and run.returncode


@pytest.mark.slow
def test_a_worker_that_waits_for_redis_ends_at_a_wrong_ca(
    redis_only: Local, certificate: Path, tmp_path: Path
) -> None:
    port, log = find_free_port(), tmp_path / "log"
    with run_digitq(log, "worker", "--broker", f"rediss://localhost:{port}") as worker:
        wait_for(lambda: "Cannot connect to rediss" in log.read_text())
        with serve_tls(certificate, redis_only.socket, port):
            assert worker.wait(timeout=60) == 1
    (line,) = (line for line in log.read_text().splitlines() if "CRITICAL" in line)
    assert "has a certificate that no trusted CA has signed" in line


def test_the_broker_page_of_flower(tls_port: int, certificate: Path) -> None:
    app = make_app(f"rediss://localhost:{tls_port}/0?ssl_ca_certs={quote(str(certificate))}")
    with app.connection() as connection:  # as Flower does it
        seen: Any = FlowerBroker(
            connection.as_uri(include_password=True),
            broker_options=app.conf.broker_transport_options,
            broker_use_ssl=app.conf.broker_use_ssl,
        )
    assert asyncio.run(seen.queues([QUEUE])) == [{"name": QUEUE, "messages": 0}]


def test_the_doctor_sees_a_redis_that_is_open_behind_tls(
    tls_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "hosts_seen_by_others", lambda host: ["127.0.0.1"])
    # The certificate is of nobody known
    seen_at, open_at = facts.look_at_network("localhost", tls_port, tls=True)
    assert seen_at == open_at == ["127.0.0.1"]


def test_the_doctor_reads_a_url_with_an_at_sign_in_a_path(
    tls_port: int, certificate: Path, tmp_path: Path
) -> None:
    ca = certificate.rename(tmp_path / "ca@prod")
    seen = facts.gather_facts(f"rediss://localhost:{tls_port}/0?ssl_ca_certs={ca}", None)
    assert "tls" not in {finding.rule for finding in examine(seen)}
