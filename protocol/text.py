"""Names of files as they are shown and written, whatever bytes are in them."""


def printable(name: str) -> str:
    """The name with bytes that are no UTF-8 written as `\\xNN`."""
    try:
        content = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair of UTF-16, which stands for no byte
        content = name.encode("utf-8", "surrogatepass")
    return content.decode("utf-8", "backslashreplace")


def in_one_line(text: str) -> str:
    """The text as a terminal may have it: what can't be printed is written as `\\n`, `\\x1b` and
    the like."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in printable(text)
    )


def plural(number: int, noun: str) -> str:
    """As `1 image` or `1,000 images`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
