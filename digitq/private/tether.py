"""Run a command that ends with its parent: `tether.py PARENT_PID COMMAND...`.

The kernel of Linux kills the command when the process that started it is gone, even after SIGKILL.
Elsewhere this process stays, watches its parent, and kills its whole session.
"""

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1  # see prctl(2)
PARENT_POLL_SECONDS = 0.5  # time between two looks at the parent


def stand_by(parent: int, command: list[str]) -> int:
    """Run the command until it or the parent ends; gives its exit status as a shell would."""
    process = subprocess.Popen(command)
    while os.getppid() == parent:
        try:
            status = process.wait(PARENT_POLL_SECONDS)
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
