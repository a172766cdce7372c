"""Images that are named one by one, or on stdin."""

import codecs
import os
import select
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from producer.sources.names import SkippedFiles
from producer.sources.source import Entry, Source, UniqueIds, at_least_one, parent_digit, read_file
from protocol.errors import UsageError
from protocol.text import printable

STDIN_BYTES = 1 << 16  # at a time


def paths_source(
    name: str,
    paths: Iterable[str],
    truth_from_parent: bool,
    unique: "UniqueIds | None" = None,
) -> Source:
    """Images named one by one; each is a row, whatever its name. The id is the path."""
    name_once = unique or UniqueIds()

    def entries() -> Iterator[Entry]:
        for path in paths:
            truth = parent_digit(os.path.abspath(path)) if truth_from_parent else None
            yield Entry(name_once(printable(path)), partial(read_file, path), truth)

    count = len(paths) if isinstance(paths, list) else None
    some = at_least_one(entries(), name, SkippedFiles())
    return Source(name, some, truth_from_parent, lambda: count)


def stdin_paths() -> Iterator[str]:
    """A path a line; or after each a 0 byte, as `find -print0` has it."""
    if not sys.stdin:  # `<&-`
        raise UsageError("no paths on stdin: it is closed")
    # past its buffer, whose lock a thread that waits for more would keep from Python's end
    stdin = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    blocks = iter(partial(_read_block, stdin), b"")
    first = b""
    while not (b"\0" in first or b"\n" in first) and (block := next(blocks, b"")):
        first += block
    end = b"\0" if b"\0" in first else b"\n"
    first = first.removeprefix(codecs.BOM_UTF8)  # as of a list that was written on Windows
    rest, found = b"", False
    for block in chain([first], blocks, [end]):
        *lines, rest = (rest + block).split(end)
        for line in lines:
            if path := os.fsdecode(line if end == b"\0" else line.rstrip(b"\r")):
                found = True
                yield path
    if not found:
        raise UsageError("no paths on stdin")


def _read_block(stdin: Any) -> bytes:
    """What has come; nothing at the end. It waits, though whoever has the other end, as a shell's
    other programs, may have set it not to."""
    while (block := stdin.read(STDIN_BYTES)) is None:
        select.select([stdin], [], [])
    return bytes(block)
