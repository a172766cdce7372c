"""Draws pages of PDFs in a process of its own: `python -m digitq.protocol.formats.drawer`.

A page of a few kB may take pdfium hours, in which it does not return to Python, and a damaged one
may end its process. So the kernel ends this process, and the one that wants the page goes on.
"""

import atexit
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO

import PIL.Image

from digitq.protocol.formats.pdf import PageError, draw_page

MAX_DRAWING_SECONDS = 10  # the processor time that a page may take
MAX_DRAWING_BYTES = 2 << 30  # the memory that a page may take, on Linux
REQUEST = struct.Struct("!II")  # the processor time in seconds, the size of the PDF that follows
REPLY = struct.Struct("!IIII")  # channels, width, height, the size of the pixels that follow
MODES = {1: "L", 3: "RGB"}  # by their channels; 0 stands for an error, whose text follows


class Drawer:
    """The process that draws pages for this one. It starts with the first page, and again if it has
    ended. Threads take turns."""

    _process: subprocess.Popen[bytes] | None

    def __init__(self) -> None:
        self.forget()
        atexit.register(self.stop)
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Leave the process to the one that started it, of which this one is a fork."""
        self._lock, self._process = threading.Lock(), None

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.communicate()

    def draw(self, content: bytes) -> PIL.Image.Image:
        """The first page of a PDF, as `draw_page` gives it. Raises `PageError`."""
        with self._lock:
            if self._process and self._process.poll() is not None:
                self.stop()  # it was killed between two pages
            process = self._process = self._process or start()
            try:
                reply = ask(process, content)
                status = process.wait() if reply is None else 0
            except BaseException:  # such as a limit of the image's time
                self.stop()
                raise
            if reply is None:
                self.stop()
        if status == -signal.SIGXCPU:
            raise PageError(f"takes longer than {MAX_DRAWING_SECONDS} s")
        if reply is None:
            raise PageError(f"damaged: pdfium ends with status {status}")
        channels, width, height, body = reply
        if not channels:
            raise PageError(body.decode())
        return PIL.Image.frombytes(MODES[channels], (width, height), body)


def start() -> subprocess.Popen[bytes]:
    """Start the process. It ends with this one, since its stdin is closed then."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "digitq.protocol.formats.drawer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # so that Ctrl-C does not reach it
    )


def ask(process: subprocess.Popen[bytes], content: bytes) -> tuple[int, int, int, bytes] | None:
    """What the process answers: channels, width, height and pixels. None if it has ended."""
    assert process.stdin and process.stdout
    with suppress(BrokenPipeError):
        process.stdin.write(REQUEST.pack(MAX_DRAWING_SECONDS, len(content)) + content)
        process.stdin.flush()
        if len(head := process.stdout.read(REPLY.size)) == REPLY.size:
            channels, width, height, size = REPLY.unpack(head)
            if len(body := process.stdout.read(size)) == size:
                return channels, width, height, body
    return None


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Draw a page for each request, until there are no more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = MAX_DRAWING_BYTES if hard == resource.RLIM_INFINITY else min(MAX_DRAWING_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        seconds, size = REQUEST.unpack(head)
        content = requests.read(size)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, hard))
        try:
            image = draw_page(content)
        except PageError as error:
            text = str(error).encode()
            replies.write(REPLY.pack(0, 0, 0, len(text)) + text)
        else:
            pixels = image.tobytes()
            replies.write(REPLY.pack(len(image.getbands()), *image.size, len(pixels)))
            replies.write(pixels)
        replies.flush()


render_page = Drawer().draw

if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
