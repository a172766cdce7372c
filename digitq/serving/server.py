"""Serves pages to those who have the link: its token is made anew at each start."""

import asyncio
import fcntl
import ipaddress
import json
import logging
import os
import resource
import signal
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import EACCES, EADDRINUSE
from hmac import compare_digest
from io import StringIO
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

import click
import segno
from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.iostream import IOStream
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from digitq.protocol.errors import UsageError
from digitq.protocol.settings import settings
from digitq.protocol.text import in_one_line
from digitq.terminal import echo_err

TOKEN_BYTES = 18  # random bytes of the token in the link, which nobody can guess
FIRST_PORT, PORTS = 20_000, 12_000  # a page without `--port` is always on the same one of these
TICK_MS = 1_000  # how often `serve` calls its `tick`
PING_SECONDS = 10  # a browser that answers no ping for this long has lost its connection
MAX_MESSAGE_BYTES = 1 << 22  # a message of a live connection is at most this large
MAX_IDLE_SECONDS = 10  # a connection without a whole request for this long is closed
BODY_SECONDS = 120  # the body of a request is received within this time
MAX_STRANGERS = 256  # connections that have not shown the token: the oldest are closed beyond this
STRANGERS_SHARE = 0.25  # nor do they take more than this share of the files a process may open
ACCEPT_PAUSE_SECONDS = 0.5  # if the system refuses a connection, the next one is taken this later
CLOSING_SECONDS = 2  # at the end, open requests are waited for this long
OUTSIDE = ("198.51.100.1", 9)  # an address for examples (RFC 5737), to which all ways lead out
REFUSAL = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>digitq</title><body style="max-width: 40rem; margin: 3rem auto; padding: 0 1rem;
font: 1.1rem/1.5 system-ui, sans-serif; color-scheme: light dark"><p>{}</p>"""
NO_TOKEN = (
    "Open the link that the terminal shows. It changes each time digitq is started, and this "
    "address lacks its token, or a page of another origin asked for it."
)


@stream_request_body
class Guarded(RequestHandler):
    """Answers only those who have the token, and no page of another origin. Nobody else's body is
    received: `prepare` is called before it."""

    def prepare(self) -> None:
        self.received = bytearray()  # the body
        origin = self.request.headers.get("Origin")
        given = self.get_query_argument("token", "").encode()
        is_foreign = origin is not None and urlsplit(origin).netloc != self.request.host
        if is_foreign or not compare_digest(given, self.settings["token"].encode()):
            self.set_status(403)
            self.finish(REFUSAL.format(NO_TOKEN))
        elif isinstance(self.request.connection, HTTP1Connection):
            self.settings["strangers"].discard(self.request.connection.stream)
            self.request.connection.set_max_body_size(settings().image_bytes)

    def data_received(self, chunk: bytes) -> None:
        self.received += chunk

    def set_default_headers(self) -> None:
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")

    def log_exception(self, kind: Any, value: BaseException | None, trace: Any) -> None:
        """Log an exception without the query of the URL, which has the token."""
        if not isinstance(value, HTTPError):
            where = f"{self.request.method} {self.request.path}"
            logging.getLogger("tornado.application").error(where, exc_info=value)

    def write_error(self, status_code: int, **details: Any) -> None:
        self.finish(REFUSAL.format(f"There is nothing here ({status_code})."))


class ServedPage(Guarded):
    """A page."""

    def initialize(self, read: Callable[[], str]) -> None:
        self.read = read

    def get(self) -> None:
        self.finish(self.read())

    head = get  # by which a page asks whether its token still counts


class Strangers:
    """The connections that have not shown the token yet."""

    def __init__(self) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._limit = max(1, min(MAX_STRANGERS, int(files * STRANGERS_SHARE)))
        self._streams: dict[IOStream, str] = {}  # the address of each, the oldest first

    def add(self, stream: IOStream, address: str) -> None:
        """Take one more. If there are too many, the oldest of the address that has most is closed,
        so that one stranger keeps nobody else out."""
        left = {one: where for one, where in self._streams.items() if not one.closed()}
        self._streams = left | {stream: address}
        if len(self._streams) > self._limit:
            ((busiest, _),) = Counter(self._streams.values()).most_common(1)
            next(one for one, where in self._streams.items() if where == busiest).close()

    def discard(self, stream: IOStream) -> None:
        """Take away one that has shown the token."""
        self._streams.pop(stream, None)


class EscapedFormatter(logging.Formatter):
    """Lines of a log, in which control characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        record.msg, record.args = in_one_line(record.getMessage()), ()
        return "\n".join(map(in_one_line, super().format(record).split("\n")))


class LiveConnection(Guarded, WebSocketHandler):
    """A WebSocket of those who have the token."""

    def tell(self, message: Any) -> None:
        """Send something as JSON; nothing if the browser has gone."""
        try:
            sent = asyncio.ensure_future(self.write_message(json.dumps(message)))
        except WebSocketClosedError:
            return
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())


def serve(
    routes: Sequence[Any],
    host: str,
    port: int | None,
    what: str,
    tick: Callable[[], None],
) -> None:
    """Serve handlers that are `Guarded`, until Ctrl-C or SIGTERM; `tick` is called each second.

    Raises `UsageError` if the address can't be served.
    """
    listener = bind(host, port, what)
    address, port, *_ = listener.getsockname()
    token = token_urlsafe(TOKEN_BYTES)
    link = f"http://{name_host(host)}:{port}/?token={token}"
    echo_err(f"{what} is at {link}")
    if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        show_code(link)
        echo_err("who has this link can see and change this: show it only to those who may")
        echo_err(
            "the connection is not encrypted: who can read the network's traffic sees the link"
        )
    echo_err("Ctrl-C ends it")
    asyncio.run(serve_until_signal(listener, routes, token, tick))


async def serve_until_signal(
    listener: socket.socket,
    routes: Sequence[Any],
    token: str,
    tick: Callable[[], None],
) -> None:
    """Serve until Ctrl-C, or the end of the terminal or of the system."""
    handler = logging.StreamHandler()
    handler.setFormatter(EscapedFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    strangers = Strangers()
    application = Application(
        [*routes],
        default_handler_class=Guarded,
        token=token,
        strangers=strangers,
        log_function=lambda handler: None,  # a log would have the token
        websocket_ping_interval=PING_SECONDS,
        websocket_max_message_size=MAX_MESSAGE_BYTES,
    )
    server = HTTPServer(
        application,
        max_body_size=0,  # `Guarded` allows more
        idle_connection_timeout=MAX_IDLE_SECONDS,
        body_timeout=BODY_SECONDS,
    )
    accepting = asyncio.create_task(accept(listener, server, strangers))
    ticking = PeriodicCallback(tick, TICK_MS)
    ticking.start()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    ticking.stop()
    accepting.cancel()
    listener.close()
    with suppress(TimeoutError):
        await asyncio.wait_for(server.close_all_connections(), CLOSING_SECONDS)


async def accept(listener: socket.socket, server: HTTPServer, strangers: Strangers) -> None:
    """Take connections. Tornado's own loop would try again at once if the system refuses one."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, address = await loop.sock_accept(listener)
        except ConnectionAbortedError:
            continue
        except OSError:  # such as too many open files
            await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
            continue
        stream = IOStream(connection)
        strangers.add(stream, address[0])
        server.handle_stream(stream, address)
        await asyncio.sleep(0)  # others have their turn, also if many more wait


def hold(path: Path) -> int:
    """Lock a file while its page is served; the lock ends with the descriptor, or the process.

    Raises `UsageError` if another page has it.
    """
    # A file server locks what is open for writing only
    descriptor = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(
            f"another digitq serves {path} already: use its page, or end it first"
        ) from None
    except OSError:  # the file system has no locks
        pass
    return descriptor


def bind(host: str, port: int | None, what: str) -> socket.socket:
    """A socket that listens at an address. Raises `UsageError` if it can't be served.

    Without a port, `what` is always on the same one: a browser keeps answers by the address, and
    `what` is served only once.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    port = port or FIRST_PORT + crc32(os.path.abspath(what).encode()) % PORTS
    try:
        listener = socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
    except OSError as error:
        remedy = "--host must be an address of this machine, or 0.0.0.0 for all of them"
        if error.errno in (EADDRINUSE, EACCES):
            remedy = "end what is served there, or name another --port"
        reason = str(error.strerror or error).partition(" (")[0]  # the address is named anyway
        raise UsageError(f"can't serve at {host}, port {port}: {reason}: {remedy}") from None
    listener.setblocking(False)
    return listener


def show_code(link: str) -> None:
    """Print a link as a QR code on the terminal, white on black whatever its colours are."""
    code = StringIO()
    segno.make(link, micro=False).terminal(code, compact=True)
    for line in code.getvalue().splitlines():
        click.echo(click.style(line, fg="bright_white", bg="black"), err=True)


def name_host(host: str) -> str:
    """The host in the link: for 0.0.0.0 this machine's address in its network, or else its name.
    Nothing is sent: the system only chooses a way."""
    if host not in ("0.0.0.0", "::"):
        return f"[{host}]" if ":" in host else host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(OUTSIDE)
            return str(one.getsockname()[0])
        except OSError:
            return socket.gethostname()
