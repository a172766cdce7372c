"""From an image file to the 28×28 grey values that the network was trained on.

The steps are those of the MNIST authors: the digit, light on dark, is scaled into a 20×20 box
and placed so that its centre of mass is the centre of the 28×28 image
(yann.lecun.com/exdb/mnist).
"""

import io
import struct
import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

SIDE = 28
BOX = 20  # the longer side of the digit
STROKE = 2.2  # px of the box: a thinner stroke is grown to this, the lower quartile of MNIST's own
STROKE_SIDE = 160  # the longer side, in px, of the ink whose strokes are measured and grown
WORKING_SIDE = 256  # larger images are shrunk to this before the digit is looked for
MAX_MEGAPIXELS = 100  # of a file; with them a worker stays under 1 GB
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF")
LEAST_CONTRAST = 16  # grey values between ground and ink, under which an image is blank

Grey = NDArray[np.uint8]  # (height, width)


class ImageError(Exception):
    """Raised when there is no digit to be had from an image; its text goes into the row."""


def read_digit(content: bytes) -> Grey:
    """The 28×28 image that the network sees. Raises `ImageError`.

    What already is 28×28, grey, and dark at the border passes through unchanged.
    """
    grey = to_grey(decode_image(content))
    if grey.shape == (SIDE, SIDE) and is_dark(border(grey)):
        return grey
    return place(stretch(scale(thicken(separate_ink(grey)))))


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
    """A large image by a whole factor, before anything is done to all of its pixels."""
    factor = min(image.size) // (2 * WORKING_SIDE)
    if factor < 2 or image.mode in ("P", "PA", "1"):
        return image
    return (image.convert("I") if image.mode.startswith("I;") else image).reduce(factor)


def to_grey(image: PIL.Image.Image) -> Grey:
    """Grey values 0..255; transparent parts take the colour on which the rest shows."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _from_deep(np.asarray(image))
    if image.has_transparency_data:
        return _flatten(image.convert("RGBA"))
    return np.asarray(image.convert("L"))


def _from_deep(values: NDArray[np.generic]) -> Grey:
    """16-bit and float values, scaled so that the brightest is 255."""
    numbers = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    numbers -= min(0.0, float(numbers.min()))
    top = float(numbers.max())
    numbers *= 255 / (65535 if 255 < top <= 65535 else top or 1)
    return numbers.astype(np.uint8)


def _flatten(image: PIL.Image.Image) -> Grey:
    """Onto white, or onto black where that leaves nothing to see."""
    for ground in ("white", "black"):
        flat = PIL.Image.new("RGBA", image.size, ground)
        flat.alpha_composite(image)
        grey = np.asarray(flat.convert("L"))
        if int(grey.max()) - int(grey.min()) >= LEAST_CONTRAST:
            break
    return grey


def border(grey: Grey) -> Grey:
    """The outermost pixels, in a row."""
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def is_dark(values: Grey) -> bool:
    """Whether most of the values are those of a dark ground."""
    return bool(np.median(values) < 128)


def separate_ink(grey: Grey) -> Grey:
    """Ink light on a ground of 0, cropped to it. Raises `ImageError` for a blank image.

    What the border mostly shows is the ground. Otsu's threshold parts the ink from it; within the
    box of that, fainter ink down to half the threshold stays, as the soft edge of a stroke.
    """
    image = PIL.Image.fromarray(grey)
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), PIL.Image.Resampling.BOX)
    grey = np.asarray(image)
    ground = float(np.median(border(grey)))
    distance = grey - ground if is_dark(border(grey)) else ground - grey
    ink = np.clip(distance, 0, 255)
    if ink.max() < LEAST_CONTRAST:
        raise ImageError("blank: no ink to be seen")
    threshold = otsu_threshold(ink)
    ink = ink[find_box(ink > threshold)]
    full = np.percentile(ink[ink > threshold], 90)
    return np.asarray(np.where(ink > threshold / 2, np.clip(ink / full * 255, 0, 255), 0), np.uint8)


def otsu_threshold(values: NDArray[np.floating]) -> float:
    """The threshold that parts values 0..255 into two classes farthest apart.

    N. Otsu, "A threshold selection method from gray-level histograms", 1979, equation 18.
    """
    counts, edges = np.histogram(values, bins=256, range=(0, 256))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(middles[np.nanargmax(between)])


def find_box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest box, as rows and columns, that holds all of a mask that holds something."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def thicken(ink: Grey) -> Grey:
    """The ink with strokes of about `STROKE` px in the box, where they would be thinner.

    A pen is thin beside MNIST's, all the more on a digit written large.
    """
    enlarged = stretch(scale(ink, STROKE_SIDE))
    missing = STROKE * STROKE_SIDE / BOX - measure_stroke(enlarged)
    radius = round(missing / 2)
    return grow(enlarged, radius) if radius >= 1 else ink


def measure_stroke(ink: Grey) -> float:
    """The mean width of the strokes in px: twice their area for the length of their edge."""
    mask = np.pad(ink > 127, 1)
    inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    area = int(np.count_nonzero(mask))
    edge = area - int(np.count_nonzero(mask[1:-1, 1:-1] & inner))
    return 2 * area / max(edge, 1)


def grow(ink: Grey, radius: int) -> Grey:
    """Grey dilation by about a disc: cross and square in turn. The sides grow by 2·`radius`."""
    grown = np.pad(ink, radius)
    for step in range(radius):
        around = np.pad(grown, 1)
        height, width = grown.shape
        grown = np.maximum.reduce(
            [
                around[row : row + height, column : column + width]
                for row in range(3)
                for column in range(3)
                if step % 2 or 1 in (row, column)
            ]
        )
    return grown


def scale(ink: Grey, side: int = BOX) -> Grey:
    """The longer side `side` px, the other in proportion."""
    height, width = ink.shape
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resampling = PIL.Image.Resampling.BOX if factor < 1 else PIL.Image.Resampling.BICUBIC
    return np.asarray(PIL.Image.fromarray(ink).resize(size, resampling))


def stretch(ink: Grey) -> Grey:
    """Its strongest twentieth at 255: a thin stroke pales as it is scaled down."""
    return np.asarray(np.clip(ink / np.percentile(ink[ink > 0], 95) * 255, 0, 255), np.uint8)


def place(ink: Grey) -> Grey:
    """A 28×28 image with the ink's centre of mass at its centre, as far as it has room."""
    height, width = ink.shape
    mass = ink.sum(dtype=np.float64) or 1.0
    row = ink.sum(axis=1, dtype=np.float64) @ np.arange(height) / mass
    column = ink.sum(axis=0, dtype=np.float64) @ np.arange(width) / mass
    top = int(np.clip(round(SIDE / 2 - 0.5 - row), 0, SIDE - height))
    left = int(np.clip(round(SIDE / 2 - 0.5 - column), 0, SIDE - width))
    placed = np.zeros((SIDE, SIDE), np.uint8)
    placed[top : top + height, left : left + width] = ink
    return placed
