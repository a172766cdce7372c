"""Tells whether a file has more than one picture; only the first is read."""

import io

import PIL.Image

from worker.decoding.pillow import TIFF
from worker.decoding.plain import PNG
from worker.pictures import TimeLimitError

GIF, AVIF_SEQUENCE = b"GIF8", b"ftypavis"


def has_more_pages(content: bytes) -> bool:
    """Whether a TIFF has several pages, or a GIF, WebP, PNG or AVIF several animation frames."""
    if content.startswith(PNG):
        head = content[: content.find(b"IDAT")]
        start = head.find(b"acTL") + 4
        # without an fcTL chunk before IDAT, the main picture is not one of the animation's frames
        return start > 3 and int.from_bytes(head[start : start + 4]) + (b"fcTL" not in head) > 1
    if content[8:16] == b"WEBPVP8X":
        return content.count(b"ANMF") > 1
    if not content.startswith((GIF, *TIFF)):
        return content[4:12] == AVIF_SEQUENCE
    try:
        with PIL.Image.open(io.BytesIO(content), formats=("GIF", "TIFF")) as image:
            return bool(getattr(image, "is_animated", False))
    except TimeLimitError:
        raise
    except Exception:  # damage is reported when the first picture is read
        return False
