"""The folders that files are written to."""

from pathlib import Path

from digitq.protocol.errors import UsageError


def check_folder(out: Path) -> None:
    """Raises `UsageError` if there is no folder for a file that is to be written."""
    if not (folder := out.parent).is_dir():
        raise UsageError(f"can't write {out}: there is no folder {folder}")
