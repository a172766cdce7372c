"""The journal of a result file: the run it belongs to, and its checkpoints."""

import json
from dataclasses import fields

from producer.checkpoint import Checkpoint

Run = dict[str, str | int | bool | list[str] | None]


def parse_journal(lines: list[bytes]) -> tuple[Run, list[tuple[int, Checkpoint]]]:
    """The run, and the file's size in bytes and checkpoint after each batch.

    Raises `ValueError` if the lines are no journal.
    """
    run, *notes = map(json.loads, lines)
    if not isinstance(run, dict):
        raise ValueError("no run")
    for note in notes:
        counts = note if isinstance(note, list) else []
        if len(counts) != 1 + len(fields(Checkpoint)) or not all(
            isinstance(count, int) and count >= 0 for count in counts
        ):
            raise ValueError("no counts")
    return run, [(size, Checkpoint(*written)) for size, *written in notes]


def difference(old: Run, new: Run) -> str:
    """What two runs differ in, in words."""
    if set(old) != set(new):
        return "it was started by another command or an older version"
    changed = [name for name in new if old[name] != new[name]]
    if changed == ["modified"]:
        return "a table or a set has changed since"
    return ", ".join(f"{name} was {_show(old[name])}" for name in changed if name != "modified")


def _show(value: str | int | bool | list[str] | None) -> str:
    return "none" if value is None else " ".join(value) if isinstance(value, list) else str(value)
