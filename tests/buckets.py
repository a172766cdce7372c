"""A real server of buckets, and a gate before it that can be told to fail."""

import http.client
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.fs

from digitq.private.processes import find_free_port
from tests.waiting import wait_for

SECRET = "an+open/secret"
RETURNED = ("content-length", "content-range", "content-type", "etag", "last-modified")
OWN = ("connection", "content-length", "expect", "host", "transfer-encoding")
Fault = Callable[[str, str], str | None]  # of the method and the path: what goes wrong, if anything
MOTO = "import sys; from moto.server import main; main(['-p', sys.argv[1]])"


class Gate(ThreadingHTTPServer):
    """Passes requests on to the server, unless `fault` gives one of:

    a status, such as `503`; `huge`: an object of 5 GB; `cut`: half of the answer, then the
    connection ends; `hang`: no answer until `release`; `turn`: a redirection to the same place.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.seen: list[tuple[str, str]] = []
        self.reset()

    def reset(self) -> None:
        self.fault: Fault = lambda method, path: None
        self.release = threading.Event()
        self.seen.clear()

    def handle_error(self, *_: Any) -> None:
        """A client that has gone."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Gate
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None: ...

    def pass_on(self) -> None:
        body = b"".join(self.read_body())
        fault = self.server.fault(self.command, self.path)
        self.server.seen.append((self.command, self.path))
        if fault == "hang":
            self.server.release.wait(60)
            self.close_connection = True
            return
        if fault == "turn":
            self.answer(307, {"Location": self.server.url + self.path})
            return
        if fault and fault.isdigit():
            self.answer(int(fault), {"x-amz-bucket-region": "eu-west-1"} if fault == "301" else {})
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in OWN}
        connection.request(self.command, self.path, body, headers)
        with connection.getresponse() as answer:
            content = answer.read()
            headers = {name.title(): value for name, value in answer.headers.items()}
            kept = {name: value for name, value in headers.items() if name.lower() in RETURNED}
        connection.close()
        if fault == "huge":
            kept["Content-Length"] = str(5 << 30)
        self.answer(answer.status, kept, content, cut=fault == "cut")

    def read_body(self) -> Iterator[bytes]:
        yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

    def answer(
        self, status: int, headers: dict[str, str], content: bytes = b"", cut: bool = False
    ) -> None:
        self.send_response(status)
        headers.setdefault("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = cut


class Buckets(NamedTuple):
    """The server, as its owner sees it, and the gate that all others pass."""

    files: pyarrow.fs.FileSystem
    gate: Gate

    def put(self, path: str, content: bytes) -> None:
        with self.files.open_output_stream(path) as file:
            file.write(content)

    def get(self, path: str) -> bytes:
        with self.files.open_input_file(path) as file:
            return bytes(file.read())

    def names(self, path: str) -> list[str]:
        selector = pyarrow.fs.FileSelector(path, recursive=True)
        return [info.path for info in self.files.get_file_info(selector)]


@contextmanager
def serve_buckets(log: Path) -> Iterator[Buckets]:
    """Run the server, with a bucket `scans`."""
    port = find_free_port()
    command = [sys.executable, "-c", MOTO, str(port)]
    with open(log, "wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        gate = Gate(port)
        threading.Thread(target=gate.serve_forever, daemon=True).start()
        try:
            wait_for(lambda: _listens(port), 180)  # it imports for seconds of processor time
            files = pyarrow.fs.S3FileSystem(
                access_key="owner",
                secret_key=SECRET,
                endpoint_override=f"127.0.0.1:{port}",
                scheme="http",
                region="us-east-1",
                allow_bucket_creation=True,
            )
            files.create_dir("scans")
            yield Buckets(files, gate)
        finally:
            process.kill()
            gate.shutdown()
            gate.server_close()


def _listens(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError):
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    return False


GOOGLE = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

NAMES = sys.argv[1:]

def describe(name):
    times = dict.fromkeys(["updated", "timeCreated"], "2026-01-01T00:00:00.000Z")
    return {"bucket": "scans", "name": name, "generation": "1", "size": "3", **times}

class Google(BaseHTTPRequestHandler):
    def log_message(self, *arguments): ...

    def do_GET(self):
        url = urlsplit(self.path)
        query, name = parse_qs(url.query), unquote(url.path.partition("/o/")[2])
        status, answer = 200, {}
        if "/b/scans" not in url.path:
            status, answer = 404, {"error": {"code": 404, "message": "Not Found"}}
        elif url.path.endswith("/o"):
            start, end = query.get("prefix", [""])[0], query.get("delimiter", ["none"])[0]
            below = [name for name in NAMES if name.startswith(start)]
            found = [name for name in below if end not in name[len(start):]]
            answer = {"items": [*map(describe, found)]}
        elif name in NAMES:
            answer = describe(name)
        elif name:
            status, answer = 404, {"error": {"code": 404, "message": "Not Found"}}
        content = b"one" if "alt" in query and name in NAMES else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

server = HTTPServer(("127.0.0.1", 0), Google)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def serve_google(*names: str) -> Iterator[str]:
    """Imitate Google's buckets: these objects are in `scans`. It gives the host and the port. It is
    a process of its own, since Arrow holds Python's lock during some requests."""
    command = [sys.executable, "-c", GOOGLE, *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()
