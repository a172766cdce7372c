"""Opens a file by the fastest decoder that reads it."""

from collections.abc import Callable

from worker.decoding.pillow import decode_image, to_picture
from worker.decoding.plain import JPEG, decode_plain_jpeg, decode_plain_png
from worker.pictures import Picture


def open_image(
    content: bytes, side: int, prepare: Callable[[Picture], Picture] = lambda picture: picture
) -> Callable[[int], Picture]:
    """`read_picture` of a file by the side, up to `side` px, and prepared. Raises `ImageError`,
    then or before.

    Only a JPEG is decoded the faster the smaller it is, and each time; any other file, once.
    """
    if content.startswith(JPEG):
        return lambda side: prepare(read_picture(content, side))
    picture = prepare(read_picture(content, side))
    return lambda side: picture


def read_picture(content: bytes, side: int) -> Picture:
    """The image in a file, 0..255. Raises `ImageError`.

    A large one is shrunk: its shorter side stays as long as `side` px or longer, unless the other
    is `LONGEST` times as long.
    """
    picture = decode_plain_png(content, side)
    if picture is None:
        picture = decode_plain_jpeg(content, side)
    return to_picture(decode_image(content, side)) if picture is None else picture
