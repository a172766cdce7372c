"""`python -m worker inspect|train`, behind the `digitq` commands of these names.

Ctrl-C ends them at once, while torch is imported as well.
"""

import signal
import sys
from importlib import import_module

MODULES = {"inspect": "worker.inspect", "train": "worker.training"}

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = sys.argv.pop(1)
    import_module(MODULES[command]).main(prog_name=f"digitq {command}")
