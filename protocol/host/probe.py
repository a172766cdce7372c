"""A worker's sign of life: a file that it writes again and again, and that a probe looks at.

A probe runs every few seconds, so this module imports nothing heavy.
"""

import os
import re
import socket
import tempfile
import time
from pathlib import Path

BEAT_SECONDS = 2.0  # time between two signs of life
MAX_PULSE_AGE_SECONDS = 10.0  # a worker that gives none for longer is not live


def node_name(given: str | None = None) -> str:
    """The name of a worker that was started with `--hostname GIVEN`, as Celery makes it."""
    host = socket.gethostname()
    name, at, place = (given or "").partition("@")
    if not at:
        name, place = "", name
    short, _, domain = host.partition(".")
    # %i and %I number the processes of the pool, and this is the main process
    known = {"%h": host, "%n": short, "%d": domain, "%i": "0", "%I": ""}
    return re.sub("%[hndiI]", lambda found: known[found[0]], f"{name or 'celery'}@{place or host}")


class Pulse:
    """The file of the worker with this node name: its process, and why it is not ready."""

    def __init__(self, node: str) -> None:
        """Raises `OSError` if there is no folder for temporary files, or it is another user's."""
        folder = Path(tempfile.gettempdir(), f"digitq-workers-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        self.node, self.path = node, folder / node.replace("/", "%2F")

    def beat(self, not_ready: str) -> bool:
        """Give a sign of life, unless another process does so under this name; say whether."""
        pid, _ = self._read()
        if pid != os.getpid() and self.find_fault("live") is None:
            return False
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        new.write_text(f"{os.getpid()} {not_ready}")
        new.replace(self.path)
        return True

    def find_fault(self, wanted: str) -> str | None:
        """Why the worker is not `live`, or not `ready`; None if it is."""
        pid, not_ready = self._read()
        if pid is None:
            return f"no worker {self.node} was here: {self.path} is missing or damaged"
        silent_seconds = time.time() - self.path.stat().st_mtime
        if abs(silent_seconds) > MAX_PULSE_AGE_SECONDS:
            return f"no sign of life for {silent_seconds:.0f} s"
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return f"process {pid} has ended"
        return not_ready if wanted == "ready" and not_ready else None

    def _read(self) -> tuple[int | None, str]:
        try:
            pid, _, not_ready = self.path.read_text().partition(" ")
            return int(pid), not_ready
        except (FileNotFoundError, ValueError):
            return None, ""
