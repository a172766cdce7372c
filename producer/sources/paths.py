"""Image files whose paths are given one by one, or on stdin."""

import codecs
import os
import select
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain

from producer.sources.source import Naming, Source, read_file
from protocol.errors import UsageError

STDIN_BYTES = 1 << 16  # one read


def paths_source(name: str, paths: Iterable[str], naming: Naming) -> Source:
    """One image for each path, whatever its name; the id is the path."""
    entries = (
        naming.entry(
            path,
            partial(read_file, path),
            os.path.abspath(path) if naming.truth_from_parent else "",
        )
        for path in paths
    )
    count = len(paths) if isinstance(paths, list) else None
    some = naming.at_least_one(entries, name)
    return Source(name, some, naming.truth_from_parent, lambda: count)


def stdin_paths() -> Iterator[str]:
    """The paths on stdin: one on each line, or each followed by a 0 byte as from `find -print0`."""
    if not sys.stdin:  # `<&-`
        raise UsageError("no paths on stdin: it is closed")
    # Unbuffered: a waiting thread would hold the buffer's lock while Python exits.
    stdin = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)

    def read() -> bytes:
        while (block := stdin.read(STDIN_BYTES)) is None:  # another program made it non-blocking
            select.select([stdin], [], [])
        return bytes(block)

    blocks = iter(read, b"")
    first = b""
    while not (b"\0" in first or b"\n" in first) and (block := next(blocks, b"")):
        first += block
    end = b"\0" if b"\0" in first else b"\n"
    first = first.removeprefix(codecs.BOM_UTF8)  # Windows editors write it
    rest, found = b"", False
    for block in chain([first], blocks, [end]):
        *lines, rest = (rest + block).split(end)
        for line in lines:
            if path := os.fsdecode(line if end == b"\0" else line.rstrip(b"\r")):
                found = True
                yield path
    if not found:
        raise UsageError("no paths on stdin")
