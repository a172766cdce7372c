"""Names of files: which are images, and how the others are counted."""

import re
from collections import Counter
from dataclasses import dataclass, field

from protocol.settings import INSPECT_SUFFIX
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
ENDING = re.compile("(?=.*[a-z])[0-9a-z_~-]{1,8}")  # that is told
ODD = "odd ending"
NAMED_KINDS, MAX_KINDS = 3, 100  # of files passed over: told, and counted


@dataclass
class SkippedFiles:
    """The files a source passed over, hidden ones and what is no image: how many of which kind."""

    kinds: Counter[str] = field(default_factory=Counter)

    def skip(self, name: str, kind: str = "") -> None:
        """Pass over what has that name, a path below its folder or archive: a file, or a `kind`."""
        if is_hidden(name):
            kind = f"hidden {kind}".rstrip()
        elif not kind:
            kind = describe_ending(name)
        self.kinds[kind if kind in self.kinds or len(self.kinds) < MAX_KINDS else ODD] += 1

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
    if not stem or f"{dot}{suffix}".lower() not in IMAGE_SUFFIXES or name.endswith(INSPECT_SUFFIX):
        return False
    return not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether the file, or a folder that it lies in, begins with a dot."""
    if not name.startswith(".") and "/." not in name:
        return False
    return any(part.startswith(".") and part not in ("..", ".") for part in name.split("/"))


def describe_ending(name: str) -> str:
    """A file's ending, as it may be shown."""
    if name.endswith(INSPECT_SUFFIX):
        return INSPECT_SUFFIX
    _, dot, ending = name.rpartition("/")[2].lower().rpartition(".")
    if not dot:
        return "no ending"
    return f".{ending}" if ENDING.fullmatch(ending) else ODD
