"""How commands are written to Redis, and its replies read."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from redis.connection import Encoder, HiredisRespSerializer
from redis.exceptions import ConnectionError

from protocol.broker.wire import LARGE_BYTES, READ_BYTES, SEND_BYTES, Packer, Parser

LARGE = bytes(range(256)) * (LARGE_BYTES // 256 + 1)


@pytest.mark.parametrize("form", [bytes, memoryview])
def test_a_large_argument_is_sent_as_it_lies(form: type) -> None:
    payload = form(bytes(LARGE_BYTES + 1))
    command = ("EVALSHA", "abc", 1, "key", "é", 2.5, payload, "rest")
    pieces = Packer().pack(*command)
    assert any(piece is payload for piece in pieces)
    assert b"".join(pieces) == b"".join(HiredisRespSerializer().pack(*command))
    assert Packer().pack("GET", b"small") == HiredisRespSerializer().pack("GET", b"small")


def test_a_huge_argument_is_sent_in_parts_as_they_lie() -> None:
    payload = bytes(range(256)) * (SEND_BYTES // 100)
    assert max(map(len, Packer().pack("SET", "key", payload))) == len(payload)
    pieces = Packer(SEND_BYTES).pack("SET", "key", payload)
    assert max(map(len, pieces)) == SEND_BYTES
    assert all(piece.obj is payload for piece in pieces if isinstance(piece, memoryview))
    assert b"".join(pieces) == b"".join(HiredisRespSerializer().pack("SET", "key", payload))


@contextmanager
def replies(sent: bytes, piece: int) -> Iterator[Parser]:
    """A parser of a connection that brings `sent`, so many bytes at a time, and ends."""
    near, far = socket.socketpair()

    def send() -> None:
        with far:
            for start in range(0, len(sent), piece):
                far.sendall(sent[start : start + piece])

    sender = threading.Thread(target=send)
    sender.start()
    parser = Parser(READ_BYTES)
    encoder = Encoder("utf-8", "strict", decode_responses=False)  # type: ignore[no-untyped-call]
    with near:
        parser.on_connect(SimpleNamespace(_sock=near, socket_timeout=None, encoder=encoder))
        yield parser
        parser.on_disconnect()  # type: ignore[no-untyped-call]
    sender.join()


def bulk(content: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(content), content)


@pytest.mark.parametrize("piece", [7, READ_BYTES - 1, READ_BYTES, 1 << 20])
def test_large_strings_are_read_whole_wherever_they_stand(piece: int) -> None:
    edge = LARGE[:LARGE_BYTES]
    array = b"*5\r\n" + bulk(LARGE) + b"$-1\r\n:7\r\n" + bulk(edge) + bulk(LARGE[::-1])
    with replies(bulk(b"small") + array + bulk(LARGE) + b"+OK\r\n", piece) as parser:
        assert parser.read_response() == b"small"  # type: ignore[no-untyped-call]
        assert parser.read_response() == [LARGE, None, 7, edge, LARGE[::-1]]  # type: ignore[no-untyped-call]
        large = parser.read_response()  # type: ignore[no-untyped-call]
        assert isinstance(large, memoryview) and large == LARGE
        assert parser.read_response() == b"OK"  # type: ignore[no-untyped-call]


def test_a_connection_that_breaks_off_within_a_string_is_lost() -> None:
    with replies(bulk(LARGE)[:-10], READ_BYTES) as parser, pytest.raises(ConnectionError):
        parser.read_response()  # type: ignore[no-untyped-call]
