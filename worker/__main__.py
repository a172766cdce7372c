"""`python -m worker inspect|train`, behind the `digitq` commands of these names.

Ctrl-C ends them at once, while torch is imported as well.
"""

import sys
from importlib import import_module

from protocol.signals import end_at_once

MODULES = {"inspect": "worker.inspect", "train": "worker.training"}

if __name__ == "__main__":
    end_at_once()
    command = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if command not in MODULES:
        sys.exit(f"usage: python -m worker {'|'.join(MODULES)} ...")
    import_module(MODULES[command]).main(prog_name=f"digitq {command}")
