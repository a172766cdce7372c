"""How commands are written to Redis."""

import pytest
from redis.connection import HiredisRespSerializer

from protocol.broker import LARGE_BYTES, Packer


@pytest.mark.parametrize("form", [bytes, memoryview])
def test_a_large_argument_is_sent_as_it_lies(form: type) -> None:
    payload = form(bytes(LARGE_BYTES + 1))
    command = ("EVALSHA", "abc", 1, "key", "é", 2.5, payload, "rest")
    pieces = Packer().pack(*command)
    assert any(piece is payload for piece in pieces)
    assert b"".join(pieces) == b"".join(HiredisRespSerializer().pack(*command))
    assert Packer().pack("GET", b"small") == HiredisRespSerializer().pack("GET", b"small")
