"""Decodes plain PNG and JPEG files with OpenCV, two to six times as fast as Pillow."""

import struct
import zlib

import cv2
import numpy as np

from digitq.worker.picture import Picture

MAX_MEGAPIXELS = 100  # a larger file is an error; with this limit a worker stays under 1 GB
MAX_ASPECT = 3  # an image longer than this many times its width is reduced by its longer side
TILE_PIXELS = 1 << 20  # a larger PNG is left to Pillow, which reduces it in tiles of this size

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"  # the signatures of both formats
SCAN = b"\xff\xda"  # the marker that ends a JPEG's header

COLOUR = cv2.IMREAD_COLOR_RGB
PLAIN_PNG = {  # the OpenCV flag by depth, colour type and so on in the header of a PNG
    b"\x08\0\0\0\0": cv2.IMREAD_GRAYSCALE,
    b"\x08\x02\0\0\0": COLOUR,
    b"\x08\x03\0\0\0": COLOUR,  # with a palette
}
PLAIN_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"gAMA", b"pHYs", b"sRGB", b"cHRM", b"tIME"}

BASELINE = {b"\xff\xc0", b"\xff\xc1"}  # the markers of a baseline JPEG's frame header
# JFIF, colour profile, tables, restart interval and comment, but not EXIF and Adobe's segment
PLAIN_SEGMENTS = {b"\xff\xe0", b"\xff\xe2", b"\xff\xdb", b"\xff\xc4", b"\xff\xdd", b"\xff\xfe"}
JPEG_FLAGS = [  # the index is how often the decoder halves the image
    cv2.IMREAD_GRAYSCALE,
    cv2.IMREAD_REDUCED_GRAYSCALE_2,
    cv2.IMREAD_REDUCED_GRAYSCALE_4,
    cv2.IMREAD_REDUCED_GRAYSCALE_8,
]


def decode_plain_png(content: bytes, side: int) -> Picture | None:
    """Decode a small, undamaged PNG of 8-bit grey or opaque colours; `None` for other files."""
    if not content.startswith(PNG) or content[24:29] not in PLAIN_PNG:
        return None
    width, height = struct.unpack(">II", content[16:24])
    if width * height > TILE_PIXELS or not has_plain_chunks(content):
        return None
    return decode_plain(content, PLAIN_PNG[content[24:29]], side)


def has_plain_chunks(content: bytes) -> bool:
    """Whether a PNG is complete, its checksums match, and no chunk changes how it looks."""
    start, kind = len(PNG), b""
    while kind != b"IEND":
        kind = content[start + 4 : start + 8]
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        check = zlib.crc32(content[start + 4 : end]).to_bytes(4, "big")
        if kind not in PLAIN_CHUNKS or content[end : end + 4] != check:
            return False
        start = end + 4
    return True


def decode_plain_jpeg(content: bytes, side: int) -> Picture | None:
    """Decode a complete baseline JPEG that has no orientation; `None` for other files."""
    if not content.startswith(JPEG) or not content.endswith(b"\xff\xd9"):
        return None
    if not (frame := read_jpeg_frame(content, is_plain=True)):
        return None
    height, width, components = struct.unpack(">HHB", frame)
    if width * height > MAX_MEGAPIXELS * 1e6 or components not in (1, 3):
        return None
    halvings = min(len(JPEG_FLAGS), (min(width, height) // side or 1).bit_length()) - 1
    return decode_plain(content, JPEG_FLAGS[halvings] | COLOUR * (components == 3), side)


def decode_plain(content: bytes, flags: int, side: int) -> Picture | None:
    """Decode a file with OpenCV and reduce it; `None` if OpenCV can't decode it."""
    flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
    if image is None:
        return None
    height, width = image.shape[:2]
    factor = reduction_factor(width, height, side)
    if factor > 1:  # whole factors are fast, so a rest at the right and bottom edge is cut off
        height, width = max(1, height // factor), max(1, width // factor)
        whole = image[: height * factor, : width * factor]
        image = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return image


def read_jpeg_frame(content: bytes, is_plain: bool = False) -> bytes | None:
    """Read the height, width and number of components of a JPEG from its header: 5 bytes.

    The result is `None` if the header is incomplete, if the decoder must hold the whole image
    (progressive, or one component after the other), or if the JPEG must be plain (`is_plain`) and
    has a segment that is not in `PLAIN_SEGMENTS`.
    """
    start, frame = 2, b""
    while (marker := content[start : start + 2]) != SCAN:
        if marker == b"\xff\xff":  # a fill byte
            start += 1
            continue
        if marker in BASELINE:
            frame = content[start + 5 : start + 10]
        elif marker not in PLAIN_SEGMENTS and (is_plain or marker[:1] != b"\xff"):
            return None
        start += 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    components = content[start + 4 : start + 5]
    return frame if components and frame[4:] == components else None


def reduction_factor(width: int, height: int, side: int) -> int:
    """How many pixels in each direction become one, so that the shorter side keeps `side` px."""
    shorter, longer = sorted((width, height))
    return max(shorter // side, longer // (MAX_ASPECT * side))
