"""Pages that are served: who may see them, and how the server ends."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from digitq.private.processes import find_free_port
from digitq.protocol.errors import UsageError
from digitq.serving.server import serve
from tests.waiting import wait_for

SERVE = """
import resource, sys
files = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
from digitq.serving.server import Guarded, LiveConnection, ServedPage, serve

class Broken(Guarded):
    def get(self):
        raise RuntimeError("of the page\x1b[2J")

page = {"read": lambda: "<!doctype html><p>the page"}
serve(
    [("/", ServedPage, page), ("/live", LiveConnection), ("/broken", Broken)],
    sys.argv[1], int(sys.argv[2]), "the test", lambda: None,
)
"""
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "13",
}


@contextmanager
def serving(
    log: Path, host: str = "127.0.0.1", files: int = 512
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server that may open so many files, and the link that it prints."""
    with (
        open(log, "wb") as file,
        subprocess.Popen(
            [sys.executable, "-c", SERVE, host, str(find_free_port()), str(files)], stderr=file
        ) as process,
    ):
        try:
            wait_for(lambda: "Ctrl-C" in log.read_text())
            yield process, re.findall(r"http://\S+", log.read_text())[0]
        finally:
            process.kill()


def ask(link: str, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = HTTPConnection(urlsplit(link).netloc, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    text = "" if answer.status == 101 else answer.read().decode()
    connection.close()
    return answer.status, text, dict(answer.headers)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_only_the_whole_link_opens_the_page(tmp_path: Path, ending: signal.Signals) -> None:
    log = tmp_path / "log"
    with serving(log) as (process, link):
        token = urlsplit(link).query
        live = f"/live?{token}"
        status, text, headers = ask(link, f"/?{token}")
        assert (status, "the page" in text) == (200, True)
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Frame-Options"] == "DENY"
        for path in ("/", "/?token=", f"/?{token}x", "/?token=%C3%A9", "/nothing", "/live"):
            status, text, _ = ask(link, path, **UPGRADE)
            assert (status, "Open the link that the terminal shows" in text) == (403, True), path
        assert ask(link, f"/nothing?{token}")[0] in (404, 405)
        here = f"http://{urlsplit(link).netloc}"
        assert ask(link, live, **UPGRADE, Origin=here)[0] == 101
        for foreign in ("http://example.com", "null", f"{here}0", "http://127.0.0.1"):
            assert ask(link, live, **UPGRADE, Origin=foreign)[0] == 403
            assert ask(link, f"/?{token}", Origin=foreign)[0] == 403
        process.send_signal(ending)
        assert process.wait(30) == 0
    assert log.read_text().count("\n") == 2  # no request and no traceback


def test_no_body_is_received_without_the_token(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as (_, link):
        address = urlsplit(link)
        head = "POST /?{} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            client.sendall(head.format("token=x").encode())
            answer = b"".join(iter(lambda: client.recv(1 << 16), b""))  # until it is closed
            assert answer.startswith(b"HTTP/1.1 403 ")
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            client.sendall(head.format(address.query).encode() + b" " * 1_000_000)
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 405 ")


def test_silent_connections_keep_nobody_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log, files=64) as (_, link), ExitStack() as stack:
        address = urlsplit(link)
        silent = [
            stack.enter_context(socket.create_connection((address.hostname, address.port)))
            for _ in range(100)
        ]
        for _ in range(3):
            assert ask(link, f"/?{address.query}")[0] == 200
        assert silent[0].recv(1) == b""  # the oldest ones are closed
        assert log.read_text().count("\n") == 2


def test_connections_that_the_system_refuses_are_taken_later(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log, files=32) as (_, link):
        live = [HTTPConnection(urlsplit(link).netloc, timeout=30) for _ in range(40)]
        with suppress(TimeoutError):  # these have the token: no limit but that of the system
            for one in live:
                one.timeout = 1
                one.request("GET", f"/live?{urlsplit(link).query}", headers=UPGRADE)
                one.getresponse()
        for one in live:
            one.close()
        assert ask(link, f"/?{urlsplit(link).query}")[0] == 200
        assert log.read_text().count("\n") == 2


def test_a_log_has_neither_the_token_nor_control_characters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log) as (_, link):
        token = urlsplit(link).query.partition("=")[2]
        assert ask(link, f"/broken?token={token}")[0] == 500
        wait_for(lambda: r"RuntimeError: of the page\x1b[2J" in log.read_text())
        assert "GET /broken" in log.read_text() and "\x1b[2J" not in log.read_text()
        assert log.read_text().count(token) == 1  # in the link


def test_a_network_gets_a_code_for_phones(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log, "0.0.0.0") as (_, link):
        assert urlsplit(link).hostname not in ("0.0.0.0", None)
        assert re.search("█{20}", log.read_text())
        assert "the connection is not encrypted" in log.read_text()
    with serving(log) as (_, again):
        assert urlsplit(again).query != urlsplit(link).query
        assert "█" not in log.read_text()


def test_an_address_that_cannot_be_served_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="name another --port"):
            serve([], "127.0.0.1", port, "a page", lambda: None)
    with pytest.raises(UsageError, match="0.0.0.0 for all of them"):
        serve([], "192.0.2.7", None, "a page", lambda: None)
