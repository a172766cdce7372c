"""Opens a file with the fastest decoder that can read it, and tells whether it has more pages."""

import io
from collections.abc import Callable

import PIL.Image

from digitq.protocol.formats.pdf import PDF, count_pdf_pages
from digitq.worker.picture import Picture, TimeLimitError
from digitq.worker.sight.decoding.pillow import TIFF, decode_image, to_picture
from digitq.worker.sight.decoding.plain import JPEG, PNG, decode_plain_jpeg, decode_plain_png


def open_image(
    content: bytes, side: int, prepare: Callable[[Picture], Picture] = lambda picture: picture
) -> Callable[[int], Picture]:
    """A function that gives the prepared picture; its argument is the least shorter side in px.

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


def has_more_pages(content: bytes) -> bool:
    """Whether a PDF or TIFF has several pages, or a GIF, WebP, PNG or AVIF several frames."""
    if content.startswith(PNG):
        head = content[: content.find(b"IDAT")]
        start = head.find(b"acTL") + 4
        # without an fcTL chunk before IDAT, the main picture is not one of the animation's frames
        return start > 3 and int.from_bytes(head[start : start + 4]) + (b"fcTL" not in head) > 1
    if content[8:16] == b"WEBPVP8X":
        return content.count(b"ANMF") > 1
    if not content.startswith((b"GIF8", PDF, *TIFF)):
        return content[4:12] == b"ftypavis"  # an AVIF sequence
    try:
        if content.startswith(PDF):
            return count_pdf_pages(content) > 1
        with PIL.Image.open(io.BytesIO(content), formats=("GIF", "TIFF")) as image:
            return bool(getattr(image, "is_animated", False))
    except TimeLimitError:
        raise
    except Exception:  # damage is reported when the first picture is read
        return False
