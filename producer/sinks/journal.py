"""The journal of a result file that is being written: which run writes it, and how far it is."""

import fcntl
import json
import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from pydantic import NonNegativeInt, TypeAdapter

from digitq.producer.counts import Counts
from digitq.producer.provenance import Parts
from digitq.producer.sinks.sink import write_all
from digitq.protocol.errors import UsageError

Identity = dict[str, str | int | bool | list[str] | None]  # what must be equal to continue a run


@dataclass(frozen=True)
class Note:
    """What is written after a batch."""

    size: NonNegativeInt  # bytes of the partial file
    counts: Counts
    parts: Parts


NOTES = TypeAdapter(Note)


class Journal(FileIO):
    """`OUT.partial.run`, which belongs to `OUT.partial`. Its first line identifies the run; each
    further line is a `Note`."""

    def __init__(self, partial: Path) -> None:
        self.path, self._partial = partial.with_name(partial.name + ".run"), partial
        self.is_new = not self.path.exists()
        super().__init__(self.path, "a+")

    def lock(self) -> bool:
        """Lock the journal; False if another run has it or has just removed it."""
        try:
            fcntl.flock(self, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(self.fileno()).st_nlink > 0
        except BlockingIOError:
            return False
        except OSError:  # the file system has no locks
            return True

    def add(self, note: Note) -> None:
        write_all(self, NOTES.dump_json(note) + b"\n")

    def open_run(self, run: Identity) -> Note:
        """The last note whose rows are all in the partial file. Begins a journal if there is none.

        Raises `UsageError` if it belongs to another run, or is damaged.
        """
        self.seek(0)
        lines = self.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        if not whole:
            self.truncate(0)
            write_all(self, json.dumps(run).encode() + b"\n")
            return Note(0, Counts(), ())
        try:
            old, notes = json.loads(whole[0]), [*map(NOTES.validate_json, whole[1:])]
            if not isinstance(old, dict):
                raise ValueError("the first line is no object")
        except ValueError:  # pydantic's is one, too
            reason = "damaged, or of another version"
            raise UsageError(f"{self.path} is {reason}: --overwrite starts again") from None
        if old != run:
            advice = "--overwrite starts again"
            if old.get("weights") != run.get("weights"):
                advice += ", and the old weights continue it"
            raise UsageError(
                f"{self._partial} belongs to another run ({difference(old, run)}): {advice}"
            )
        on_disk = self._partial.stat().st_size if self._partial.exists() else 0
        while notes and notes[-1].size > on_disk:
            notes.pop()  # if it stayed, it would seem valid once the file is as long again
        self.truncate(sum(map(len, whole[: 1 + len(notes)])))
        return notes[-1] if notes else Note(0, Counts(), ())


def difference(old: Identity, new: Identity) -> str:
    """A description of how two runs differ."""
    if set(old) != set(new):
        return "it was started by another command or an older version"
    words = {  # the journal has only hashes for these
        "modified": "a table, a set, a document or the right answers have changed since",
        "known": "the form, the risk, or what is known of the numbers was different",
        "weights": f"its weights were {old.get('weights') or 'built in'}, not "
        f"{new.get('weights') or 'those built in'}",
    }

    def describe(name: str) -> str:
        value = old[name]
        shown = " ".join(map(str, value)) if isinstance(value, list) else value or "none"
        return words.get(name, f"{name} was {shown}")

    return ", ".join(describe(name) for name in new if old[name] != new[name])
