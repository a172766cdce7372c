"""Images given from Python as a source: an image, an iterable of them, a `Dataset`, a table."""

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import IO, Any, Protocol, TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageOps

from digitq.producer.sources.arrays import PIECE_ROWS, number_ids
from digitq.producer.sources.documents import count_pages, page_entries
from digitq.producer.sources.image_tables import arrow_source
from digitq.producer.sources.objects import find_reader
from digitq.producer.sources.source import (
    IN_MEMORY,
    Naming,
    Source,
    SourceItem,
    refuse_url,
    unreadable,
)
from digitq.protocol.chunk import ARRAY, PIXELS, pixels_batch
from digitq.protocol.errors import UsageError
from digitq.protocol.formats import UnreadableImageError
from digitq.protocol.formats.stores import is_stored

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
# Not every Pillow before 13 can read these modes from a PNG or a TIFF
CONVERTED_MODES = {"La": "LA", "RGBa": "RGBA", "HSV": "RGB", "YCbCr": "RGB"}

CHANNEL_COUNTS = (1, 3, 4)  # values of each pixel of a picture whose channels come first
HALF_STEP = 0.5 / 255  # a float that lies less outside of 0 to 1 is rounded


class Tensor(Protocol):
    """An array of another library, such as torch or JAX."""

    def __array__(self, dtype: Any = None, /) -> np.ndarray: ...


class Dataset(Protocol):
    """Pairs `(image, label)` by their number, as torch's datasets give them."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


class ArrowTable(Protocol):
    """A table of any library that Arrow can read, such as pyarrow, pandas and Polars."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> object: ...


Bytes = bytes | bytearray | memoryview
Image: TypeAlias = (
    str | os.PathLike[str] | Bytes | IO[bytes] | PIL.Image.Image | np.ndarray | Tensor
)
Images: TypeAlias = Image | Iterable[Image | tuple[str | int, Image]] | Dataset | ArrowTable
Item: TypeAlias = tuple[str, Any, str | None]  # the id or "", the image, and the right answer


def image_source(images: Images) -> Source:
    """The images of one of three shapes, in their order:

    - one image, or an iterable of images or of pairs `(id, image)`; an array may hold several;
    - a `Dataset` of torch that gives pairs `(image, label)`;
    - a table that has `__arrow_c_stream__`, see `arrow_source`.

    The id of a path is the path; the id of any other image is its number. Raises `UsageError` for
    anything else; what is wrong with an item is raised where the item is read.
    """
    if hasattr(images, "__arrow_c_stream__"):
        return arrow_source(images)
    if isinstance(images, str):
        refuse_url(images)
    kind = type(images).__name__
    if isinstance(images, Mapping):
        raise UsageError(
            f"a {kind} is not a list of images: its .items() are, if they are ids and images"
        )
    is_file = isinstance(images, str | os.PathLike | Bytes | PIL.Image.Image) or _is_file(images)
    items: Any = [images] if is_file or _is_array(images) else images
    if isinstance(items, Iterable):
        return Source(IN_MEMORY, _read_items(_split_pairs(items)), count=partial(_count, items))
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        raise UsageError(f"{kind} is neither an image nor a list of images: give a list")
    pairs = _split_labels(items)
    return Source(IN_MEMORY, _read_items(pairs), has_truth=None, count=partial(len, items))


def _is_single(array: np.ndarray, pixels: np.ndarray | None) -> bool:
    """Whether an array, in which `_find_pixels` found these, has one image."""
    return array.ndim < 4 if pixels is None else len(pixels) == 1


def _count(items: Iterable[Any]) -> int | None:
    """How many images a list has: a path may be of a document. None if they are not known yet: an
    array of three dimensions may hold several."""
    if not isinstance(items, list | tuple):
        return None
    if any(len(getattr(one, "shape", ())) > 2 for one in items):
        return None
    images = (image for _, image, _ in _split_pairs(items))
    return sum(count_pages(os.fspath(one)) if _is_path(one) else 1 for one in images)


def _split_pairs(items: Iterable[Any]) -> Iterator[Item]:
    """Images, and images with an id. An id is text or a whole number."""
    for item in items:
        is_pair = isinstance(item, tuple | list) and len(item) == 2
        if is_pair and isinstance(item[0], str | int | np.integer):
            yield str(item[0]), item[1], None
        else:
            yield "", item, None


def _split_labels(dataset: Dataset) -> Iterator[Item]:
    """The images of a dataset with their labels. Raises `UsageError` for an item that is no
    pair."""
    for number in range(len(dataset)):
        pair = dataset[number]
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise UsageError(
                f"item {number} of the {type(dataset).__name__} is no pair (image, label): give "
                "the images alone, as in (data[n] for n in range(len(data)))"
            )
        yield "", pair[0], _to_text(pair[1]) or None


def _read_items(items: Iterable[Item]) -> Iterator[SourceItem]:
    """The images of all items; an array may hold several. The caller may change an array once the
    next item is asked for."""
    naming = Naming()
    number, has_ids, has_several = 0, False, False
    for id, image, truth in items:
        array = _to_array(image) if _is_array(image) else None
        pixels = None if array is None else _find_pixels(array)
        is_one = array is None or _is_single(array, pixels)
        if not is_one and truth:
            raise UsageError(
                f"image {number}: an array of several images has one label: give a pair for each"
            )
        has_ids, has_several = has_ids or id != "", has_several or not is_one
        if has_ids and has_several:  # the numbers of several might be ids of others
            raise UsageError(
                f"image {number}: arrays of several images, and images with ids of their own, are "
                "in one list: give a pair (id, image) for each image"
            )
        if array is not None and not is_one:
            yield from _read_several(naming, number, array, pixels)
            number += len(array)
            continue
        if pixels is None:
            name, read = _find_reader(number, image if array is None else array)
            file = os.fspath(image) if _is_path(image) and not is_stored(name) else ""
            yield from page_entries(naming, id or name, read, truth=truth, file=file)
        else:
            content = ARRAY + _to_bytes(pixels).tobytes()
            yield naming.entry(id or str(number), partial(bytes, content), truth=truth)
        number += 1


def _read_several(
    naming: Naming, number: int, array: np.ndarray, pixels: np.ndarray | None
) -> Iterator[SourceItem]:
    """The images of an array: 28×28 pixels in large pieces, or pictures one by one."""
    if pixels is None:
        for place, picture in enumerate(array, number):
            yield naming.entry(*_find_reader(place, picture))
        return
    for start in range(0, len(pixels), PIECE_ROWS):
        piece = _to_bytes(pixels[start : start + PIECE_ROWS])
        yield pixels_batch(number_ids("", number + start, len(piece)), np.array(piece))


def _is_missing(cell: Any) -> bool:
    """Whether it is None, or NaN, which pandas writes in its place."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _is_path(image: Any) -> bool:
    return isinstance(image, str | os.PathLike)


def _is_file(image: Any) -> bool:
    return not isinstance(image, PIL.Image.Image) and callable(getattr(image, "read", None))


def _is_array(image: Any) -> bool:
    """Whether it is an array of NumPy or any other library, and no table or column of one."""
    has_rows = hasattr(image, "__array__") and len(getattr(image, "shape", ())) > 1
    is_table = hasattr(image, "__arrow_c_stream__")
    return isinstance(image, np.ndarray) or (has_rows and not is_table)


def _to_text(label: Any) -> str:
    """A label as text, `3` for the number 3.0; "" if it is missing."""
    with suppress(AttributeError, ValueError, RuntimeError):
        label = label.item()  # it is an array of one number
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return "" if _is_missing(label) else str(label)


def _to_array(tensor: Any) -> np.ndarray:
    """The array of any library as NumPy's. Raises `UsageError`."""
    if isinstance(tensor, np.ndarray):
        return tensor
    try:
        if hasattr(tensor, "detach"):  # torch's may need a gradient, or be on a GPU
            tensor = tensor.detach().cpu()
            tensor = tensor.float() if tensor.is_floating_point() else tensor
        return np.asarray(tensor)
    except Exception as error:  # each library has errors of its own
        reason = str(error).partition("\n")[0]
        kind = type(tensor).__name__
        raise UsageError(f"a {kind} can't be read as an array of NumPy: {reason}") from None


def _find_pixels(array: np.ndarray) -> np.ndarray | None:
    """The images (N, 784) in an array, uint8 or floats from 0 to 1; None if it is one picture of
    another size. Raises `UsageError` for other numbers."""
    if array.ndim < 2 or array.shape[1:] == (PIXELS,):
        raise UsageError(
            f"an array {array.shape} may hold flat MNIST images: reshape it to "
            f"(-1, 28, 28), or, if it is one picture of that size, to (height, {PIXELS}, 1)"
        )
    shape = array.shape[:-1] if _has_one_channel(array) else array.shape
    if len(shape) == 4 and shape[1] == 1:  # a batch of torch: its channel comes before the rows
        shape = (shape[0], *shape[2:])
    if shape[-2:] != (28, 28) or len(shape) > 3:
        return None
    _check_values(array)
    return array.reshape(-1, PIXELS)


def _check_values(array: np.ndarray) -> None:
    """Raises `UsageError` for anything but uint8 and floats from 0 to 1."""
    if array.dtype.kind == "f" and array.size:
        low, high = float(array.min()), float(array.max())
        if not (low > -HALF_STEP and high < 1 + HALF_STEP):  # written so that it refuses NaN
            raise UsageError(
                f"an array of images must be uint8, or floats from 0 to 1, but its floats are from "
                f"{low:.4g} to {high:.4g}: undo a normalisation (x * std + mean), or divide by 255"
            )
    elif array.dtype != np.uint8 and array.dtype.kind != "f":
        raise UsageError(
            f"an array of images must be uint8, or floats from 0 to 1, not {array.dtype}"
        )


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Pixels as uint8, from uint8 or floats from 0 to 1."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels * 255.0).astype(np.uint8)


def _has_one_channel(array: np.ndarray) -> bool:
    return array.ndim > 2 and array.shape[-1] == 1


def _find_reader(number: int, image: Any) -> tuple[str, Callable[[], bytes]]:
    """The id of an image without one of its own, and a function that reads the image."""
    if _is_missing(image):
        return str(number), unreadable("the row has no image")
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        id = f"./{path}" if path.isdecimal() else path  # numbers are the ids of other images
        return id, find_reader(path)
    if isinstance(image, Bytes):
        return str(number), lambda: bytes(image)
    if _is_file(image):
        return str(number), partial(_read_open, image)
    if isinstance(image, np.ndarray):
        return str(number), lambda: _encode(_from_array(image))
    if isinstance(image, PIL.Image.Image):
        return str(number), lambda: _encode(image)
    kind = type(image).__name__
    raise UsageError(
        f"image {number} has the type {kind}: give a path, bytes, a file opened in "
        f"binary mode, a PIL image or an array{_advise(image)}"
    )


def _advise(item: Any) -> str:
    """What to give in place of an item that is no image."""
    if isinstance(item, tuple | list | int | np.integer):
        return (
            "; a pair is (id, image), and the id is text or a whole number; images with labels are "
            "a Dataset of torch, such as the `dataset` of a DataLoader, or a table"
        )
    if isinstance(item, Mapping):
        return (
            "; of rows give pairs, as in ((row['id'], row['image']) for row in rows); a Hugging "
            "Face dataset is a table with `.with_format('arrow')[:]`"
        )
    return ""


def _read_open(file: IO[bytes]) -> bytes:
    content = file.read()
    if not isinstance(content, Bytes):
        raise UnreadableImageError('the file is opened for text: open it with mode "rb"')
    return bytes(content)


def _from_array(array: np.ndarray) -> PIL.Image.Image:
    first, last = array.shape[0], array.shape[-1]
    if array.ndim == 3 and first in CHANNEL_COUNTS and last not in CHANNEL_COUNTS:
        array = np.moveaxis(array, 0, 2)  # torch's channels come first
    if array.dtype.kind == "f":
        _check_values(array)
        array = _to_bytes(array)
    try:
        return PIL.Image.fromarray(array[..., 0] if _has_one_channel(array) else array)
    except (TypeError, ValueError):
        raise UsageError(
            f"an array {array.dtype}{array.shape} is not an image: it must be uint8, (28, 28), "
            "(N, 28, 28), (N, 1, 28, 28), (height, width), (height, width, channels) with one "
            "to four channels, or (channels, height, width)"
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
