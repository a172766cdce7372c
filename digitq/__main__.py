"""The `digitq` command. Ctrl-C ends it without a traceback even while it is still importing."""

import os
import sys

from digitq import describe_foreign_module


def hide_password() -> None:
    """If `--broker` has a password, put it into the environment and start this program anew without
    it: everyone on this host sees the arguments of a process."""
    from protocol.broker.address import without_password

    url, rest, parts = "", list[str](), iter(sys.orig_argv)
    for part in parts:
        name, equals, value = part.partition("=")
        if name == "--broker":
            url = value if equals else next(parts, "")
        else:
            rest.append(part)
    if without_password(url) != url:
        os.environ["DIGITQ_BROKER_URL"] = url
        os.execv(sys.executable, rest)


def main() -> None:
    """Run the command line of `digitq.cli`, which takes a while to import."""
    if reason := describe_foreign_module():
        print(f"digitq: {reason}", file=sys.stderr)
        sys.exit(2)
    from protocol.host.process import end_at_once, run_without_waiting

    end_at_once()
    if sys.argv[1:2] == ["worker"]:
        from digitq.check import check_worker

        if (status := check_worker(sys.argv[2:])) is not None:
            sys.exit(status)
    hide_password()
    from digitq import cli
    from protocol.settings import OTHER_BROKERS

    for name in OTHER_BROKERS:
        os.environ.pop(name, None)
    run_without_waiting(cli.main)


if __name__ == "__main__":
    main()
