"""A page or a picture that a command writes: checked first, and replaced as a whole."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from protocol.errors import OutputError, UsageError


def check_outfile(path: Path, what: str, suffixes: Sequence[str], overwrite: bool) -> None:
    """Raises `UsageError` if a file can't be written there. `what` names it in the error."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{what} must end in {' or '.join(suffixes)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"can't write {path}: no such folder")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path} exists: --overwrite replaces it")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the name of a new file, which then replaces `path`. Raises `OutputError`."""
    path = Path(os.path.realpath(path))  # if it is a link, its target is replaced
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise OutputError(f"can't write {path}: {error.strerror or error}") from None
