"""Pages that are served: who may see them, and how the server ends."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from digitq.private.processes import find_free_port
from digitq.protocol.errors import UsageError
from digitq.serving.server import serve
from tests.waiting import wait_for

SERVE = """
import sys
from digitq.serving.server import LiveConnection, ServedPage, serve
page = {"text": "<!doctype html><p>the page"}
serve(
    [("/", ServedPage, page), ("/live", LiveConnection)], sys.argv[1], int(sys.argv[2]),
    "the test", lambda: None,
)
"""
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "13",
}


@contextmanager
def serving(log: Path, host: str = "127.0.0.1") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server, and the link that it prints."""
    with (
        open(log, "wb") as file,
        subprocess.Popen(
            [sys.executable, "-c", SERVE, host, str(find_free_port())], stderr=file
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


def test_a_network_gets_a_code_for_phones(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log, "0.0.0.0") as (_, link):
        assert urlsplit(link).hostname not in ("0.0.0.0", None)
        assert re.search("█{20}", log.read_text())
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
