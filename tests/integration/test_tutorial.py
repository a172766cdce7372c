"""The tutorial on the sample of MNIST; test_readme.py compares what it prints for all of MNIST."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the tutorial prints if MNIST can't be downloaded, and the picture that it saved."""
    folder = tmp_path_factory.mktemp("tutorial")
    nowhere = {"https_proxy": "http://127.0.0.1:1", "DIGITQ_CACHE_DIR": str(folder)}
    outside = {name: value for name, value in os.environ.items() if name != "DIGITQ_MNIST"}
    result = subprocess.run(
        [sys.executable, "examples/tutorial.py", str(folder / "first.png")],
        cwd=ROOT,
        env={**outside, **nowhere, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout, folder / "first.png"


def read_probabilities(name: str, output: str) -> list[float]:
    found = re.search(rf"^{name}: +([^(]*) ", output, re.MULTILINE)
    assert found is not None, output
    return [float(word) for word in found[1].split()]


def test_help_is_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tutorial.py", "--help"])
    with pytest.raises(SystemExit, match="^0$"):
        runpy.run_path(str(ROOT / "examples/tutorial.py"), run_name="__main__")


def test_it_takes_the_sample_in_batches_of_64(walk: tuple[str, Path]) -> None:
    reason, *lines = walk[0].splitlines()
    assert reason.startswith("MNIST can't be downloaded")
    assert lines[0] == "5,000 images, 79 batches"
    assert lines[1:3] == ["torch.Size([64, 1, 28, 28])", "torch.Size([64])"]
    assert lines[3] == "torch.Size([1, 28, 28])" and lines[18] == "(64, 784)"


def test_the_first_image_is_drawn_as_it_is_saved(walk: tuple[str, Path]) -> None:
    output, path = walk
    saved = np.asarray(Image.open(path))
    assert saved.shape == (28, 28)
    lines = output.splitlines()[5:19]
    for line, grey in zip(lines, saved.reshape(14, 2, 28).mean(1), strict=True):
        assert [shade != " " for shade in line.ljust(28)] == (grey >= 52).tolist()


def test_both_networks_give_ten_probabilities(walk: tuple[str, Path]) -> None:
    for name in ("random", "mlp"):
        probabilities = read_probabilities(name, walk[0])
        assert len(probabilities) == 10 and sum(probabilities) == pytest.approx(1, abs=0.01)
    assert walk[0].count(" (sum 1.000000)") == 2


def test_the_trained_network_reads_the_batch(walk: tuple[str, Path]) -> None:
    probabilities = read_probabilities("mlp", walk[0])
    found = re.search(r"it is a (\d), the label says (\d); (\d+) of 64 are right", walk[0])
    assert found and found[1] == found[2] and int(found[3]) > 60
    assert probabilities.index(max(probabilities)) == int(found[1])


def test_the_batch_comes_back_from_a_worker_with_the_same_numbers(walk: tuple[str, Path]) -> None:
    assert walk[0].endswith("\n64 answers came through Redis from a worker: the same numbers\n")
