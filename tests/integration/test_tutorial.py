import os
import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def walk(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The tutorial's output, and the picture that it saved."""
    picture = tmp_path_factory.getbasetemp() / "first.png"
    return run_tutorial(picture), picture


@cache
def run_tutorial(picture: Path) -> str:
    result = subprocess.run(
        [sys.executable, "examples/tutorial.py", str(picture)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def read_probabilities(name: str, output: str) -> list[float]:
    found = re.search(rf"^{name}: \[([^]]*)\]", output, re.MULTILINE)
    assert found is not None, output
    return [float(word) for word in found[1].split()]


def test_help_is_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tutorial.py", "--help"])
    with pytest.raises(SystemExit, match="^0$"):
        runpy.run_path(str(ROOT / "examples/tutorial.py"), run_name="__main__")


def test_the_shapes_are_the_tutorials(walk: tuple[str, Path]) -> None:
    lines = walk[0].splitlines()
    assert lines[:2] == ["torch.Size([64, 1, 28, 28])", "torch.Size([64])"]
    assert lines[2] == "torch.Size([1, 28, 28])"
    assert "(1, 784)" in lines


def test_the_first_image_is_drawn_as_it_is_saved(walk: tuple[str, Path]) -> None:
    output, path = walk
    drawn = output.splitlines()[3:31]
    saved = np.asarray(Image.open(path))
    assert saved.shape == (28, 28)
    for line, row in zip(drawn, saved, strict=True):
        inked = [line[2 * column : 2 * column + 2].strip() != "" for column in range(28)]
        assert inked == (row * 5.0 >= 256).tolist()


def test_the_random_network_gives_ten_probabilities(walk: tuple[str, Path]) -> None:
    probabilities = read_probabilities("random", walk[0])
    assert len(probabilities) == 10
    assert sum(probabilities) == pytest.approx(1, abs=0.01)
    assert "they sum to 1.00000" in walk[0]


def test_the_trained_network_reads_the_digit(walk: tuple[str, Path]) -> None:
    probabilities = read_probabilities("mlp", walk[0])
    label = int(walk[0].rstrip()[-1])
    assert probabilities.index(max(probabilities)) == label
    assert f"it is a {label}" in walk[0]
