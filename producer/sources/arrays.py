"""Files of whole sets of images, 28×28 as MNIST's are: NumPy's `.npy`, and MNIST's own format."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa

from producer.sources.batches import PIECE_ROWS, number_pieces, pixels_batch
from producer.sources.mnist import IMAGES_HEADER, IMAGES_MAGIC
from producer.sources.source import EmptyError, Source, SourceItem
from protocol.chunk import PIXELS
from protocol.errors import UsageError
from protocol.text import plural

READ_BYTES = 1 << 20  # at a time: of what is packed, all that came before an error is kept
SUFFIXES = (".npy", "idx3-ubyte", "idx3-ubyte.gz")
MAGIC, SHAPE = IMAGES_MAGIC.to_bytes(4, "big"), (28).to_bytes(4, "big") * 2  # of a header


def array_source(path: Path, prefix: str) -> Source:
    """The images of a file; an id is an image's number. Raises `UsageError` where it has none."""
    try:
        count, parts = _open_npy(path) if path.suffix.lower() == ".npy" else _open_idx(path)
    except Exception as error:  # numpy raises whatever a damaged header does to Python's parser
        raise UsageError(f"can't read {path}: {str(error) or type(error).__name__}") from None
    if not count:
        raise EmptyError(f"no image in {path}")
    return Source(str(path), number_pieces(parts, prefix, _build), count=lambda: count)


def _build(ids: pa.Array, part: np.ndarray) -> list[SourceItem]:
    return [pixels_batch(ids, part.reshape(-1, PIXELS))]


def _open_npy(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    """How many images there are, and they. Raises `ValueError`, and what numpy does."""
    array = np.load(path, mmap_mode="r")
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError("it holds several arrays, as .npz files do")
    if array.dtype != np.uint8 or array.shape[1:] not in ((28, 28), (PIXELS,)):
        raise ValueError(
            f"it holds {array.dtype}{array.shape}, where uint8 of the shape (N, 28, 28) or "
            f"(N, {PIXELS}) is needed"
        )
    if array.flags.c_contiguous:  # else they lie scattered; a mapped file that is cut is fatal
        return len(array), _read_parts(path, cast(np.memmap, array).offset, len(array))
    starts = range(0, len(array), PIECE_ROWS)
    return len(array), (array[start : start + PIECE_ROWS] for start in starts)


def _open_idx(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    """The same of MNIST's format. Raises `ValueError`, and what gzip does."""
    with _open(path) as file:
        header = file.read(IMAGES_HEADER)
    if (header[:4], header[8:]) != (MAGIC, SHAPE):
        raise ValueError("it is no file of 28×28 images as MNIST has them")
    count = int.from_bytes(header[4:8], "big")
    return count, _read_parts(path, IMAGES_HEADER, count)


def _open(path: Path) -> IO[bytes]:
    is_packed = path.suffix.lower() == ".gz"
    return cast(IO[bytes], gzip.GzipFile(path)) if is_packed else path.open("rb")


def _read_all(file: IO[bytes], size: int) -> bytes:
    """So many bytes; fewer where the file breaks off, or is damaged from there on."""
    blocks = []
    with suppress(OSError, EOFError, zlib.error):
        while size and (block := cast(Any, file).read1(min(size, READ_BYTES))):
            blocks.append(block)
            size -= len(block)
    return b"".join(blocks)


def _read_parts(path: Path, start: int, count: int) -> Iterator[np.ndarray]:
    """The images from a byte of the file on, (N, 784). Raises `EOFError` where there are less."""
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
