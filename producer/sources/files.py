"""Image files: all in a folder, or those that paths name, one by one or on stdin."""

import codecs
import os
import re
import select
import sys
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from digitq.producer.sources.documents import count_pages, page_entries
from digitq.producer.sources.source import (
    Entry,
    Naming,
    SkippedFiles,
    Source,
    is_image_name,
    read_file,
)
from digitq.protocol.errors import UsageError

PADDED_DIGITS = 20  # numbers with fewer digits get leading zeros in a sort key
STDIN_BYTES = 1 << 16  # one read takes at most this much
DIGIT_RUN = re.compile("[0-9]+")


def sort_naturally(names: list[str]) -> None:
    """Sort in place so that `2.png` comes before `10.png`."""

    def pad(number: re.Match[str]) -> str:
        return number[0].zfill(PADDED_DIGITS)

    names.sort(key=lambda name: f"{DIGIT_RUN.sub(pad, name)}\0{name}")


def walk(root: Path, skipped: SkippedFiles) -> Iterator[str]:
    """Paths of the images below a folder, relative to `root`, and of folders that can't be read.

    Links to folders are not followed. The names of one folder are held at a time, to be sorted.
    """
    levels = [_list(root, "", skipped)]
    while levels:
        for path, is_folder in levels[-1]:
            if is_folder:
                levels.append(_list(root, f"{path}/", skipped))
                break
            yield path
        else:
            levels.pop()


def _list(root: Path, below: str, skipped: SkippedFiles) -> Iterator[tuple[str, bool]]:
    """The images and folders in one folder: their paths, and whether each is a folder."""
    names: list[str] = []
    others: dict[str, os.DirEntry[str]] = {}  # entries that are not files
    try:
        with os.scandir(root / below) as entries:
            for entry in entries:
                names.append(entry.name)
                if not entry.is_file(follow_symlinks=False):
                    others[entry.name] = entry
    except OSError as error:
        if not below:
            raise UsageError(f"can't read the folder {root}: {error.strerror}") from None
        yield below.rstrip("/"), False  # it can't be read, so it becomes a row with an error
        return
    sort_naturally(names)
    for name in names:
        kind = _describe(others[name]) if name in others else ""
        if kind == "folder" and not name.startswith("."):
            yield below + name, True
        elif is_image_name(name) and kind in ("", "broken link"):  # it becomes a row with an error
            yield below + name, False
        else:
            skipped.skip(name, kind)


def _describe(entry: os.DirEntry[str]) -> str:
    """The kind of an entry that is not a file; an empty string for a link to a file."""
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    if os.path.isfile(entry.path):  # unlike `entry.is_file`, this survives a loop of links
        return ""
    if not entry.is_symlink():
        return "pipe or device"
    return "linked folder" if os.path.isdir(entry.path) else "broken link"


def folder_source(root: Path, naming: Naming) -> Source:
    """The images of a folder, recursively, in natural order; an id is the path below the folder.
    Raises `UsageError` if there are none."""
    above, unique = os.path.abspath(root), naming.unique
    # Two files get the same id only if bytes that are not UTF-8 were escaped
    naming.unique = lambda name: unique(name) if "\\x" in name else name
    entries = (
        entry
        for name in walk(root, naming.skipped)
        for entry in _read_pages(naming, name, f"{root}/{name}", f"{above}/{name}")
    )
    return Source(
        str(root),
        naming.at_least_one(entries, root),
        naming.truth_from_parent,
        lambda: sum(count_pages(f"{root}/{name}") for name in walk(root, SkippedFiles())),
    )


def file_source(name: str, file: str, naming: Naming) -> Source:
    """The image in a file, or the pages of one; the id is the name."""
    path = os.path.abspath(name) if naming.truth_from_parent else name
    some = naming.at_least_one(_read_pages(naming, name, file, path), name)
    return Source(name, some, naming.truth_from_parent, lambda: count_pages(file))


def _read_pages(naming: Naming, name: str, file: str, path: str) -> Iterator[Entry]:
    return page_entries(naming, name, partial(read_file, file), path, file=file)


def stdin_paths() -> Iterator[str]:
    """The paths on stdin: one on each line, or each followed by a 0 byte as from `find -print0`."""
    if not sys.stdin:  # it is None after `<&-`
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
    first = first.removeprefix(codecs.BOM_UTF8)  # Windows editors write this mark
    rest, found = b"", False
    for block in chain([first], blocks, [end]):
        *lines, rest = (rest + block).split(end)
        for line in lines:
            if path := os.fsdecode(line if end == b"\0" else line.rstrip(b"\r")):
                found = True
                yield path
    if not found:
        raise UsageError("no paths on stdin")
