"""MNIST as a source: its files are mapped into memory, so that no pixel is copied to feed them."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np

from producer.sources.batches import label_batches
from producer.sources.source import Source
from protocol.chunk import PIXELS
from protocol.errors import UsageError
from protocol.settings import settings

FILES = {"test": "t10k", "train": "train"}
IMAGES_MAGIC, IMAGES_HEADER = 2051, 16  # bytes; yann.lecun.com/exdb/mnist, "FILE FORMATS"
LABELS_MAGIC, LABELS_HEADER = 2049, 8

logger = logging.getLogger(__name__)


def mnist_source(split: str) -> Source:
    """`mnist:test` (10,000 images) or `mnist:train` (60,000), with the right answers.

    Raises `UsageError` for another name, or where MNIST can't be had.
    """
    if split not in FILES:
        raise UsageError(f"no MNIST part {split!r}: there are mnist:test and mnist:train")
    images, labels = load_mnist(split)
    items = label_batches(f"mnist/{split}/", images, labels)
    return Source(f"mnist:{split}", items, has_truth=True, count=lambda: len(labels))


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
