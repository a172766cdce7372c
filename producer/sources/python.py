"""Images given from Python as a source: paths, bytes, open files, PIL images and arrays."""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import IO, Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from producer.sources.arrays import number_ids, pixels_batch
from producer.sources.source import (
    URL,
    Naming,
    Source,
    SourceItem,
    UnreadableImageError,
    read_file,
    refuse_url,
    unreadable,
)
from protocol.chunk import ARRAY, PIXELS
from protocol.errors import UsageError

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
# Not every Pillow before 13 can read these modes from a PNG or a TIFF
CONVERTED_MODES = {"La": "LA", "RGBa": "RGBA", "HSV": "RGB", "YCbCr": "RGB"}
Bytes = bytes | bytearray | memoryview
Image = str | os.PathLike[str] | Bytes | IO[bytes] | PIL.Image.Image | np.ndarray


def image_source(images: Image | Iterable[Image]) -> Source:
    """A source over one image, an array of many, or an iterable of images. The id of a path is the
    path; the id of any other image is its number. The caller may change an array once the next one
    is asked for. Raises `UsageError` for anything that is not an image."""
    if isinstance(images, str):
        refuse_url(images)
    one = isinstance(images, str | os.PathLike | Bytes | PIL.Image.Image | np.ndarray)
    items = [images] if one or _is_file(images) else images
    is_table = isinstance(items, Mapping) or hasattr(items, "columns")  # iterating gives its keys
    if is_table or not isinstance(items, Iterable):
        kind = type(images).__name__
        raise UsageError(f"{kind} is neither an image nor a list of images: give a list")
    count = len(items) if isinstance(items, list) else None
    return Source("images from Python", _read_items(items, copies=not one), count=lambda: count)


def _is_file(image: Any) -> bool:
    return not isinstance(image, PIL.Image.Image) and callable(getattr(image, "read", None))


def _read_items(images: Iterable[Any], copies: bool) -> Iterator[SourceItem]:
    naming = Naming()
    number = 0
    for image in images:
        pixels = _find_pixels(image) if isinstance(image, np.ndarray) else None
        if pixels is None:
            yield naming.entry(*_find_reader(str(number), image))
        elif copies and len(pixels) == 1:  # a batch for each takes ten times as long
            yield naming.entry(str(number), partial(bytes, ARRAY + pixels.tobytes()))
        else:
            pixels = np.array(pixels, copy=copies or None)
            yield pixels_batch(number_ids("", number, len(pixels)), pixels)
        number += 1 if pixels is None else len(pixels)


def _find_pixels(array: np.ndarray) -> np.ndarray | None:
    """The images (N, 784) in an array; None if it is one picture of another size."""
    if array.ndim < 2 or array.shape[1:] == (PIXELS,):
        raise UsageError(
            f"an array {array.shape} may hold flat MNIST images: reshape it to "
            f"(-1, 28, 28), or, if it is one picture of that size, to (height, {PIXELS}, 1)"
        )
    shape = array.shape[:-1] if _has_one_channel(array) else array.shape
    if shape[-2:] != (28, 28) or len(shape) > 3:
        return None
    if array.dtype != np.uint8:
        raise UsageError(f"an array of images must be uint8, not {array.dtype}")
    return array.reshape(-1, PIXELS)


def _has_one_channel(array: np.ndarray) -> bool:
    return array.ndim > 2 and array.shape[-1] == 1


def _find_reader(number: str, image: Any) -> tuple[str, Callable[[], bytes]]:
    """The id of an image, and a function that reads it."""
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        if URL.match(path):
            return path, unreadable("a URL: download it and give the path of the file")
        id = f"./{path}" if path.isdecimal() else path  # numbers are the ids of other images
        return id, partial(read_file, path)
    if isinstance(image, Bytes):
        return number, lambda: bytes(image)
    if _is_file(image):
        return number, partial(_read_open, image)
    if isinstance(image, np.ndarray):
        return number, lambda: _encode(_from_array(image))
    if isinstance(image, PIL.Image.Image):
        return number, lambda: _encode(image)
    raise UsageError(
        f"image {number} has the type {type(image).__name__}: give a path, bytes, a file opened in "
        "binary mode, a PIL image or an array"
    )


def _read_open(file: IO[bytes]) -> bytes:
    content = file.read()
    if not isinstance(content, Bytes):
        raise UnreadableImageError('the file is opened for text: open it with mode "rb"')
    return bytes(content)


def _from_array(array: np.ndarray) -> PIL.Image.Image:
    try:
        return PIL.Image.fromarray(array[..., 0] if _has_one_channel(array) else array)
    except (TypeError, ValueError):
        raise UsageError(
            f"an array {array.dtype}{array.shape} is not an image: it must be uint8, (28, 28), "
            "(N, 28, 28), (height, width), or (height, width, channels) with one to four channels"
        ) from None


def _encode(image: PIL.Image.Image) -> bytes:
    """The image as a lossless file. Raises `UnreadableImageError`."""
    file = io.BytesIO()
    try:
        image.load()
        with suppress(Exception):  # if its EXIF data is damaged, the image is not rotated
            image = PIL.ImageOps.exif_transpose(image)
        if image.mode in CONVERTED_MODES:
            image = image.convert(CONVERTED_MODES[image.mode])
        image.save(file, "PNG" if image.mode in PNG_MODES else "TIFF")
    except Exception as error:  # it is closed, or Pillow reads its file only now
        raise UnreadableImageError(f"can't be read: {str(error) or type(error).__name__}") from None
    return file.getvalue()
