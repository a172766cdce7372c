"""Arrays of 28×28 images: record batches of them, MNIST, and files in IDX or NumPy's format."""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.lib.format import MAGIC_PREFIX

from digitq.producer.sources.source import (
    EmptyError,
    Entry,
    Source,
    SourceItem,
    UniqueIds,
    unreadable,
)
from digitq.protocol.chunk import PIXELS, pixels_batch
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.mnist import (
    IMAGES_HEADER,
    IMAGES_MAGIC,
    MNIST_PARTS,
    NoMnistError,
    load_mnist,
)
from digitq.protocol.text import plural, printable

PIECE_ROWS = 16384  # one record batch has at most this many images
Build: TypeAlias = Callable[[pa.Array, Any], Iterable[SourceItem]]  # its arguments: ids and rows
ARRAY_BLOCK_BYTES = 1 << 20  # one read; if gzip data is damaged, the blocks before it count
ARRAY_SUFFIXES = (".npy", "idx3-ubyte", "idx3-ubyte.gz")
SHAPE = (28).to_bytes(4, "big") * 2  # the end of the header of a file of images
MNIST_NAMES = "mnist:test, mnist:train and mnist:sample"


def label_batches(prefix: str, images: np.ndarray, labels: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Images (N, 784) with their labels (N,), under the ids `<prefix>0`, `<prefix>1` …"""
    for start in range(0, len(images), PIECE_ROWS):
        pixels = images[start : start + PIECE_ROWS]
        truth = pa.array(labels[start : start + PIECE_ROWS].astype(np.int8))
        yield pixels_batch(number_ids(prefix, start, len(pixels)), pixels, truth)


def number_pieces(
    parts: Iterable[Any],
    prefix: str,
    build: Build,
    read_ids: Callable[[Any], list[str]] | None = None,
) -> Iterator[SourceItem]:
    """What `build` makes of each part of a file; if it is damaged, the last item is unreadable.

    An id is what `read_ids` finds in a row, or else the number of the row.
    """
    start, unique = 0, UniqueIds()
    try:
        for part in parts:
            ids = number_ids(prefix, start, len(part))
            if read_ids:
                own = enumerate(read_ids(part), start)
                ids = pa.array(
                    [prefix + unique(printable(id) or str(row)) for row, id in own], pa.string()
                )
            yield from build(ids, part)
            start += len(part)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        reason = f"the file is damaged from here on: {error}".partition("\n")[0]
        yield Entry(prefix + unique(str(start)), unreadable(reason))


def number_ids(prefix: str, start: int, rows: int) -> pa.Array:
    """The ids `<prefix><start>`, `<prefix><start + 1>` …"""
    numbers = pc.cast(pa.array(np.arange(start, start + rows)), pa.string())
    return pc.binary_join_element_wise(pa.scalar(prefix), numbers, "")


def array_source(path: Path, prefix: str) -> Source:
    """The images of a file; an id is the number of an image. Raises `UsageError` if it has none."""
    try:
        count, parts = _open_npy(path) if path.suffix.lower() == ".npy" else _open_idx(path)
    except Exception as error:  # numpy raises anything for a damaged header, which it evaluates
        raise UsageError(f"can't read {path}: {str(error) or type(error).__name__}") from None
    if not count:
        raise EmptyError(f"no image in {path}")
    items = number_pieces(parts, prefix, lambda ids, part: [pixels_batch(ids, part)])
    return Source(str(path), items, count=lambda: count)


def _open_npy(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    """The number of images, and parts (N, 784). Raises `ValueError`, and what numpy raises."""
    with path.open("rb") as file:
        if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
            raise ValueError("it is not one array in NumPy's format")
    array = np.load(path, mmap_mode="r")
    if array.dtype != np.uint8 or array.shape[1:] not in ((28, 28), (PIXELS,)):
        raise ValueError(
            f"it holds {array.dtype}{array.shape}, but it must hold uint8 of the shape "
            f"(N, 28, 28) or (N, {PIXELS})"
        )
    count, starts = len(array), range(0, len(array), PIECE_ROWS)
    if array.flags.c_contiguous:  # do not map it: if the file shrinks, that ends the process
        return count, _read_parts(path, cast(np.memmap, array).offset, count)
    return count, (array[start : start + PIECE_ROWS].reshape(-1, PIXELS) for start in starts)


def _open_idx(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    """`_open_npy` for the IDX format. Raises `ValueError`, and what gzip raises."""
    with _open(path) as file:
        header = file.read(IMAGES_HEADER)
    if (header[:4], header[8:]) != (IMAGES_MAGIC, SHAPE):
        raise ValueError("it is not a file of 28×28 images in MNIST's format")
    count = int.from_bytes(header[4:8], "big")
    return count, _read_parts(path, IMAGES_HEADER, count)


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb"))


def _read_all(file: IO[bytes], size: int) -> bytes:
    """The next `size` bytes; fewer if the file ends early or is damaged."""
    blocks = []
    with suppress(OSError, EOFError, zlib.error):
        while size and (block := cast(Any, file).read1(min(size, ARRAY_BLOCK_BYTES))):
            blocks.append(block)
            size -= len(block)
    return b"".join(blocks)


def _read_parts(path: Path, start: int, count: int) -> Iterator[np.ndarray]:
    """`count` images from the offset `start`. Raises `EOFError` if the file has fewer."""
    with _open(path) as file:
        file.seek(start)
        while count:
            rows = min(count, PIECE_ROWS)
            content = _read_all(file, rows * PIXELS)
            whole = len(content) // PIXELS
            yield np.frombuffer(content, np.uint8, whole * PIXELS).reshape(-1, PIXELS)
            if whole < rows:
                raise EOFError(f"{plural(count - whole, 'image')} missing")
            count -= rows


def mnist_source(name: str) -> Source:
    """The images of `mnist:<name>` with their labels. Raises `UsageError` for an unknown name, or
    if the images can't be loaded."""
    if name not in MNIST_PARTS:
        raise UsageError(f"MNIST has no part {name!r}: there are {MNIST_NAMES}")
    try:
        images, labels = load_mnist(name)
    except NoMnistError as error:
        raise NoMnistError(f"{error}; mnist:sample has 5,000 of its images") from None
    items = label_batches(f"mnist/{name}/", images, labels)
    return Source(f"mnist:{name}", items, has_truth=True, count=lambda: len(labels))
