"""How a chunk goes over a connection to Redis: as it lies, without the copies that redis-py makes.

They took a producer a sixth of its time, and a worker a twentieth.
"""

import sys
from typing import Any

import numpy as np
from redis._parsers import Encoder, _RESP2Parser
from redis._parsers.socket import SocketBuffer
from redis.connection import HiredisRespSerializer, PythonRespSerializer
from redis.exceptions import ConnectionError

LARGE_BYTES = 1 << 16  # a string that is not worth a copy
READ_BYTES = 1 << 16  # at a time, of all else
HIREDIS_READ_BYTES = 1 << 18  # with 64 kB, results take half as long again
# At a time over a network: each has a connection's time limit, however slow the way. After each a
# thread may have to wait for another: over a Unix socket, it made a job a twentieth slower
SEND_BYTES = 1 << 19
END = b"\r\n"  # of a string


class Packer:
    """Writes commands as redis-py does: with hiredis, but for a large argument, which is sent as it
    lies; in parts of so many bytes."""

    def __init__(self, part_bytes: int = sys.maxsize) -> None:
        self._part_bytes = part_bytes
        self._with_copies = HiredisRespSerializer()
        encoder: Any = Encoder  # redis-py has no types here
        encode = encoder("utf-8", "strict", decode_responses=False).encode
        self._without = PythonRespSerializer(LARGE_BYTES, encode)

    def pack(self, *args: Any) -> list[bytes]:
        """A command as pieces to be sent one after the other."""
        large = any(isinstance(arg, (bytes, memoryview)) and len(arg) > LARGE_BYTES for arg in args)
        pack: Any = (self._without if large else self._with_copies).pack
        return [part for piece in pack(*args) for part in self._split(piece)]

    def _split(self, piece: Any) -> list[Any]:
        if len(piece) <= self._part_bytes:
            return [piece]
        view = memoryview(piece)
        starts = range(0, len(view), self._part_bytes)
        return [view[start : start + self._part_bytes] for start in starts]


class Parser(_RESP2Parser):
    """Reads replies as redis-py does without hiredis. It takes longer over small ones, but a large
    string comes as a `memoryview`, where it was put at once."""

    def on_connect(self, connection: Any) -> None:
        begin: Any = super().on_connect  # redis-py has no types here
        begin(connection)
        self._buffer = Buffer(connection._sock, self.socket_read_size, connection.socket_timeout)


class Buffer(SocketBuffer):
    """What was read of a socket ahead of its use; a large string is put where it stays at once."""

    def read(self, length: int, *args: Any, **options: Any) -> Any:
        if length <= LARGE_BYTES:
            return super().read(length, *args, **options)
        view = np.empty(length + len(END), np.uint8).data  # a bytearray would be zeroed first
        done = self._buffer.readinto(view)
        while done < len(view):
            count = self._sock.recv_into(view[done:])
            if not count:
                raise ConnectionError("Connection closed by server.")
            done += count
        return view[:length]
