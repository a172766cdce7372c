"""Images given from Python as a source: files, pictures, arrays, pairs, rows and tables."""

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import IO, Any, Protocol, TypeAlias, TypeGuard, cast

import numpy as np
import PIL.Image
import PIL.ImageOps
import pyarrow as pa

from digitq.producer.sources.arrays import PIECE_ROWS, number_ids, pixels_batch
from digitq.producer.sources.documents import count_pages, page_entries
from digitq.producer.sources.image_tables import arrow_source, choose_image, is_frame, is_pandas
from digitq.producer.sources.objects import find_reader
from digitq.producer.sources.source import (
    Naming,
    Source,
    SourceItem,
    refuse_url,
    unreadable,
)
from digitq.producer.sources.table_rows import OWN_IDS
from digitq.producer.sources.truth import ANSWER_NAMES, PATH_NAMES
from digitq.protocol.chunk import ARRAY, PIXELS
from digitq.protocol.errors import UsageError
from digitq.protocol.formats import UnreadableImageError
from digitq.protocol.formats.csv_rows import find_first
from digitq.protocol.formats.stores import is_stored

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
# Not every Pillow before 13 can read these modes from a PNG or a TIFF
CONVERTED_MODES = {"La": "LA", "RGBa": "RGBA", "HSV": "RGB", "YCbCr": "RGB"}

LISTED = (list, tuple)  # what may be a pair, or a batch with its labels
CHANNEL_COUNTS = (1, 3, 4)  # values of each pixel of a picture whose channels come first
HALF_STEP = 0.5 / 255  # a float that lies less outside of 0 to 1 is rounded


class Tensor(Protocol):
    """An array of another library, such as torch or JAX."""

    def __array__(self, dtype: Any = None, /) -> np.ndarray: ...


class Dataset(Protocol):
    """Images by their number, as torch's datasets give them: any item of an iterable of images."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


class DataFrame(Protocol):
    """A table of another library, such as pandas or Polars."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> object: ...


Bytes = bytes | bytearray | memoryview
Image: TypeAlias = (
    str | os.PathLike[str] | Bytes | IO[bytes] | PIL.Image.Image | np.ndarray | Tensor
)
ImageRow: TypeAlias = Image | tuple[str | int, Image] | tuple[Image, Any] | Mapping[str, Any]
Images: TypeAlias = Image | Iterable[ImageRow] | Dataset | pa.Table | pa.RecordBatch | DataFrame


def image_source(images: Images) -> Source:
    """A source over one image, an array of many, a table, or an iterable of images, of pairs
    `(id, image)` or `(image, label)`, or of rows as Hugging Face's datasets give them. The id of a
    path is the path; the id of any other image is its number. The caller may change an array once
    the next one is asked for. Raises `UsageError` for anything that is not an image."""
    kind = type(images).__name__
    if kind == "LazyFrame":  # of Polars
        return image_source(cast(Any, images).collect())
    if isinstance(images, str):
        refuse_url(images)
    if isinstance(images, Mapping):
        raise UsageError(
            f"a {kind} is not a list of images: its .items() are, if they are ids and images; of a "
            "Hugging Face dataset give rows, such as `ds.select(range(3))` in place of `ds[:3]`"
        )
    if hasattr(images, "columns") or isinstance(images, pa.RecordBatchReader):
        return _frame_source(images) or arrow_source(images)
    if is_pandas(images):  # a column
        column = cast(Any, images)
        return _row_source(column, column, column.to_frame().iloc[:, :0])
    if _is_array(images) or isinstance(images, str | os.PathLike | Bytes | PIL.Image.Image):
        return Source("images from Python", _read_items([images], copies=False))
    items: Any = [images] if _is_file(images) else images
    count: Callable[[], int | None] = partial(_count, items)
    if not isinstance(items, Iterable):
        dataset = items
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise UsageError(f"{kind} is neither an image nor a list of images: give a list")
        items, count = map(dataset.__getitem__, range(len(dataset))), partial(len, dataset)
    return Source("images from Python", _read_items(items, copies=True), None, count)


def _frame_source(frame: Any) -> Source | None:
    """A DataFrame whose images are objects, such as PIL images, which Arrow does not know; None for
    other tables."""
    if not is_frame(frame):
        return None
    names = [*frame.columns]
    first = {
        name: next((cell for cell in frame[name] if not _is_missing(cell)), None) for name in names
    }
    pictures = [
        name
        for name, cell in first.items()
        if isinstance(cell, PIL.Image.Image) or isinstance(cell, np.ndarray) and cell.ndim > 1
    ]
    if not pictures:
        return None
    keys = ["image" if [name] == pictures and "image" not in names else name for name in names]
    cells = zip(*(frame[name] for name in names), strict=True)
    used = [name for name in pictures if name == "image"] or pictures
    others = frame[[name for name in names if name not in (used if is_pandas(frame) else pictures)]]
    return _row_source(frame, (dict(zip(keys, row, strict=True)) for row in cells), others)


def _row_source(frame: Any, cells: Iterable[Any], others: Any) -> Source:
    """The images of a DataFrame's or a column's rows, each of which may have several."""
    rows: list[int] = []
    row = -1

    def begin(cell: Any) -> Any:
        nonlocal row
        row += 1
        return cell

    def read() -> Iterator[SourceItem]:
        for item in _read_items(map(begin, cells), copies=True):
            rows.extend([row] * getattr(item, "num_rows", 1))
            yield item

    return Source("images from Python", read(), None, partial(len, frame), others=others, rows=rows)


def _count(items: Iterable[Any]) -> int | None:
    """How many images a list has: a path may be of a document. None if they are not known yet: an
    array of three dimensions may hold several."""
    if not isinstance(items, list | tuple):
        return None
    if any(len(getattr(one, "shape", ())) > 2 for one in items):
        return None
    images = (_take_apart(number, item)[1] for number, item in enumerate(items))
    return sum(count_pages(os.fspath(one)) if _is_path(one) else 1 for one in images)


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
    return isinstance(image, np.ndarray) or (has_rows and not hasattr(image, "columns"))


def is_one_image(images: Images) -> TypeGuard[Image]:
    """Whether it is one image, and not several in a list, an array or a table. Raises as
    `image_source`."""
    if _is_array(images):
        array = _to_array(images)
        pixels = _find_pixels(array)
        return array.ndim < 4 if pixels is None else len(pixels) == 1
    return isinstance(images, str | os.PathLike | Bytes | PIL.Image.Image) or _is_file(images)


def _read_items(images: Iterable[Any], copies: bool) -> Iterator[SourceItem]:
    naming = Naming()
    number, has_ids, has_batches = 0, False, False
    for item in _spread_batches(images):
        id, image, truth = _take_apart(number, item)
        array = _to_array(image) if _is_array(image) else None
        pixels = None if array is None else _find_pixels(array)
        # An array in a list becomes an entry, because a batch for each takes ten times as long
        is_batch = pixels is not None and not (copies and len(pixels) == 1)
        if is_batch and truth:
            raise UsageError(
                f"image {number}: an array of several images has one label: give a row for each"
            )
        has_ids, has_batches = has_ids or id != "", has_batches or is_batch
        if has_ids and has_batches:  # the numbers in a batch might be ids of others
            raise UsageError(
                f"image {number}: arrays of several images, and images with ids of their own, are "
                "in one list: give a pair (id, image) for each image"
            )
        if pixels is None:
            name, read = _find_reader(number, image if array is None else array)
            file = os.fspath(image) if _is_path(image) and not is_stored(name) else ""
            yield from page_entries(naming, id or name, read, truth=truth, file=file)
        elif is_batch:
            for start in range(0, len(pixels), PIECE_ROWS):
                piece = _to_bytes(pixels[start : start + PIECE_ROWS])
                ids = number_ids("", number + start, len(piece))
                yield pixels_batch(ids, np.array(piece, copy=copies or None))
        else:
            content = ARRAY + _to_bytes(pixels).tobytes()
            yield naming.entry(id or str(number), partial(bytes, content), truth=truth)
        number += 1 if pixels is None else len(pixels)


def _spread_batches(images: Iterable[Any]) -> Iterator[Any]:
    """The same items, but each picture of a batch (N, …) as an item of its own, with its label if
    the batch has N, as in torch's `DataLoader`. Batches of 28×28 pixels without labels stay."""
    for item in images:
        is_list = isinstance(item, LISTED)
        if not is_list and len(getattr(item, "shape", ())) < 4:  # most items are so
            yield item
            continue
        if is_list and len(item) == 1:  # of torch's `TensorDataset`
            (item,) = item
        batch, labels = item, None
        if is_list and len(item) == 2 and _is_array(item[0]):
            batch, labels = item[0], _to_cell(item[1])
        shape: tuple[int, ...] = batch.shape if _is_array(batch) else ()
        if isinstance(labels, LISTED) and len(shape) > 2 and len(labels) == shape[0]:
            yield from zip(_to_array(batch), labels, strict=True)
        elif batch is item and len(shape) == 4 and shape[2:] != (28, 28) and shape[3] != 1:
            yield from _to_array(batch)
        else:
            yield item


def _take_apart(number: int, item: Any) -> tuple[str, Any, str | None]:
    """The id ("" if it has none), the image and the right answer in a pair or a dataset's row."""
    if isinstance(item, LISTED) and len(item) == 2:
        first, second = item[0], _to_cell(item[1])
        is_number, is_name = isinstance(first, int | np.integer), isinstance(first, str)
        if isinstance(second, int | np.integer) and not is_number:
            return "", first, str(second)
        if isinstance(second, str) and not (is_number or is_name):
            return "", first, second
        if is_number or is_name:
            return str(first), item[1], None
    if not isinstance(item, Mapping):
        return "", item, None
    cells: dict[Any, Any] = {str(name): cell for name, cell in item.items()}
    names = [*cells]
    id, label = find_first(names, OWN_IDS), find_first(names, ANSWER_NAMES)
    if (image := find_first(names, ["image"])) is None:
        pictures = [name for name, cell in cells.items() if _is_picture(cell)]
        image = choose_image(f"row {number}", pictures) or find_first(names, PATH_NAMES)
    if image is None:
        columns = ", ".join(names) or "none"
        raise UsageError(f"row {number} has no column `image` or `path`; its columns: {columns}")
    found = cells[image]
    if isinstance(found, Mapping):  # a dataset that does not decode its images
        found = found.get("path") if found.get("bytes") is None else found["bytes"]
    return _to_text(cells.get(id)), found, _to_text(cells.get(label)) or None


def _is_picture(cell: Any) -> bool:
    has_bytes = isinstance(cell, Mapping) and "bytes" in cell  # as Hugging Face stores an image
    return has_bytes or isinstance(cell, bytes | PIL.Image.Image) or _is_array(cell)


def _to_cell(labels: Any) -> Any:
    """A number from an array of one, and a list from one of several; anything else unchanged."""
    return labels.tolist() if len(getattr(labels, "shape", "no array")) < 2 else labels


def _to_text(cell: Any) -> str:
    """A cell as text, `3` for the number 3.0; "" if it is None."""
    with suppress(AttributeError, ValueError, RuntimeError):
        cell = cell.item()  # the cell is an array of one number
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if _is_missing(cell) else str(cell)


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
    hint = "; a pair is (id, image) or (image, label): ids and labels are text or whole numbers"
    raise UsageError(
        f"image {number} has the type {type(image).__name__}: give a path, bytes, a file opened in "
        f"binary mode, a PIL image or an array{hint * isinstance(image, tuple | list)}"
    )


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
