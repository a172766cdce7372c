"""`--watch`: what a command prints, written again each second until Ctrl-C."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from digitq.operate.tables import View
from digitq.protocol.broker.connection import connect
from digitq.protocol.errors import BrokerError
from digitq.protocol.ledger import Ledger
from digitq.protocol.overview import MAX_READ_SECONDS
from digitq.protocol.text import plural

LOOK_SECONDS = 1.0  # time between two looks


def can_watch() -> bool:
    """Whether stdout is a terminal on which lines can be written again."""
    return bool(sys.stdout and sys.stdout.isatty()) and not Console().is_dumb_terminal


def watch(url: str, look: Callable[[Ledger], View]) -> None:
    """Show what `look` gives until Ctrl-C, or until the job that is shown has ended.

    If Redis is lost, the last view stays, with a line that says so. Raises what `look` raises, but
    `BrokerError` at the first look only.
    """
    ledger = Ledger(connect(url, timeout_seconds=MAX_READ_SECONDS))
    console, view, lost = Console(), look(ledger), ""
    # On the alternate screen, a change of the terminal's size leaves no debris
    live = Live(console=console, screen=True, auto_refresh=False)
    with suppress(KeyboardInterrupt), live:
        while True:
            live.update(fit(view, lost, console), refresh=True)
            if view.has_ended:
                break
            time.sleep(LOOK_SECONDS)
            try:
                view, lost = look(ledger), ""
            except BrokerError as error:
                lost = lost or f"Redis is lost since {datetime.now(UTC):%H:%M:%S} UTC: {error}"
    console.print(fit(view, lost, console))


def fit(view: View, lost: str, console: Console) -> Group:
    """All notes, and as many lines of the table above them as the terminal has room for."""
    notes = [*([Text(lost, "red")] if lost else []), *(Text(note, "yellow") for note in view.notes)]
    if not view.is_table:
        return Group(*map(Text, view.lines), *notes)
    room = max(1, console.height - 2 - len(console.render_lines(Group(*notes))))
    lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in view.lines[: room + 1]]
    if hidden := len(view.lines) - len(lines):
        lines[-1] = Text(f"… and {plural(hidden + 1, 'more job')}")
    return Group(*lines, *notes)
