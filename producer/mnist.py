"""MNIST as a source: its files are mapped into memory, so that no pixel is copied to feed them."""

import logging
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from producer.sources import Entry, Piece, Source, raise_unreadable
from protocol.chunk import ID, PIXELS, PIXELS_FIELD, TRUTH
from protocol.errors import UsageError
from protocol.settings import settings

FILES = {"test": "t10k", "train": "train"}
IMAGES_MAGIC, IMAGES_HEADER = 2051, 16  # bytes; yann.lecun.com/exdb/mnist, "FILE FORMATS"
LABELS_MAGIC, LABELS_HEADER = 2049, 8
SCHEMA = pa.schema([ID, PIXELS_FIELD, TRUTH])
PIECE_ROWS = 16384

logger = logging.getLogger(__name__)

Part = TypeVar("Part", np.ndarray, pa.RecordBatch)


def mnist_source(split: str) -> Source:
    """`mnist:test` (10,000 images) or `mnist:train` (60,000), with the right answers.

    Raises `UsageError` for another name, or where MNIST can't be had.
    """
    if split not in FILES:
        raise UsageError(f"no MNIST part {split!r}: there are mnist:test and mnist:train")
    images, labels = load_mnist(split)
    pieces = label_batches(f"mnist/{split}/", images, labels)
    return Source(f"mnist:{split}", pieces, has_truth=True, count=lambda: len(labels))


def load_mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 784) and labels (N,), both uint8. Downloads them once where they may be.

    Raises `UsageError` where they can't be had.
    """
    raw = settings().mnist_root / "MNIST" / "raw"
    images, labels = (
        raw / f"{FILES[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")
    )
    if not (images.exists() and labels.exists()):
        _download()
    pixels = _read_idx(images, IMAGES_MAGIC, IMAGES_HEADER).reshape(-1, PIXELS)
    digits = _read_idx(labels, LABELS_MAGIC, LABELS_HEADER)
    if len(pixels) != len(digits):
        raise UsageError(f"{raw}: {len(pixels)} images but {len(digits)} labels")
    return pixels, digits


def _download() -> None:
    """Torchvision fetches MNIST into the cache folder, in a process of its own: torch stays out."""
    if not settings().mnist:
        logger.warning("fetching MNIST, once, to %s …", settings().mnist_root)
    command = [sys.executable, "-P", "-m", "worker.dataset"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it failed"])[-1].removeprefix("digitq: ")
        if "DIGITQ_MNIST" not in reason:  # as where torchvision is not installed
            reason = f"no MNIST ({reason}): set DIGITQ_MNIST to a folder with MNIST/raw/*-ubyte"
        raise UsageError(reason)


def _read_idx(path: Path, magic: int, header: int) -> np.ndarray:
    try:
        content = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise UsageError(f"can't read {path}: {error}") from None
    if int.from_bytes(content[:4].tobytes(), "big") != magic:
        raise UsageError(f"{path} is no MNIST file")
    if (len(content) - header) % (PIXELS if magic == IMAGES_MAGIC else 1):
        raise UsageError(f"{path} breaks off in the middle of an image")
    return content[header:]


def label_batches(prefix: str, images: np.ndarray, labels: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Images (N, 784) with the right answers, under the ids `<prefix>0`, `<prefix>1` …"""
    for start in range(0, len(images), PIECE_ROWS):
        pixels = images[start : start + PIECE_ROWS]
        truth = pa.array(labels[start : start + PIECE_ROWS].astype(np.int8))
        yield pixels_batch(number_ids(prefix, start, len(pixels)), pixels, truth)


def number_pieces(
    parts: Iterable[Part], prefix: str, build: Callable[[pa.Array, Part], Iterable[Piece]]
) -> Iterator[Piece]:
    """What is built of each part of a file and the ids of its rows, which are numbers. Where it is
    damaged, the rest is an entry that can't be read."""
    start = 0
    try:
        for part in parts:
            yield from build(number_ids(prefix, start, len(part)), part)
            start += len(part)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        reason = f"the file is damaged from here on: {error}".partition("\n")[0]
        yield Entry(f"{prefix}{start}", lambda: raise_unreadable(reason))


def number_ids(prefix: str, start: int, rows: int) -> pa.Array:
    """The ids `<prefix><start>`, `<prefix><start + 1>` … made without a loop."""
    numbers = pc.cast(pa.array(np.arange(start, start + rows)), pa.string())
    return pc.binary_join_element_wise(pa.scalar(prefix), numbers, "")


def pixels_batch(
    ids: pa.Array, pixels: np.ndarray, truth: pa.Array | None = None
) -> pa.RecordBatch:
    """A record batch over the memory of `pixels`, (N, 784) uint8; `truth` is int8."""
    buffer = pa.py_buffer(np.ascontiguousarray(pixels))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(PIXELS), len(pixels), [None, buffer])
    if truth is None:
        return pa.record_batch([ids, column], schema=pa.schema([ID, PIXELS_FIELD]))
    return pa.record_batch([ids, column, truth], schema=SCHEMA)
