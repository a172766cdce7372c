"""From an image file to grey values: whatever the format, the way up, the colours."""

import io
import re
import struct
import warnings

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

WORKING_SIDE = 128  # px: larger images are shrunk to this before the digit is looked for
LONGEST = 16  # times as long as wide: longer images are shrunk all the more
STRIP_PIXELS = 1 << 20
MAX_MEGAPIXELS = 100  # of a file; with them a worker stays under 1 GB
PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PLAIN = b"\x08\0\0\0\0"  # 8 bit, grey; not interlaced
SPECIAL = re.compile(b"tRNS|eXIf")  # what changes the look of plain grey values
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF")
LEAST_CONTRAST = 16  # grey values between ground and ink, under which an image is blank
SAMPLED_SIDE = 48  # px: as many pixels say what the colours of an image are
LEAST_CHROMA = 24  # between a pixel's channels, under which it counts as grey

cv2.setNumThreads(1)  # a worker has one core; and its threads would not outlive the fork
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # of files that are damaged

Grey = NDArray[np.uint8]  # (height, width)
Mask = NDArray[np.uint8]  # (height, width), 0 or 1


class ImageError(Exception):
    """Raised when there is no digit to be had from an image; its text goes into the row."""


def decode_plain_png(content: bytes) -> Grey | None:
    """A small whole PNG of nothing but 8-bit grey values; `None` for any other file.

    Most data sets of digits are such files, and OpenCV reads them three times as fast as Pillow.
    """
    if not content.startswith(PNG_HEAD) or content[24:29] != PLAIN or SPECIAL.search(content):
        return None
    width, height = struct.unpack(">II", content[16:24])
    if width * height > STRIP_PIXELS:
        return None
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def decode_image(content: bytes) -> PIL.Image.Image:
    """The first frame, upright, at least `WORKING_SIDE` px where the file has that. Raises
    `ImageError` in plain words for whatever is wrong with the file."""
    if not content:
        raise ImageError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; it does not matter
            image = PIL.Image.open(io.BytesIO(content), formats=FORMATS)
            megapixels = image.width * image.height / 1e6
            if megapixels > MAX_MEGAPIXELS:
                raise ImageError(f"too large: {image.width}×{image.height} pixels")
            image.draft("L" if image.mode == "L" else "RGB", (WORKING_SIDE, WORKING_SIDE))
            image.load()
            return PIL.ImageOps.exif_transpose(reduce(image))
    except ImageError:
        raise
    except PIL.UnidentifiedImageError:
        raise ImageError("not an image that can be read") from None
    except PIL.Image.DecompressionBombError:
        raise ImageError("too large") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError) as error:
        raise ImageError(f"damaged: {error}") from None
    except Exception as error:  # a decoder's own: whatever a file does to it is the file's row
        raise ImageError(f"can't be decoded: {error}") from None


def reduce(image: PIL.Image.Image) -> PIL.Image.Image:
    """A large image by a whole factor, before anything else is done to all of its pixels.

    It is done strip by strip: a copy of all in a mode that can be averaged may take a gigabyte.
    """
    width, height = image.size
    factor = max(min(image.size) // WORKING_SIDE, max(image.size) // (LONGEST * WORKING_SIDE))
    if factor < 2:
        return image
    rows = factor * max(1, STRIP_PIXELS // (factor * width))
    strips = [
        average(image.crop((0, top, width, min(top + rows, height))), factor)
        for top in range(0, height, rows)
    ]
    reduced = PIL.Image.new(strips[0].mode, (-(-width // factor), -(-height // factor)))
    for number, strip in enumerate(strips):
        reduced.paste(strip, (0, number * rows // factor))
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


def to_grey(image: PIL.Image.Image) -> Grey:
    """Grey values 0..255 in which the ink stands out, whatever its colour.

    Transparent parts take the colour on which the rest shows.
    """
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _from_deep(np.asarray(image))
    if image.has_transparency_data:
        image = flatten_alpha(image.convert("RGBA"))
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    return project_colours(np.asarray(image.convert("RGB")))


def _from_deep(values: NDArray[np.generic]) -> Grey:
    """16-bit and float values, scaled so that the brightest is 255."""
    numbers = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    numbers -= min(0.0, float(numbers.min()))
    top = float(numbers.max())
    numbers *= 255 / (65535 if 255 < top <= 65535 else top or 1)
    return numbers.astype(np.uint8)


def flatten_alpha(image: PIL.Image.Image) -> PIL.Image.Image:
    """Onto white, or onto black where that leaves nothing to see."""
    for ground in ("white", "black"):
        flat = PIL.Image.new("RGBA", image.size, ground)
        flat.alpha_composite(image)
        grey = np.asarray(flat.convert("L"))
        if int(grey.max()) - int(grey.min()) >= LEAST_CONTRAST:
            break
    return flat.convert("RGB")


def project_colours(image: NDArray[np.uint8]) -> Grey:
    """Grey values along the line through the colours of ground and ink.

    (height, width, 3) → (height, width). The line is the principal component of the colours about
    that of the ground: ink as light as its paper still stands out by its colour.
    """
    few = cv2.resize(image, (SAMPLED_SIDE, SAMPLED_SIDE), interpolation=cv2.INTER_NEAREST)
    red, green, blue = cv2.split(few)
    chroma = max(cv2.norm(red, green, cv2.NORM_INF), cv2.norm(green, blue, cv2.NORM_INF))
    if chroma < LEAST_CHROMA:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    edge = np.concatenate([few[0], few[-1], few[:, 0], few[:, -1]])
    ground = np.median(edge, axis=0)
    away = few.reshape(-1, 3).astype(np.float32) - ground.astype(np.float32)
    axis = np.linalg.eigh(away.T @ away)[1][:, -1]
    axis /= np.abs(axis).sum() * (1 if axis.sum() >= 0 else -1)
    offset = ground @ (0.299, 0.587, 0.114) - ground @ axis
    return cv2.transform(image, np.array([[*axis, offset]]))
