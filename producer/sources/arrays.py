"""Files that hold many 28×28 images: NumPy's `.npy` and MNIST's IDX format."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from producer.sources.batches import PIECE_ROWS, number_pieces, pixels_batch
from producer.sources.mnist import IMAGES_HEADER, IMAGES_MAGIC
from producer.sources.source import EmptyError, Source
from protocol.chunk import PIXELS
from protocol.errors import UsageError
from protocol.text import plural

BLOCK_BYTES = 1 << 20  # one read; if gzip data is damaged, earlier blocks are kept
ARRAY_SUFFIXES = (".npy", "idx3-ubyte", "idx3-ubyte.gz")
MAGIC = IMAGES_MAGIC.to_bytes(4, "big")
SHAPE = (28).to_bytes(4, "big") * 2  # the height and width in an IDX header


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
    array = np.load(path, mmap_mode="r")
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError("it holds several arrays, as .npz files do")
    if array.dtype != np.uint8 or array.shape[1:] not in ((28, 28), (PIXELS,)):
        raise ValueError(
            f"it holds {array.dtype}{array.shape}, where uint8 of the shape (N, 28, 28) or "
            f"(N, {PIXELS}) is needed"
        )
    count, starts = len(array), range(0, len(array), PIECE_ROWS)
    if array.flags.c_contiguous:  # read it: if a mapped file is truncated, the process dies
        return count, _read_parts(path, cast(np.memmap, array).offset, count)
    return count, (array[start : start + PIECE_ROWS].reshape(-1, PIXELS) for start in starts)


def _open_idx(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    """`_open_npy` for the IDX format. Raises `ValueError`, and what gzip raises."""
    with _open(path) as file:
        header = file.read(IMAGES_HEADER)
    if (header[:4], header[8:]) != (MAGIC, SHAPE):
        raise ValueError("it is no file of 28×28 images in MNIST's format")
    count = int.from_bytes(header[4:8], "big")
    return count, _read_parts(path, IMAGES_HEADER, count)


def _open(path: Path) -> IO[bytes]:
    is_packed = path.suffix.lower() == ".gz"
    return cast(IO[bytes], gzip.GzipFile(path)) if is_packed else path.open("rb")


def _read_all(file: IO[bytes], size: int) -> bytes:
    """The next `size` bytes; fewer if the file ends early or is damaged."""
    blocks = []
    with suppress(OSError, EOFError, zlib.error):
        while size and (block := cast(Any, file).read1(min(size, BLOCK_BYTES))):
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
