"""The file that a worker writes with each heartbeat, and that `digitq worker --check` looks at.

A probe runs every few seconds, so this module imports nothing heavy.
"""

import os
import re
import socket
import tempfile
import time
from pathlib import Path

MAX_FILE_AGE_SECONDS = 10.0  # a worker whose file is older is not live


def node_name(hostname: str | None = None) -> str:
    """The name of a worker that was started with `--hostname HOSTNAME`, as Celery makes it."""
    own = socket.gethostname()
    name, at, host = (hostname or "").partition("@")
    if not at:
        name, host = "", name
    short, _, domain = own.partition(".")
    # %i and %I number the processes of the pool, and this is the main process
    codes = {"%h": own, "%n": short, "%d": domain, "%i": "0", "%I": ""}
    return re.sub("%[hndiI]", lambda found: codes[found[0]], f"{name or 'celery'}@{host or own}")


class HeartbeatFile:
    """The file of the worker with this node name: its process, and why it is not ready."""

    def __init__(self, node: str) -> None:
        """Raises `OSError` if there is no folder for temporary files, or it is another user's."""
        folder = Path(tempfile.gettempdir(), f"digitq-workers-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        self.node, self.path = node, folder / node.replace("/", "%2F")

    def write(self, missing: str) -> None:
        """Say that this process lives, and what it lacks to be ready. Raises `OSError`, also if
        another process has this name."""
        pid, _ = self._read()
        if pid != os.getpid() and self.find_fault("live") is None:
            raise FileExistsError(f"another worker of this host is {self.node}; set --hostname")
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        new.write_text(f"{os.getpid()} {missing}")
        new.replace(self.path)

    def find_fault(self, wanted: str) -> str | None:
        """Why the worker is not `live`, or not `ready`; None if it is."""
        pid, missing = self._read()
        if pid is None:
            return f"no worker {self.node} was here: {self.path} is missing or damaged"
        silent_seconds = time.time() - self.path.stat().st_mtime
        if abs(silent_seconds) > MAX_FILE_AGE_SECONDS:
            return f"no heartbeat for {silent_seconds:.0f} s"
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return f"process {pid} has ended"
        return missing if wanted == "ready" and missing else None

    def _read(self) -> tuple[int | None, str]:
        try:
            pid, _, missing = self.path.read_text().partition(" ")
            return int(pid), missing
        except (FileNotFoundError, ValueError):
            return None, ""
