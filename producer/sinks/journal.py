"""The journal of a result file: which run it belongs to, and how far it is."""

import json
from dataclasses import fields

from producer.checkpoint import Checkpoint

Run = dict[str, str | int | bool | list[str] | None]


def parse_journal(lines: list[bytes]) -> tuple[Run, list[tuple[int, Checkpoint]]]:
    """Which run it is, and what was written after each batch, with its size in bytes. Raises
    `ValueError` where this is no journal."""
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
    if set(old) != set(new):
        return "begun by another command, or by an older version"
    changed = [name for name in new if old[name] != new[name]]
    if changed == ["modified"]:
        return "a table or a set was written anew"
    return ", ".join(f"{name} was {_show(old[name])}" for name in changed if name != "modified")


def _show(value: str | int | bool | list[str] | None) -> str:
    return "none" if value is None else " ".join(value) if isinstance(value, list) else str(value)
