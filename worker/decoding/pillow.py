"""From an image file to pixels, grey or in colour: whatever the format, the way up, the depth."""

import io
import re
import struct
import warnings
from contextlib import suppress
from functools import cache

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import PIL.TiffImagePlugin
from numpy.typing import NDArray

from worker.decoding.plain import JPEG, MAX_MEGAPIXELS, TILE_PIXELS, count_shrinks, read_jpeg_frame
from worker.pictures import MIN_CONTRAST, Grey, ImageError, Picture, describe

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
TIFF = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"  # begin such files
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
MAX_MEGAPIXELS_WHOLE = 60  # of a format whose decoder holds all of it, and more than once
# Of such a file of more than `PLAIN_BITS` a pixel, and of a TIFF that is turned as it is read; and
# of WebP, whose decoder holds it four times
MAX_MEGAPIXELS_DEEP = 35
PLAIN_BITS, BITS, ORIENTATION = 24, 258, 274  # the latter two are tags of a TIFF
MAX_SIDE = TILE_PIXELS  # what is noted of each row, or of a column, takes more than short ones
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
OPAQUE = 0.95  # of the highest alpha near, or more: less is an edge, perhaps of another colour
EDGE = np.ones((5, 5), np.uint8)  # px around

PIL.Image.MAX_IMAGE_PIXELS = None  # the limits above hold
# Else a colour profile, or an editor's notes, of over 1 MB is taken for damage
PIL.PngImagePlugin.MAX_TEXT_CHUNK = PIL.PngImagePlugin.MAX_TEXT_MEMORY
# Floats as NumPy's own, which Pillow can read, but for this entry
PIL.TiffImagePlugin.OPEN_INFO[(b"II", 1, (3,), 1, (64,), ())] = ("F", "F;64F")
cv2.setNumThreads(1)  # a worker has one core; and its threads would not outlive the fork
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


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
    return flat if np.ptp(seen) >= MIN_CONTRAST else lay_on("black", image)


def lay_on(background: str, image: PIL.Image.Image) -> PIL.Image.Image:
    """An RGBA image in front of one colour."""
    flat = PIL.Image.new("RGBA", image.size, background)
    flat.alpha_composite(image)
    return flat.convert("RGB")
