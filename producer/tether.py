"""Becomes the command it is given, tied to its parent: `tether.py PARENT_PID COMMAND...`.

On Linux the kernel then kills the command when the process that started it is gone, however it
went. Elsewhere only an orderly end of the parent takes it down.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == int(sys.argv[1]):
        os.execvp(sys.argv[2], sys.argv[2:])
