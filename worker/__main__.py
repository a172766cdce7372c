"""`python -m digitq.worker COMMAND`, which `digitq inspect`, `train`, `form` and `report` run."""

import gc
import os
import sys

from digitq.protocol.host.process import end_at_once, make_stderr_unfailing

if __name__ == "__main__":
    end_at_once()  # at Ctrl-C, also while torch is being imported
    make_stderr_unfailing()
    from digitq.worker.subcommands import commands

    try:
        commands(prog_name="digitq")
    except OSError as error:  # stdout can't be written; Python would try again, and exit with 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"digitq: {error}", file=sys.stderr)
        sys.exit(3)
    finally:
        gc.freeze()  # else Python would search all that was imported for garbage, which takes 0.4 s
