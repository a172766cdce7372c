"""The `digitq` command. Ctrl-C ends it without a traceback even while it is still importing."""

import atexit
import os
import sys
import threading
from typing import NoReturn

from digitq import describe_foreign_module


def main() -> NoReturn:
    """Run the command line of `digitq.cli`, which takes a while to import."""
    if reason := describe_foreign_module():
        print(f"digitq: {reason}", file=sys.stderr)
        sys.exit(2)
    from protocol.host.process import end_at_once

    end_at_once()
    if sys.argv[1:2] == ["worker"]:
        from digitq.check import check_worker

        if (status := check_worker(sys.argv[2:])) is not None:
            sys.exit(status)
    from digitq import cli
    from protocol.settings import OTHER_BROKERS

    for name in OTHER_BROKERS:
        os.environ.pop(name, None)
    try:
        cli.main()
    except SystemExit as end:
        if threading.active_count() > 1:  # a thread in Arrow's code would make Python abort
            atexit._run_exitfuncs()
            os._exit(int(end.code or 0))
        raise


if __name__ == "__main__":
    main()
