import runpy
import sys
from pathlib import Path

import pytest
import torch

from protocol.errors import UsageError
from protocol.settings import settings
from worker import dataset
from worker.dataset import MNIST_FILES, RAW, load_mnist


@pytest.fixture
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As on a user's machine: an empty cache folder, and no DIGITQ_MNIST."""
    monkeypatch.delenv("DIGITQ_MNIST", raising=False)
    monkeypatch.setenv("DIGITQ_CACHE_DIR", str(tmp_path / "cache"))
    settings.cache_clear()
    return tmp_path / "cache"


def test_mnist_is_70000_images(mnist_root: Path) -> None:
    for split, count in (("train", 60_000), ("test", 10_000)):
        images, labels = load_mnist(split)  # type: ignore[arg-type]
        assert images.shape == (count, 28, 28)
        assert images.dtype == torch.uint8
        assert labels.shape == (count,)
        assert labels.dtype == torch.int64
        assert labels.unique().tolist() == list(range(10))  # type: ignore[no-untyped-call]


def test_a_folder_that_was_named_is_never_downloaded_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIGITQ_MNIST", str(tmp_path))
    monkeypatch.delitem(sys.modules, "worker.dataset")  # it is run anew
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("worker.dataset", run_name="__main__")
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "train-images-idx3-ubyte" in line and "DIGITQ_MNIST" in line
    assert not list(tmp_path.iterdir())


def test_a_download_comes_in_whole(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = []

    def download(folder: str, download: bool) -> None:
        downloads.append(folder)
        (Path(folder) / RAW).mkdir(parents=True)
        for name in MNIST_FILES:
            (Path(folder) / RAW / name).write_text("pixels")

    monkeypatch.setattr("torchvision.datasets.MNIST", download)
    for _ in range(2):
        assert dataset.ensure_mnist() == cache_folder
    assert sorted(path.name for path in (cache_folder / RAW).iterdir()) == sorted(MNIST_FILES)
    assert [path.name for path in cache_folder.iterdir()] == ["MNIST"]
    assert len(downloads) == 1


def test_a_failed_download_says_what_to_do(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: str, download: bool) -> None:
        raise RuntimeError("Error downloading train-images:\nTried this\nTried that\n")

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)
    with pytest.raises(UsageError) as caught:
        dataset.ensure_mnist()
    assert len(str(caught.value).splitlines()) == 1
    assert "(Error downloading train-images): set DIGITQ_MNIST" in str(caught.value)
    assert not list(cache_folder.iterdir())


def test_files_that_are_cut_short_are_named(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache_folder / RAW).mkdir(parents=True)
    for name in MNIST_FILES:
        (cache_folder / RAW / name).write_bytes(b"\0\0\x08\x03")
    with pytest.raises(UsageError, match="can't be read"):
        load_mnist("test")
