"""Decodes image files of many formats, depths and modes with Pillow, and PDFs with pdfium."""

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

from digitq.protocol.formats.drawer import render_page
from digitq.protocol.formats.pdf import PDF, PageError, measure_page
from digitq.worker.picture import MIN_CONTRAST, Grey, ImageError, Picture, describe
from digitq.worker.sight.decoding.plain import (
    JPEG,
    MAX_MEGAPIXELS,
    TILE_PIXELS,
    read_jpeg_frame,
    reduction_factor,
)

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
TIFF = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"  # the signatures of TIFF and BigTIFF
TEXT, TEXT_BYTES = re.compile(rb"[\t\r\n -~]{16,}\Z"), 80
FOREIGN = {  # other kinds of files, by their first bytes
    JPEG: "a JPEG that is damaged, or of a rare kind",
    **dict.fromkeys(TIFF, "a TIFF that is damaged, or of a rare kind"),
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b": "compressed by gzip",
    b"PAR1": "a Parquet file",
    b"\x93NUMPY": "a NumPy array",
    b"\0\0\x08\3": "a set of images in MNIST's format",
}
MAX_MEGAPIXELS_WHOLE = 60  # the limit if a decoder holds more than one copy of the image
# The limit of such a file with more than `PLAIN_BITS`, of a rotated TIFF, and of any WebP
MAX_MEGAPIXELS_DEEP = 35
PLAIN_BITS = 24  # bits per pixel of an ordinary colour image
BITS, ORIENTATION = 258, 274  # the numbers of two tags of a TIFF
MAX_SIDE = TILE_PIXELS  # px; a decoder's memory also grows with the number of rows or columns
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError, RuntimeError)
OPAQUE = 0.95  # a pixel with less than this share of the highest alpha near it is on an edge
EDGE_KERNEL = np.ones((5, 5), np.uint8)  # pixels up to 2 px away are near


@cache
def prepare_libraries() -> None:
    """Set Pillow and OpenCV up for this process, once; whoever owns the process calls this."""
    PIL.Image.MAX_IMAGE_PIXELS = None  # `check_size` has limits by format
    # with the default limit, a colour profile or an editor's notes of over 1 MB count as damage
    PIL.PngImagePlugin.MAX_TEXT_CHUNK = PIL.PngImagePlugin.MAX_TEXT_MEMORY
    # Pillow can decode 64-bit floats, as NumPy has them, but its table of TIFF modes lacks them
    PIL.TiffImagePlugin.OPEN_INFO[(b"II", 1, (3,), 1, (64,), ())] = ("F", "F;64F")
    cv2.setNumThreads(1)  # each worker process has one core
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode_image(content: bytes, side: int) -> PIL.Image.Image:
    """Decode the first frame, upright; a large one is reduced as `read_picture` describes.

    Raises `ImageError` for whatever is wrong with the file.
    """
    if not content:
        raise ImageError("the file is empty")
    try:
        if content.startswith(PDF):
            return reduce(render_page(content), side)
        with warnings.catch_warnings(action="ignore"):  # damaged metadata is not used
            formats = load_heif() if content[4:8] == b"ftyp" else FORMATS
            image: PIL.Image.Image = PIL.Image.open(io.BytesIO(content), formats=formats)
            check_size(image, content)
            image.draft(None, (side, side))
            image.load()
            if image.mode == "P" and image.palette is None:
                raise ImageError("damaged: no palette")
            if image.format == "BMP" and image.mode == "RGBA" and not image.getchannel(3).getbbox():
                image = image.convert("RGB")  # its writer did not fill the alpha channel
            image = reduce(image, side)
            with suppress(Exception):  # damaged EXIF does not affect the pixels
                PIL.ImageOps.exif_transpose(image, in_place=True)
            return image
    except ImageError:
        raise
    except PageError as error:
        raise ImageError(str(error)) from None
    except PIL.UnidentifiedImageError:
        raise ImageError(f"not an image that can be read{describe_foreign(content)}") from None
    except DAMAGED as error:
        raise ImageError(f"damaged: {describe(error)}") from None
    except Exception as error:  # whatever a decoder raises is the image's error
        raise ImageError(f"can't be decoded: {describe(error)}") from None


def measure_image(content: bytes) -> tuple[int, int]:
    """Width and height in a file's header, in px; of a PDF's page, those at `PAGE_DPI`. The file
    could be decoded before."""
    if content.startswith(PDF):
        return measure_page(content)
    with warnings.catch_warnings(action="ignore"), PIL.Image.open(io.BytesIO(content)) as image:
        return image.size


@cache
def load_heif() -> tuple[str, ...]:
    """Load the decoders of AVIF and HEIC, which few jobs need; gives the formats' names."""
    import PIL.AvifImagePlugin
    import pillow_heif

    PIL.AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    pillow_heif.register_heif_opener()
    pillow_heif.options.DECODE_THREADS = 1
    return "AVIF", "HEIF"


def describe_foreign(content: bytes) -> str:
    """What the file is instead of an image, such as ", but a PDF"; "" if that is not known."""
    for start, kind in FOREIGN.items():
        if content.startswith(start):
            return f", but {kind}"
    return ", but text" if TEXT.match(content[:TEXT_BYTES]) else ""


def check_size(image: PIL.Image.Image, content: bytes) -> None:
    """Raises `ImageError` if decoding would take too much memory."""
    size = f"too large: {image.width}×{image.height} pixels, over"
    limit = megapixel_limit(image, content)
    if image.width * image.height > limit * 1e6:
        raise ImageError(f"{size} {limit} megapixels")
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"{size} {MAX_SIDE} on a side")


def megapixel_limit(image: PIL.Image.Image, content: bytes) -> int:
    """How many megapixels a file of this format and depth may have."""
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


def reduce(image: PIL.Image.Image, side: int) -> PIL.Image.Image:
    """Reduce a large image by a whole factor, before any other step touches all of its pixels.

    This is done tile by tile: the whole image in a mode that can be averaged may take a gigabyte.
    """
    width, height = image.size
    factor = reduction_factor(width, height, side)
    if factor < 2:
        return image
    columns = min(width, factor * max(1, TILE_PIXELS // factor**2))
    rows = factor * max(1, TILE_PIXELS // (factor * columns))
    mode = to_averaged_mode(image.crop((0, 0, 1, 1))).mode
    reduced = PIL.Image.new(mode, (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            box = (left, top, min(left + columns, width), min(top + rows, height))
            tile = to_averaged_mode(image.crop(box)).reduce(factor)
            reduced.paste(tile, (left // factor, top // factor))
    reduced.info = image.info  # it holds the EXIF orientation
    return reduced


def to_averaged_mode(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image in a mode whose pixels Pillow can average."""
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "1":
        return image.convert("L")
    return image.convert("I") if image.mode.startswith("I;") else image


def to_picture(image: PIL.Image.Image) -> Picture:
    """Grey values or colours, 0..255, with transparent parts filled by `flatten_alpha`."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _from_deep(np.asarray(image))
    if image.has_transparency_data:
        image = flatten_alpha(image.convert("RGBA"))
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def _from_deep(values: NDArray[np.generic]) -> Grey:
    """Scale values of more than 8 bits to 0..255: integers by bit depth, floats by maximum."""
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    numbers -= min(0.0, numbers.min())
    top = float(numbers.max())
    if values.dtype.kind in "iu":
        top = 2.0 ** int(top).bit_length() - 1  # a scanner may store 12 bits in a 16-bit file
    return np.rint(numbers * (255 / (top or 1))).astype(np.uint8)


def flatten_alpha(image: PIL.Image.Image) -> PIL.Image.Image:
    """Lay an RGBA image on white, or on black if white would hide everything but edges.

    Edges do not count, since a light digit that was shrunk on black has dark ones.
    """
    alpha = np.asarray(image.getchannel("A"))
    on_white = lay_on("white", image)
    is_edge = alpha < OPAQUE * cv2.dilate(alpha, EDGE_KERNEL)
    seen = np.where(is_edge, 255, np.asarray(on_white.convert("L")))
    return on_white if np.ptp(seen) >= MIN_CONTRAST else lay_on("black", image)


def lay_on(background: str, image: PIL.Image.Image) -> PIL.Image.Image:
    """An RGBA image on a background of one colour."""
    ground = PIL.Image.new("RGBA", image.size, background)
    return PIL.Image.alpha_composite(ground, image).convert("RGB")
