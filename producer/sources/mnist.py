"""MNIST as a source. Its files are mapped into memory, so pixels are not copied."""

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

FILE_PREFIXES = {"test": "t10k", "train": "train"}
# The first number of a file and the bytes of its header: yann.lecun.com/exdb/mnist, "FILE FORMATS"
IMAGES_MAGIC, IMAGES_HEADER = 2051, 16
LABELS_MAGIC, LABELS_HEADER = 2049, 8

logger = logging.getLogger(__name__)


def mnist_source(split: str) -> Source:
    """`mnist:test` (10,000 images) or `mnist:train` (60,000), with their labels.

    Raises `UsageError` for another name, or if MNIST can't be loaded.
    """
    if split not in FILE_PREFIXES:
        raise UsageError(f"no MNIST part {split!r}: there are mnist:test and mnist:train")
    images, labels = load_mnist(split)
    items = label_batches(f"mnist/{split}/", images, labels)
    return Source(f"mnist:{split}", items, has_truth=True, count=lambda: len(labels))


def load_mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 784) and labels (N,), both uint8. Downloads MNIST the first time, unless
    `DIGITQ_MNIST` names its folder.

    Raises `UsageError` if MNIST can't be downloaded or read.
    """
    raw = settings().mnist_root / "MNIST" / "raw"
    images, labels = (
        raw / f"{FILE_PREFIXES[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")
    )
    if not (images.exists() and labels.exists()):
        _download()
    pixels = _read_idx(images, IMAGES_MAGIC, IMAGES_HEADER).reshape(-1, PIXELS)
    digits = _read_idx(labels, LABELS_MAGIC, LABELS_HEADER)
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


def _read_idx(path: Path, magic: int, header: int) -> np.ndarray:
    try:
        content = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise UsageError(f"can't read {path}: {error}") from None
    if int.from_bytes(content[:4].tobytes(), "big") != magic:
        raise UsageError(f"{path} is no MNIST file")
    if (len(content) - header) % (PIXELS if magic == IMAGES_MAGIC else 1):
        raise UsageError(f"{path} is truncated in the middle of an image")
    return content[header:]
