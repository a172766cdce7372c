"""The `digitq` command, which Ctrl-C ends without a traceback from its first moment on."""

import os
from typing import NoReturn

from protocol.signals import end_at_once


def main() -> NoReturn:
    """Run the command line of `producer.cli`, which takes a while to import."""
    end_at_once()
    from protocol.settings import OTHER_BROKERS

    for name in OTHER_BROKERS:
        os.environ.pop(name, None)
    from producer import cli

    cli.main()


if __name__ == "__main__":
    main()
