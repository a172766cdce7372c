"""File names: which are images, and counts of the others."""

import re
from collections import Counter
from dataclasses import dataclass, field

from protocol.settings import INSPECT_SUFFIX
from protocol.text import plural

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".heic", ".heif", ".avif", ".pgm", ".pbm", ".ppm", ".pnm"),
)
SHOWN_ENDING = re.compile("(?=.*[a-z])[0-9a-z_~-]{1,8}")  # others are shown as `ODD_ENDING`
ODD_ENDING = "odd ending"
MAX_NAMED_KINDS = 3  # kinds of skipped files that a message names
MAX_COUNTED_KINDS = 100  # further kinds are counted as `ODD_ENDING`


@dataclass
class SkippedFiles:
    """Counts of the files that a source skipped (hidden files, other types), by kind."""

    kinds: Counter[str] = field(default_factory=Counter)

    def skip(self, name: str, kind: str = "") -> None:
        """Count a skipped file, or another `kind` of entry, by its path in a folder or archive."""
        kind = f"hidden {kind}".rstrip() if is_hidden(name) else kind or describe_ending(name)
        if kind not in self.kinds and len(self.kinds) >= MAX_COUNTED_KINDS:
            kind = ODD_ENDING
        self.kinds[kind] += 1

    def describe(self) -> str:
        """For example `3 other files (.txt, hidden)`, the commonest kinds first; empty for none."""
        if not self.kinds:
            return ""
        kinds = [kind for kind, _ in self.kinds.most_common(MAX_NAMED_KINDS)]
        more = " …" * (len(self.kinds) > MAX_NAMED_KINDS)
        return f"{plural(self.kinds.total(), 'other file')} ({', '.join(kinds)}{more})"


def is_image_name(name: str) -> bool:
    """Whether a file of this name in a folder or an archive counts as an image."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    if not stem or f"{dot}{suffix}".lower() not in IMAGE_SUFFIXES or name.endswith(INSPECT_SUFFIX):
        return False
    return not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether the name of the file, or of a folder in its path, begins with a dot."""
    if not name.startswith(".") and "/." not in name:
        return False
    return any(part.startswith(".") and part not in ("..", ".") for part in name.split("/"))


def describe_ending(name: str) -> str:
    """The ending of a file name, safe to show."""
    if name.endswith(INSPECT_SUFFIX):
        return INSPECT_SUFFIX
    _, dot, ending = name.rpartition("/")[2].lower().rpartition(".")
    if not dot:
        return "no ending"
    return f".{ending}" if SHOWN_ENDING.fullmatch(ending) else ODD_ENDING
