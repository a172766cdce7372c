"""Whether a file has more than one picture, of which only the first is read."""

import io
from contextlib import suppress

import PIL.Image

from worker.decoding import PNG, TIFF, TimeLimitError

GIF, AVIF_SEQUENCE = b"GIF8", b"ftypavis"


def has_more_pages(content: bytes) -> bool:
    """Whether a TIFF has pages, or an animation (GIF, WebP, PNG, AVIF) pictures, beside the first,
    which is read."""
    if content.startswith(PNG):
        head = content[: content.find(b"IDAT")]
        start = head.find(b"acTL") + 4
        # the picture itself counts where it is no frame of the animation
        return start > 3 and int.from_bytes(head[start : start + 4]) + (b"fcTL" not in head) > 1
    if content[8:16] == b"WEBPVP8X":
        return content.count(b"ANMF") > 1
    if content.startswith(GIF):
        return has_more_pictures(content)
    if not content.startswith(TIFF):
        return content[4:12] == AVIF_SEQUENCE
    try:
        with PIL.Image.open(io.BytesIO(content), formats=("TIFF",)) as image:
            return bool(getattr(image, "is_animated", False))
    except TimeLimitError:
        raise
    except Exception:  # what is wrong is told as the first is read
        return False


def has_more_pictures(gif: bytes) -> bool:
    """Whether a GIF has a second picture: from block to block, whose sizes it says. (Pillow looks
    for it byte by byte.)"""

    def skip_colours(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    def skip_data(start: int) -> int:
        while size := gif[start]:
            start += 1 + size
        return start + 1

    pictures, start = 0, 13 + skip_colours(gif[10] if len(gif) > 10 else 0)
    with suppress(IndexError):  # it breaks off
        while pictures < 2:
            if gif[start] == 0x21:  # something said of a picture
                start = skip_data(start + 2)
            elif gif[start] == 0x2C:
                pictures += 1
                start = skip_data(start + 11 + skip_colours(gif[start + 9]))
            else:
                break
    return pictures > 1
