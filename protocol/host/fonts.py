"""The font in which digitq draws names."""

from contextlib import suppress
from functools import cache

from PIL.ImageFont import FreeTypeFont, ImageFont, load_default, truetype

FONT_FILES = ("DejaVuSans.ttf", "Arial.ttf")  # a system has one of these; PIL's own is ASCII only
NO_LETTER = "\uffff"  # a font draws what it lacks as this


@cache
def load_font(size: int) -> FreeTypeFont | ImageFont:
    """The font with this height in px."""
    for name in FONT_FILES:
        with suppress(OSError):
            return truetype(name, size)
    return load_default(size)


def lacks_letters(text: str) -> bool:
    """Whether the font can't draw all of a text."""
    font = load_font(20)
    missing = bytes(font.getmask(NO_LETTER))
    return any(bytes(font.getmask(one)) == missing for one in {*text} if not one.isspace())
