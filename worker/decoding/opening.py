"""Opens a file with the fastest decoder that can read it."""

from collections.abc import Callable

from worker.decoding.pillow import decode_image, to_picture
from worker.decoding.plain import JPEG, decode_plain_jpeg, decode_plain_png
from worker.pictures import Picture


def open_image(
    content: bytes, side: int, prepare: Callable[[Picture], Picture] = lambda picture: picture
) -> Callable[[int], Picture]:
    """A function that gives the prepared picture with a shorter side of at least so many px.

    A JPEG is decoded at each call, since a smaller one is decoded faster. Any other file is decoded
    once, for `side`, the largest size asked for. Raises `ImageError`, now or at a call.
    """
    if content.startswith(JPEG):
        return lambda side: prepare(read_picture(content, side))
    picture = prepare(read_picture(content, side))
    return lambda side: picture


def read_picture(content: bytes, side: int) -> Picture:
    """Decode a file to values 0..255. Raises `ImageError`.

    A large image is reduced so that its shorter side keeps at least `side` px. If it is longer than
    `MAX_ASPECT` times its width, its longer side keeps at least `MAX_ASPECT * side` px instead.
    """
    picture = decode_plain_png(content, side)
    if picture is None:
        picture = decode_plain_jpeg(content, side)
    return to_picture(decode_image(content, side)) if picture is None else picture
