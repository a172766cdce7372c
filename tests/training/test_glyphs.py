"""Real hands to learn from: which glyphs are drawn, and what the networks see of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from digitq.protocol.errors import UsageError
from digitq.worker.learning.courses import MlpRecipe
from tests.drawing import draw_bars, write_glyphs
from training.hands import choose_glyphs, load_glyphs
from training.recipes import Course
from training.synthetic.rendering import normalise_glyphs
from training.trainer import prepare_data

COURSE = Course(MlpRecipe(), copies=0)


def test_small_sources_count_for_more_than_their_size(tmp_path: Path) -> None:
    write_glyphs(tmp_path, "large", 80)
    write_glyphs(tmp_path, "small", 20)
    sources = load_glyphs((tmp_path,), held_back=False)
    images, labels, shares = choose_glyphs(sources, 3000, np.random.default_rng(0))
    assert shares == pytest.approx({"large": 2 / 3, "small": 1 / 3})
    assert images.shape == (3000, 56, 56) and set(labels.tolist()) == {*range(10)}
    # Writers 18 and later are those of the large source alone
    assert (images.max((1, 2)) >= 118).mean() == pytest.approx(2 / 3 * 54 / 72, abs=0.03)


def test_a_worker_sees_a_glyph_as_it_sees_mnist(tmp_path: Path) -> None:
    write_glyphs(tmp_path, "one", 10)
    sources = load_glyphs((tmp_path,), held_back=False)
    images, labels, _ = choose_glyphs(sources, 50, np.random.default_rng(0))
    seen, answers = normalise_glyphs(images, labels)
    assert seen.shape == (50, 28, 28) and answers.tolist() == labels.tolist()
    rows = np.flatnonzero(seen[0].max(1))
    assert 19 <= rows[-1] - rows[0] + 1 <= 21
    mass = seen.sum((1, 2), dtype=float)
    assert np.allclose((seen.sum(1) @ np.arange(28)) / mass, 14, atol=1)


def test_real_hands_are_learned_beside_mnist_and_some_writers_are_held_back(tmp_path: Path) -> None:
    write_glyphs(tmp_path, "large", 40)
    write_glyphs(tmp_path, "small", 10)
    images, labels = draw_bars(120)
    data = prepare_data(images, labels, 0, COURSE, (tmp_path,))
    assert data.sources == pytest.approx({"MNIST": 2 / 3, "large": 2 / 9, "small": 1 / 9})
    assert [len(part[0]) for part in data[:3]] == [150, 0, 30] and data.mnist_rows == 20
    known, (_, held_back) = data.name_targets()
    assert known.images.shape == (150, 28, 28) and known.targets.sum(1).allclose(torch.ones(150))
    assert len(held_back) == 30
    assert prepare_data(images, labels, 0, COURSE).sources == {"MNIST": 1.0}


def test_a_folder_without_glyphs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "glyphs").mkdir()
    with pytest.raises(UsageError, match="no glyphs"):
        prepare_data(*draw_bars(120), 0, COURSE, (tmp_path,))
