"""Becomes the command it is given, tied to its parent: `tether.py PARENT_PID COMMAND...`.

The command is killed when the process that started it is gone, however it went: on Linux by the
kernel; elsewhere this process stays, looks after that, and kills its whole session.
"""

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)
LOOK_SECONDS = 0.5


def stand_by(parent: int, command: list[str]) -> int:
    """Run the command until it ends or the parent does; its exit status, as a shell has it."""
    process = subprocess.Popen(command)
    while os.getppid() == parent:
        try:
            status = process.wait(LOOK_SECONDS)
            return status if status >= 0 else 128 - status
        except subprocess.TimeoutExpired:
            pass
    os.killpg(0, signal.SIGKILL)
    return 1


if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:
        if sys.platform == "linux":
            os.execvp(command[0], command)
        sys.exit(stand_by(parent, command))
