"""Text for people: names of files with any bytes in them, and numbers with a noun."""

from collections.abc import Collection
from itertools import islice

MAX_NAMED = 3  # a message names at most this many


def printable(name: str) -> str:
    """The name with each byte that is not UTF-8 written as `\\xNN`."""
    try:
        content = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that does not stand for a byte
        content = name.encode("utf-8", "surrogatepass")
    return content.decode("utf-8", "backslashreplace")


def shown(name: str) -> str:
    """The name of a source. That of a URL on the web lacks its query, which may be a key to it."""
    return name.partition("?")[0] if name.lower().startswith(("https://", "http://")) else name


def in_one_line(text: str) -> str:
    """The text in one line, with unprintable characters escaped, as `\\n` or `\\x1b`."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in printable(text)
    )


def name_some(names: Collection[str], most: int = MAX_NAMED) -> str:
    """The first names in one line, with an ellipsis if there are more: `a, b, c, …`."""
    more = ["…"] * (len(names) > most)
    return ", ".join([*map(in_one_line, islice(names, most)), *more])


def too_large(limit: int) -> str:
    """The error text for an image file of more than `limit` bytes."""
    return f"larger than {limit / 2**20:.0f} MB"


def plural(number: int, noun: str) -> str:
    """The number and the noun, for example `1 image` or `1,000 images`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
