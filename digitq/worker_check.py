"""`digitq worker --check`, which imports none of the other commands: a probe must be cheap."""

import argparse
import sys
from collections.abc import Sequence

from digitq.protocol.host.probe import HeartbeatFile, node_name

CHECKS = ("live", "ready")


def check_worker(arguments: Sequence[str]) -> int | None:
    """Print whether a worker is live, or ready, if that is asked. `arguments` are those of `digitq
    worker`; its own `--hostname` says which worker. Gives the exit status; None if nothing valid
    is asked."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--check", nargs="?")
    parser.add_argument("-n", "--hostname", nargs="?")
    asked, _ = parser.parse_known_args(arguments)
    if asked.check not in CHECKS:
        return None
    node = node_name(asked.hostname)
    try:
        fault = HeartbeatFile(node).find_fault(asked.check)
    except OSError as error:
        fault = str(error)
    if fault is None:
        print(f"{node} is {asked.check}")
        return 0
    print(f"digitq: {node} is not {asked.check}: {fault}", file=sys.stderr)
    return 1
