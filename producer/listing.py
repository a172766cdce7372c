"""The images in a folder by name: which files are any, in what order, and what is passed over."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from pathlib import Path

import numpy as np

from protocol.errors import UsageError
from protocol.settings import INSPECTED
from protocol.text import plural

IMAGE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".heic",
    ".heif",
    ".avif",
    ".pgm",
    ".pbm",
    ".ppm",
    ".pnm",
)
DIGITS = 20  # of a number in a name
ENDING = re.compile("(?=.*[a-z])[0-9a-z_~-]{1,8}")  # that is told
ODD = "odd ending"
TOGETHER = 2048  # names, as they are sorted
NAMED_KINDS, MOST_KINDS = 3, 100  # of files passed over: told, and counted


@dataclass
class Tally:
    """The files a source passed over, hidden ones and what is no image: how many of which kind."""

    kinds: Counter[str] = field(default_factory=Counter)

    def skip(self, name: str, kind: str = "") -> None:
        """Pass over what has that name, a path below its folder or archive: a file, or a `kind`."""
        if is_hidden(name):
            kind = f"hidden {kind}".rstrip()
        elif not kind:
            kind = describe_ending(name)
        self.kinds[kind if kind in self.kinds or len(self.kinds) < MOST_KINDS else ODD] += 1

    def describe(self) -> str:
        """As `3 other files (.txt, hidden)`: the commonest kinds first; nothing where none was."""
        if not self.kinds:
            return ""
        kinds = [kind for kind, _ in self.kinds.most_common(NAMED_KINDS)]
        more = " …" * (len(self.kinds) > NAMED_KINDS)
        return f"{plural(self.kinds.total(), 'other file')} ({', '.join(kinds)}{more})"


def is_image_name(name: str) -> bool:
    """Whether a file of this name in a folder or an archive is taken for an image."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    if not stem or f"{dot}{suffix}".lower() not in IMAGE_SUFFIXES or name.endswith(INSPECTED):
        return False
    return not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether the file, or a folder that it lies in, begins with a dot."""
    if not name.startswith(".") and "/." not in name:
        return False
    return any(part.startswith(".") and part not in ("..", ".") for part in name.split("/"))


def describe_ending(name: str) -> str:
    """A file's ending, as it may be shown."""
    if name.endswith(INSPECTED):
        return INSPECTED
    _, dot, ending = name.rpartition("/")[2].lower().rpartition(".")
    if not dot:
        return "no ending"
    return f".{ending}" if ENDING.fullmatch(ending) else ODD


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


def walk(root: Path, tally: Tally) -> Iterator[str]:
    """Paths of the images in a folder, relative to `root`, and of folders that can't be read.

    Links to folders are not followed.
    """
    levels = [_list(root, "", tally)]
    while levels:
        for path, is_folder in levels[-1]:
            if is_folder:
                levels.append(_list(root, f"{path}/", tally))
                break
            yield path
        else:
            levels.pop()


def _list(root: Path, below: str, tally: Tally) -> Iterator[tuple[str, bool]]:
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
            tally.skip(name, _describe_other(other) if other else "")


def _describe_other(entry: os.DirEntry[str]) -> str:
    """What an entry is that is no file; nothing for a link to one."""
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    if os.path.isfile(entry.path):  # unlike the entry's own, it takes a loop of links for none
        return ""
    if not entry.is_symlink():
        return "pipe or device"
    return "linked folder" if os.path.isdir(entry.path) else "broken link"
