"""MNIST as tensors, fetched once. `python -m worker.dataset` only makes sure that it is there."""

import sys
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import Literal

from torch import Tensor
from torchvision.datasets import MNIST

from protocol.errors import UsageError
from protocol.settings import settings

Split = Literal["train", "test"]
RAW = Path("MNIST/raw")
FILES = tuple(
    f"{part}-ubyte"
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
)


def load_mnist(split: Split) -> tuple[Tensor, Tensor]:
    """Images (N, 28, 28) uint8 and labels (N,) int64; N is 60,000 for train, 10,000 for test.

    Raises `UsageError` where MNIST isn't there and can't be fetched.
    """
    root = ensure_mnist()
    try:
        images = MNIST(root, train=split == "train")
    except (OSError, ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(
            f"MNIST in {root / RAW} can't be read ({error}); remove that folder and try again"
        ) from error
    return images.data, images.targets


def ensure_mnist() -> Path:
    """The root of MNIST, downloaded if DIGITQ_MNIST isn't set. Raises `UsageError`."""
    root = settings().mnist_root
    missing = [name for name in FILES if not (root / RAW / name).is_file()]
    if missing and settings().mnist is not None:
        raise UsageError(
            f"DIGITQ_MNIST={root}: {', '.join(missing)} missing in {root / RAW}; "
            "put MNIST's unpacked files there, or unset DIGITQ_MNIST to have them downloaded"
        )
    if missing:
        download_mnist(root)
    return root


def download_mnist(root: Path) -> None:
    """Download MNIST beside its place, then move it there, so that no half of it ever shows."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as folder:
            MNIST(folder, download=True)
            (root / RAW).mkdir(parents=True, exist_ok=True)
            for name in FILES:
                (Path(folder) / RAW / name).replace(root / RAW / name)
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        reason = str(error).partition("\n")[0].rstrip(":")  # torchvision's goes on for pages
        raise UsageError(
            f"MNIST can't be downloaded to {root} ({reason}): set DIGITQ_MNIST to a folder that "
            "holds MNIST/raw/*-ubyte, or connect once to the internet"
        ) from error


def main() -> int:
    """Make sure MNIST is there: 0, or one line on stderr and 2."""
    try:
        ensure_mnist()
    except UsageError as error:
        print(f"digitq: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
