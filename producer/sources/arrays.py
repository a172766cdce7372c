"""Arrays of 28×28 images: record batches of them, MNIST, and files in IDX or NumPy's format."""

import csv
import gzip
import logging
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from producer.sources.source import (
    EmptyError,
    Entry,
    Source,
    SourceItem,
    UniqueIds,
    unreadable,
)
from protocol.chunk import ID, PIXELS, PIXELS_FIELD
from protocol.errors import UsageError
from protocol.settings import settings
from protocol.text import plural, printable

PIECE_ROWS = 16384  # one record batch has at most this many images
Build: TypeAlias = Callable[[pa.Array, Any], Iterable[SourceItem]]  # its arguments: ids and rows
BLOCK_BYTES = 1 << 20  # this much is read at a time; if gzip data is damaged, earlier blocks count
ARRAY_SUFFIXES = (".npy", "idx3-ubyte", "idx3-ubyte.gz")
FILE_PREFIXES = {"test": "t10k", "train": "train"}
# The first bytes of an IDX file and the length of its header, which ends with an image's shape:
# yann.lecun.com/exdb/mnist, "FILE FORMATS"
IMAGES_MAGIC, IMAGES_HEADER = b"\0\0\x08\x03", 16
LABELS_MAGIC, LABELS_HEADER = b"\0\0\x08\x01", 8
SHAPE = (28).to_bytes(4, "big") * 2

logger = logging.getLogger(__name__)


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
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        reason = f"the file is damaged from here on: {error}".partition("\n")[0]
        yield Entry(prefix + unique(str(start)), unreadable(reason))


def number_ids(prefix: str, start: int, rows: int) -> pa.Array:
    """The ids `<prefix><start>`, `<prefix><start + 1>` …"""
    numbers = pc.cast(pa.array(np.arange(start, start + rows)), pa.string())
    return pc.binary_join_element_wise(pa.scalar(prefix), numbers, "")


def pixels_batch(
    ids: pa.Array, pixels: np.ndarray, truth: pa.Array | None = None
) -> pa.RecordBatch:
    """A record batch that shares the memory of `pixels`, (N, 784) uint8; `truth` is (N,)."""
    buffer = pa.py_buffer(np.ascontiguousarray(pixels))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(PIXELS), len(pixels), [None, buffer])
    batch = pa.record_batch([ids, column], schema=pa.schema([ID, PIXELS_FIELD]))
    return batch if truth is None else batch.append_column("truth", truth)


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


def mnist_source(split: str) -> Source:
    """`mnist:test` (10,000 images) or `mnist:train` (60,000), with their labels. Raises
    `UsageError` for another name, or if MNIST can't be loaded."""
    if split not in FILE_PREFIXES:
        raise UsageError(f"MNIST has no part {split!r}: there are mnist:test and mnist:train")
    images, labels = load_mnist(split)
    items = label_batches(f"mnist/{split}/", images, labels)
    return Source(f"mnist:{split}", items, has_truth=True, count=lambda: len(labels))


def load_mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 784) and labels (N,), both uint8. Downloads MNIST the first time, unless
    `DIGITQ_MNIST` names its folder. Raises `UsageError` if it can't be downloaded or read."""
    raw = settings().mnist_root / "MNIST" / "raw"
    images = raw / f"{FILE_PREFIXES[split]}-images-idx3-ubyte"
    labels = raw / f"{FILE_PREFIXES[split]}-labels-idx1-ubyte"
    if not (images.exists() and labels.exists()):
        _download()
    pixels = _map_idx(images, IMAGES_MAGIC, IMAGES_HEADER, PIXELS)
    digits = _map_idx(labels, LABELS_MAGIC, LABELS_HEADER, 1)[:, 0]
    if len(pixels) != len(digits):
        raise UsageError(f"{raw}: {len(pixels)} images but {len(digits)} labels")
    return pixels, digits


def _download() -> None:
    """Let torchvision fetch MNIST in another process, so that this one need not import torch."""
    if not settings().mnist:
        logger.warning("downloading MNIST once to %s …", settings().mnist_root)
    command = [sys.executable, "-P", "-m", "worker.dataset"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it failed"])[-1].removeprefix("digitq: ")
        if "DIGITQ_MNIST" not in reason:  # for example, torchvision is not installed
            reason = f"no MNIST ({reason}): set DIGITQ_MNIST to a folder with MNIST/raw/*-ubyte"
        raise UsageError(reason)


def _map_idx(path: Path, magic: bytes, header: int, row_bytes: int) -> np.ndarray:
    """The rows of an IDX file, (N, row_bytes), mapped into memory."""
    try:
        content = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise UsageError(f"can't read {path}: {error}") from None
    if content[:4].tobytes() != magic:
        raise UsageError(f"{path} is not an MNIST file")
    if (len(content) - header) % row_bytes:
        raise UsageError(f"{path} is truncated in the middle of an image")
    return content[header:].reshape(-1, row_bytes)
