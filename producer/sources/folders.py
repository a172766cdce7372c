"""The images in a folder by name: which files are any, in what order, and what is passed over."""

import os
from collections.abc import Iterator
from functools import partial
from heapq import nsmallest
from pathlib import Path

import numpy as np

from producer.sources.names import SkippedFiles, is_image_name
from producer.sources.source import Entry, Source, UniqueIds, at_least_one, parent_digit, read_file
from protocol.errors import UsageError
from protocol.text import printable

DIGITS = 20  # of a number in a name
TOGETHER = 2048  # names, as they are sorted


def sort_naturally(names: list[str]) -> Iterator[str]:
    """In an order in which `2.png` comes before `10.png`: numbers of up to 20 digits count.

    Each is put after the text by which it is sorted: a million names must not take seconds, and
    texts are sorted in a third of the time of lists. They are taken from the list, since both take
    200 MB.
    """
    keyed: list[str] = []
    while block := names[-TOGETHER:]:
        del names[-TOGETHER:]
        keys = pad_numbers("\0".join(block)).split("\0")  # no name has a 0 byte
        keyed += map("\0".join, zip(keys, block, strict=True))
    # the first are there before the rest is sorted; the other way round they are found slowly
    falls = keyed[-1:] < keyed[:1]
    first = nsmallest(TOGETHER, reversed(keyed) if falls else keyed)
    yield from map(take_name, first)
    keyed.sort(reverse=True)
    del keyed[-len(first) :]
    while keyed:
        yield take_name(keyed.pop())


def take_name(keyed: str) -> str:
    """What is behind the text by which it is sorted."""
    return keyed.rpartition("\0")[2]


def pad_numbers(text: str) -> str:
    """The text with zeros before each number of fewer than 20 digits."""
    characters = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8)
    is_digit = characters - ord("0") < 10  # below "0" it wraps around
    edges = np.flatnonzero(np.diff(is_digit, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    places = np.ones(len(characters), np.intp)
    places[starts] += np.maximum(DIGITS - (ends - starts), 0)
    np.cumsum(places, out=places)
    padded = np.full(places[-1] if len(places) else 0, ord("0"), np.uint8)
    padded[places - 1] = characters
    return padded.tobytes().decode(errors="surrogatepass")


def has_images(root: Path) -> bool:
    """Whether `walk` would give anything; it looks no further than the first. Raises `UsageError`
    where the folder can't be read."""
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            with os.scandir(root / below) as entries:
                for entry in entries:
                    if is_image_name(entry.name) and is_file_or_link_to_one(entry):
                        return True
                    if is_folder_to_list(entry):
                        folders.append(f"{below}{entry.name}/")
        except OSError as error:
            if not below:
                raise UsageError(f"can't read the folder {root}: {error.strerror}") from None
            return True
    return False


def is_folder_to_list(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder that is neither hidden nor linked."""
    return entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")


def is_file_or_link_to_one(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link that leads to no folder: one that leads nowhere becomes a row
    with an error."""
    if entry.is_symlink():
        return not os.path.isdir(entry.path)
    return entry.is_file()


def walk(root: Path, skipped: SkippedFiles) -> Iterator[str]:
    """Paths of the images in a folder, relative to `root`, and of folders that can't be read.

    Links to folders are not followed.
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
    """The images and folders in one folder, and whether it is a folder; as `walk`."""
    names: list[str] = []
    others: dict[str, os.DirEntry[str]] = {}  # but files
    try:
        with os.scandir(root / below) as entries:
            for entry in entries:
                names.append(entry.name)
                if not entry.is_file(follow_symlinks=False):
                    others[entry.name] = entry
    except OSError as error:
        if not below:
            raise UsageError(f"can't read the folder {root}: {error.strerror}") from None
        yield below.rstrip("/"), False  # to be read in vain: it becomes a row with an error
        return
    for name in sort_naturally(names):
        other = others.get(name)
        if other and is_folder_to_list(other):
            yield below + name, True
        elif is_image_name(name) and (other is None or is_file_or_link_to_one(other)):
            yield below + name, False
        else:
            skipped.skip(name, _describe_other(other) if other else "")


def _describe_other(entry: os.DirEntry[str]) -> str:
    """What an entry is that is no file; nothing for a link to one."""
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    if os.path.isfile(entry.path):  # unlike the entry's own, it takes a loop of links for none
        return ""
    if not entry.is_symlink():
        return "pipe or device"
    return "linked folder" if os.path.isdir(entry.path) else "broken link"


def folder_source(
    root: Path, prefix: str, truth_from_parent: bool, skipped: SkippedFiles
) -> Source:
    """A folder's images, recursively, in natural order. Raises `UsageError` where it has none."""
    above = os.path.abspath(root)
    unique = UniqueIds()

    def name_once(name: str) -> str:
        """No two alike, though bytes that are no UTF-8 are written as another may be named."""
        return unique(name) if "\\x" in name else name

    entries = (
        Entry(
            prefix + name_once(printable(name)),
            partial(read_file, f"{root}/{name}"),
            parent_digit(f"{above}/{name}") if truth_from_parent else None,
        )
        for name in walk(root, skipped)
    )
    return Source(
        str(root),
        entries if has_images(root) else at_least_one(entries, root, skipped),
        truth_from_parent,
        count=lambda: sum(1 for _ in walk(root, SkippedFiles())),
    )
