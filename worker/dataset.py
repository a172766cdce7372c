"""MNIST as tensors, downloaded once. `python -m worker.dataset` only makes sure of the download."""

import sys
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import Literal

from torch import Tensor

from protocol.errors import UsageError
from protocol.settings import settings

RAW = Path("MNIST/raw")
MNIST_FILES = [
    f"{split}-{part}-ubyte"
    for split in ("train", "t10k")
    for part in ("images-idx3", "labels-idx1")
]


def load_mnist(split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    """Images (N, 28, 28) uint8 and labels (N,) int64; N is 60,000 for train, 10,000 for test.

    Raises `UsageError` if MNIST is missing and can't be downloaded.
    """
    from torchvision.datasets import MNIST  # its import takes two seconds

    root = ensure_mnist()
    try:
        images = MNIST(root, train=split == "train")
    except (OSError, ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(
            f"MNIST in {root / RAW} can't be read ({error}); remove that folder and try again"
        ) from error
    return images.data, images.targets


def ensure_mnist() -> Path:
    """MNIST's root folder, filled by a download if DIGITQ_MNIST isn't set. Raises `UsageError`."""
    root = settings().mnist_root
    missing = [name for name in MNIST_FILES if not (root / RAW / name).is_file()]
    if not missing:
        return root
    if settings().mnist is not None:
        raise UsageError(
            f"DIGITQ_MNIST={root}: {', '.join(missing)} missing in {root / RAW}; "
            "put MNIST's unpacked files there, or unset DIGITQ_MNIST to download them"
        )
    from torchvision.datasets import MNIST

    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as folder:  # no partial copy is ever seen
            MNIST(folder, download=True)
            (root / RAW).mkdir(parents=True, exist_ok=True)
            for name in MNIST_FILES:
                (Path(folder) / RAW / name).replace(root / RAW / name)
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        reason = str(error).partition("\n")[0].rstrip(":")  # torchvision's text has several lines
        raise UsageError(
            f"MNIST can't be downloaded to {root} ({reason}): set DIGITQ_MNIST to a folder that "
            "holds MNIST/raw/*-ubyte, or connect once to the internet"
        ) from error
    return root


if __name__ == "__main__":
    try:
        ensure_mnist()
    except UsageError as error:
        print(f"digitq: {error}", file=sys.stderr)
        sys.exit(2)
