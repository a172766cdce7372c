"""From an image file to pixels, grey or in colour: whatever the format, the way up, the depth."""

import io
import re
import struct
import textwrap
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import PIL.TiffImagePlugin
from numpy.typing import NDArray

LONGEST = 3  # times as long as wide: beyond it the longer side sets the scale, so that what a
# worker holds of images at once takes some 200 MB at most
TILE_PIXELS = 1 << 20
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
TIFF = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"  # begin such files
PNG, JPEG, SCAN = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xda"
TEXT, TEXT_BYTES = re.compile(rb"[\t\r\n -~]{16,}\Z"), 80
FOREIGN = {  # files that are none, or none that is known, by their beginnings
    JPEG: "a JPEG that is damaged, or of a rare kind",
    **dict.fromkeys(TIFF, "a TIFF that is damaged, or of a rare kind"),
    b"%PDF": "a PDF",
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b": "compressed by gzip",
    b"PAR1": "a Parquet file",
    b"\x93NUMPY": "a NumPy array",
    b"\0\0\x08\3": "a set of images as MNIST has them",
}
MAX_MEGAPIXELS = 100  # of a file; with them, and with those below, a worker stays under 1 GB
MAX_MEGAPIXELS_WHOLE = 60  # of a format whose decoder holds all of it, and more than once
# Of such a file of more than `PLAIN_BITS` a pixel, and of a TIFF that is turned as it is read; and
# of WebP, whose decoder holds it four times
MAX_MEGAPIXELS_DEEP = 35
PLAIN_BITS, BITS, ORIENTATION = 24, 258, 274  # the latter two are tags of a TIFF
MAX_SIDE = TILE_PIXELS  # what is noted of each row, or of a column, takes more than short ones
COLOUR = cv2.IMREAD_COLOR_RGB
PLAIN_PNG = {  # of its header: 8 bit, not interlaced; and how it is read
    b"\x08\0\0\0\0": cv2.IMREAD_GRAYSCALE,
    b"\x08\x02\0\0\0": COLOUR,
    b"\x08\x03\0\0\0": COLOUR,  # by a palette
}
PLAIN_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"gAMA", b"pHYs", b"sRGB", b"cHRM", b"tIME"}
BASELINE = {b"\xff\xc0", b"\xff\xc1"}  # begin a JPEG's frame header
# Of a JPEG: JFIF, a colour profile, tables, restarts, a comment; not EXIF, nor Adobe's
PLAIN_SEGMENTS = {b"\xff\xe0", b"\xff\xe2", b"\xff\xdb", b"\xff\xc4", b"\xff\xdd", b"\xff\xfe"}
JPEG_FLAGS = [  # whole, at a half, a quarter, an eighth; in grey
    cv2.IMREAD_GRAYSCALE,
    cv2.IMREAD_REDUCED_GRAYSCALE_2,
    cv2.IMREAD_REDUCED_GRAYSCALE_4,
    cv2.IMREAD_REDUCED_GRAYSCALE_8,
]
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError, RuntimeError)
DAMAGES = {  # by what Pillow says of them
    "truncated": "it breaks off",
    "end of file": "it breaks off",
    "unable to seek": "it breaks off",
    "not enough": "it breaks off",
    "invalid literal": "its picture can't be unpacked",
    "token": "its picture can't be unpacked",
    "broken png": "it has a part that no PNG has",
    "decoder object": "its picture can't be unpacked",
    "next frame": "its picture can't be unpacked",
    "max_text": "its notes unpack to too much",
    "when reading image file": "its picture can't be unpacked",
    "cannot load": "its picture can't be unpacked",
    "decode frame": "its picture can't be unpacked",
}
LINE = 90  # characters of a decoder's error
LEAST_CONTRAST = 16  # grey values between ground and ink, under which an image is blank
OPAQUE = 0.95  # of the highest alpha near, or more: less is an edge, perhaps of another colour
EDGE = np.ones((5, 5), np.uint8)  # px around

PIL.Image.MAX_IMAGE_PIXELS = None  # the limits above hold
# Else a colour profile, or an editor's notes, of over 1 MB is taken for damage
PIL.PngImagePlugin.MAX_TEXT_CHUNK = PIL.PngImagePlugin.MAX_TEXT_MEMORY
# Floats as NumPy's own, which Pillow can read, but for this entry
PIL.TiffImagePlugin.OPEN_INFO[(b"II", 1, (3,), 1, (64,), ())] = ("F", "F;64F")
cv2.setNumThreads(1)  # a worker has one core; and its threads would not outlive the fork
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

Grey = NDArray[np.uint8]  # (height, width)
Picture = NDArray[np.uint8]  # grey, or (height, width, 3): red, green and blue
Mask = NDArray[np.uint8]  # (height, width), 0 or 1


class ImageError(Exception):
    """Raised when there is no digit to be had from an image; its text goes into the row."""


class TimeLimitError(ImageError):
    """Raised when an image takes too long."""


def describe(error: Exception) -> str:
    """An error's text, in a short line; its type where it has none."""
    return textwrap.shorten(str(error), LINE, placeholder=" …") or type(error).__name__


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


def decode_plain_png(content: bytes, side: int) -> Picture | None:
    """A small whole PNG of 8-bit grey values or opaque colours; `None` for any other file.

    Most data sets of digits are such files, and OpenCV reads them three times as fast as Pillow.
    """
    if not content.startswith(PNG) or content[24:29] not in PLAIN_PNG:
        return None
    width, height = struct.unpack(">II", content[16:24])
    if width * height > TILE_PIXELS or not has_plain_chunks(content):
        return None
    return decode_plain(content, PLAIN_PNG[content[24:29]], side)


def has_plain_chunks(content: bytes) -> bool:
    """Whether a PNG is whole and has no chunk that changes how it looks."""
    start = 8
    while True:
        size, kind = content[start : start + 4], content[start + 4 : start + 8]
        if kind not in PLAIN_CHUNKS:
            return False
        end = start + 8 + int.from_bytes(size, "big")
        check = zlib.crc32(content[start + 4 : end]).to_bytes(4, "big")
        if content[end : end + 4] != check:
            return False
        if kind == b"IEND":
            return True
        start = end + 4


def decode_plain_jpeg(content: bytes, side: int) -> Picture | None:
    """A whole baseline JPEG which nothing says to turn, shrunk as it is decoded; `None` for any
    other file.

    OpenCV takes two thirds of Pillow's time, which copies the pixels twice.
    """
    if not content.startswith(JPEG) or not content.endswith(b"\xff\xd9"):
        return None
    frame = read_jpeg_frame(content, is_plain=True)
    if frame is None:
        return None
    height, width, components = struct.unpack(">HHB", frame)
    if width * height > MAX_MEGAPIXELS * 1e6 or components not in (1, 3):
        return None
    halvings = min(len(JPEG_FLAGS), (min(width, height) // side or 1).bit_length()) - 1
    return decode_plain(content, JPEG_FLAGS[halvings] | COLOUR * (components == 3), side)


def decode_plain(content: bytes, flags: int, side: int) -> Picture | None:
    """What OpenCV makes of a file; `None` where it makes nothing of it."""
    try:
        image = cv2.imdecode(
            np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        return None
    if image is None:
        return None
    height, width = image.shape[:2]
    factor = count_shrinks(width, height, side)
    if factor > 1:  # but for what is left over below and on the right: whole factors are fast
        height, width = max(1, height // factor), max(1, width // factor)
        whole = image[: height * factor, : width * factor]
        image = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return image


def read_jpeg_frame(content: bytes, is_plain: bool = False) -> bytes | None:
    """Height, width and number of components from the frame header of a baseline JPEG that can be
    decoded row by row; `None` of any other file, or where it breaks off. (Of a progressive one, or
    one component after the other, all is held at once.) With `is_plain`, `None` as well where there
    is more than may be passed over."""
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


def decode_image(content: bytes, side: int) -> PIL.Image.Image:
    """The first frame, upright; a large one is shrunk to a shorter side of at least `side` px.

    Raises `ImageError` in plain words for whatever is wrong with the file.
    """
    if not content:
        raise ImageError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; it does not matter
            formats = load_heif() if content[4:8] == b"ftyp" else FORMATS
            image = PIL.Image.open(io.BytesIO(content), formats=formats)
            check_size(image, content)
            image.draft(None, (side, side))
            image.load()
            if image.mode == "P" and image.palette is None:
                raise ImageError("damaged: no palette")
            return turn_upright(reduce(drop_blank_alpha(image), side))
    except ImageError:
        raise
    except PIL.UnidentifiedImageError:
        raise ImageError(f"not an image that can be read{describe_foreign(content)}") from None
    except DAMAGED as error:
        raise ImageError(f"damaged: {describe_damage(error)}") from None
    except Exception as error:  # a decoder's own: whatever a file does to it is the file's row
        raise ImageError(f"can't be decoded: {describe(error)}") from None


@cache
def load_heif() -> tuple[str, ...]:
    """The formats of files that begin as iPhones' photos do; their decoders are seldom needed."""
    import PIL.AvifImagePlugin

    PIL.AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        pillow_heif.options.DECODE_THREADS = 1
        return "AVIF", "HEIF"
    return ("AVIF",)


def describe_damage(error: Exception) -> str:
    """What is wrong with a file, in plain words where Pillow's are its own."""
    text = describe(error)
    return next((words for part, words in DAMAGES.items() if part in text.lower()), text)


def describe_foreign(content: bytes) -> str:
    """What a file is that is no image; nothing where that isn't known."""
    for start, kind in FOREIGN.items():
        if content.startswith(start):
            return f", but {kind}"
    return ", but text" if TEXT.match(content[:TEXT_BYTES]) else ""


def check_size(image: PIL.Image.Image, content: bytes) -> None:
    """Raises `ImageError` where decoding would take too much memory."""
    size = f"too large: {image.width}×{image.height} pixels, over"
    limit = megapixel_limit(image, content)
    if image.width * image.height > limit * 1e6:
        raise ImageError(f"{size} {limit} megapixels")
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"{size} {MAX_SIDE} on a side")


def megapixel_limit(image: PIL.Image.Image, content: bytes) -> int:
    """The most megapixels that are read of such a file."""
    if image.format == "WEBP":
        return MAX_MEGAPIXELS_DEEP
    depth = image.info.get("bit_depth", 8) if image.format == "HEIF" else 8
    bits, turned = depth * len(image.getbands()), False
    if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
        bits = max(bits, sum(image.tag_v2.get(BITS, ())))
        turned = image.tag_v2.get(ORIENTATION, 1) != 1
    elif content.startswith(JPEG):
        if read_jpeg_frame(content):
            return MAX_MEGAPIXELS
    elif image.format not in ("HEIF", "AVIF"):
        return MAX_MEGAPIXELS
    return MAX_MEGAPIXELS_DEEP if bits > PLAIN_BITS or turned else MAX_MEGAPIXELS_WHOLE


def drop_blank_alpha(image: PIL.Image.Image) -> PIL.Image.Image:
    """A BMP in which all would be transparent without it: its writer left that channel empty."""
    blank = image.format == "BMP" and image.mode == "RGBA" and not image.getchannel(3).getbbox()
    return image.convert("RGB") if blank else image


def turn_upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image itself, turned as its EXIF says; where that can't be read, as it is stored."""
    with suppress(Exception):  # whatever is wrong there, the picture is whole
        PIL.ImageOps.exif_transpose(image, in_place=True)
    return image


def reduce(image: PIL.Image.Image, side: int) -> PIL.Image.Image:
    """A large image by a whole factor, before anything else is done to all of its pixels.

    It is done tile by tile: a copy of all in a mode that can be averaged may take a gigabyte.
    """
    width, height = image.size
    factor = count_shrinks(width, height, side)
    if factor < 2:
        return image
    columns = min(width, factor * max(1, TILE_PIXELS // factor**2))
    rows = factor * max(1, TILE_PIXELS // (factor * columns))
    tiles = {
        (left, top): average(
            image.crop((left, top, min(left + columns, width), min(top + rows, height))), factor
        )
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    }
    reduced = PIL.Image.new(tiles[0, 0].mode, (-(-width // factor), -(-height // factor)))
    for (left, top), tile in tiles.items():
        reduced.paste(tile, (left // factor, top // factor))
    reduced.info = image.info  # says which way up it is
    return reduced


def count_shrinks(width: int, height: int, side: int) -> int:
    """How many pixels of an image, each way, become one."""
    shorter, longer = sorted((width, height))
    return max(shorter // side, longer // (LONGEST * side))


def average(image: PIL.Image.Image, factor: int) -> PIL.Image.Image:
    """The mean of each `factor` × `factor` pixels, in a mode that has one."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode.startswith("I;"):
        image = image.convert("I")
    return image.reduce(factor)


def to_picture(image: PIL.Image.Image) -> Picture:
    """Grey values 0..255, or colours; transparent parts take the colour on which the rest shows."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _from_deep(np.asarray(image))
    if image.has_transparency_data:
        image = flatten_alpha(image.convert("RGBA"))
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGB"))


def _from_deep(values: NDArray[np.generic]) -> Grey:
    """Numbers of more than 8 bits: the full range of their bits, or of floats, becomes 0..255."""
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    numbers -= min(0.0, numbers.min())
    top = float(numbers.max())
    if values.dtype.kind in "iu":
        top = 2.0 ** int(top).bit_length() - 1  # a scanner's 12 bits are whole in a file of 16
    return np.rint(numbers * (255 / (top or 1))).astype(np.uint8)


def flatten_alpha(image: PIL.Image.Image) -> PIL.Image.Image:
    """Onto white, or onto black where nothing shows on that but edges, as of a light digit that was
    shrunk on black."""
    alpha = np.asarray(image.getchannel("A"))
    flat = lay_on("white", image)
    is_edge = alpha < OPAQUE * cv2.dilate(alpha, EDGE)
    seen = np.where(is_edge, 255, np.asarray(flat.convert("L")))
    return flat if np.ptp(seen) >= LEAST_CONTRAST else lay_on("black", image)


def lay_on(ground: str, image: PIL.Image.Image) -> PIL.Image.Image:
    """An RGBA image in front of one colour."""
    flat = PIL.Image.new("RGBA", image.size, ground)
    flat.alpha_composite(image)
    return flat.convert("RGB")
