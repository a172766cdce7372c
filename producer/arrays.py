"""Files of whole sets of images, 28×28 as MNIST's are: NumPy's `.npy`, and MNIST's own format."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np

from producer.mnist import IMAGES_HEADER, IMAGES_MAGIC, PIECE_ROWS, number_ids, pixels_batch
from producer.sources import Source
from protocol.chunk import PIXELS
from protocol.errors import UsageError

SUFFIXES = (".npy", "idx3-ubyte", "idx3-ubyte.gz")
SHAPE = IMAGES_MAGIC.to_bytes(4, "big"), (28).to_bytes(4, "big") * 2  # of a header, but the count


def array_source(path: Path, prefix: str) -> Source:
    """The images of a file; an id is an image's number. Raises `UsageError` where it has none."""
    read: Callable[[Path], np.ndarray] = _read_npy if path.suffix == ".npy" else _read_idx
    try:
        pixels = read(path)
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"can't read {path}: {error}") from None
    if not len(pixels):
        raise UsageError(f"no image in {path}")
    batches = (
        pixels_batch(number_ids(prefix, start, len(part)), part)
        for start in range(0, len(pixels), PIECE_ROWS)
        for part in [pixels[start : start + PIECE_ROWS]]
    )
    return Source(str(path), batches, count=lambda: len(pixels))


def _read_npy(path: Path) -> np.ndarray:
    """(N, 784), mapped into memory. Raises `OSError`, `ValueError`."""
    array: np.ndarray = np.load(path, mmap_mode="r")
    if array.dtype != np.uint8 or array.shape[-2:] != (28, 28) and array.shape[1:] != (PIXELS,):
        raise ValueError(
            f"it holds {array.dtype}{array.shape}, where uint8 of the shape (N, 28, 28) or "
            f"(N, {PIXELS}) is needed"
        )
    return array.reshape(-1, PIXELS)


def _read_idx(path: Path) -> np.ndarray:
    """(N, 784). Raises `OSError`, `EOFError`, `ValueError`."""
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            content = np.frombuffer(file.read(), np.uint8)
    else:
        content = np.memmap(path, np.uint8, mode="r")
    header = content[:IMAGES_HEADER].tobytes()
    if (header[:4], header[8:]) != SHAPE:
        raise ValueError("it is no file of 28×28 images as MNIST has them")
    if len(content) - IMAGES_HEADER != int.from_bytes(header[4:8], "big") * PIXELS:
        raise ValueError("it is not as long as it says")
    return content[IMAGES_HEADER:].reshape(-1, PIXELS)
