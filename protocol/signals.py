"""What Ctrl-C does."""

import signal


def end_at_once() -> None:
    """Let Ctrl-C end this process without a word, unless it is ignored, as in a script's `&`."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
