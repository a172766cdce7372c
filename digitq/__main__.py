"""The `digitq` command. Ctrl-C ends it without a traceback even while it is still importing."""

import gc
import os
import sys


def hide_password() -> None:
    """If `--broker` has a password, put the URL into the environment and start this program anew
    with `***` in its place: everyone on this host sees the arguments of a process."""
    from digitq.protocol.broker.address import HIDDEN_URL, without_password

    url, arguments = "", [*sys.orig_argv]
    for index, part in enumerate(sys.orig_argv):
        option, equals, value = part.partition("=")
        if option == "--broker" and equals:
            url, arguments[index] = value, f"{option}={without_password(value)}"
        elif sys.orig_argv[max(0, index - 1)] == "--broker":
            url, arguments[index] = part, without_password(part)
    if arguments != sys.orig_argv:
        os.environ[HIDDEN_URL] = url
        os.execv(sys.executable, arguments)


def main() -> None:
    """Run the command line of `digitq.cli`, which takes a while to import."""
    from digitq.protocol.host.process import end_at_once, leave_pandas_out, run_without_waiting

    end_at_once()
    if sys.argv[1:2] == ["worker"]:
        from digitq.worker_check import check_worker

        if (status := check_worker(sys.argv[2:])) is not None:
            sys.exit(status)
    hide_password()
    gc.disable()  # what is imported stays: to search it for garbage takes 0.1 s
    if not "".join(sys.argv[1:2]).startswith("-"):  # help needs no Arrow, which takes 0.1 s
        leave_pandas_out()
    from digitq import cli
    from digitq.protocol.settings import CELERY_VARIABLES

    for name in CELERY_VARIABLES:
        os.environ.pop(name, None)
    gc.freeze()
    gc.enable()
    run_without_waiting(cli.main)


if __name__ == "__main__":
    main()
