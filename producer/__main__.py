"""The `digitq` command, which Ctrl-C ends without a traceback from its first moment on."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of `producer.cli`, which takes a tenth of a second to import."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from producer import cli

    cli.main()


if __name__ == "__main__":
    main()
