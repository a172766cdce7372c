"""The rendered training pictures: drawn digits, scenes of digits, and shapes that are no digit."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.drawing import draw_bars
from training.synthetic import rendering
from training.synthetic.handwriting import (
    GLYPHS,
    LETTERS,
    SHAPE_SIDE,
    draw_digit,
    smooth,
)
from training.synthetic.outliers import NEGATIVES, letter, scribble
from training.synthetic.rendering import NO_DIGIT, render_block, render_set
from training.synthetic.scenes import PICTURE_KINDS, crop, enlarge, warp

DIGIT = np.zeros((28, 28), np.uint8)
DIGIT[4:24, 12:16] = DIGIT[20:24, 8:20] = 255


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("label", range(10))
def test_each_digit_is_drawn_in_several_ways(label: int) -> None:
    drawn = [draw_digit(label, rng(seed)) for seed in range(30)]
    assert len({digit.tobytes() for digit in drawn}) == 30
    assert len(GLYPHS[label]) >= 3
    for digit in drawn:
        assert digit.shape == (SHAPE_SIDE, SHAPE_SIDE) and 0.01 < (digit > 127).mean() < 0.5


def test_letters_and_scribbles_are_drawn() -> None:
    for draw in (letter, scribble):
        assert len({draw(DIGIT, DIGIT, rng(seed)).tobytes() for seed in range(40)}) > 30
    assert len(LETTERS) > 15


def test_a_curve_goes_through_its_points_and_round_no_corner() -> None:
    points = np.array([(0, 0), (10, 0), (10, 0), (10, 10), (0, 10)], float)
    curve = smooth(points)
    for point in points:
        assert np.abs(curve - point).sum(axis=1).min() < 1e-9
    before_the_corner = curve[: len(curve) // 4]
    assert np.abs(before_the_corner[:, 1]).max() < 1e-9


def test_an_enlarged_digit_has_thinner_and_thicker_strokes() -> None:
    areas = [(enlarge(DIGIT, rng(seed)) > 127).mean() for seed in range(40)]
    plain = (DIGIT > 127).mean()
    assert min(areas) < 0.6 * plain and max(areas) > 1.4 * plain and min(areas) > 0


@pytest.mark.parametrize("kind", PICTURE_KINDS)
def test_pictures_are_of_many_sizes_and_show_the_digit(kind: str) -> None:
    shapes = set()
    for seed in range(40):
        random = rng(seed)
        shape = warp(enlarge(DIGIT, random), random)
        picture = PICTURE_KINDS[kind](shape, shape, random)
        assert picture.dtype == np.uint8 and picture.ndim in (2, 3) and min(picture.shape[:2]) >= 8
        assert np.ptp(picture) > 20
        shapes.add(picture.shape)
    assert len(shapes) > 3


@pytest.mark.parametrize("other", NEGATIVES)
def test_there_is_something_to_see_that_is_no_digit(other) -> None:  # type: ignore[no-untyped-def]
    mask = crop(enlarge(DIGIT, rng()))
    seen = [other(mask, mask, rng(seed)) for seed in range(20)]
    assert all(picture.any() for picture in seen)


def test_a_block_has_each_digit_and_what_is_none() -> None:
    images, labels = draw_bars(100)
    rendered, known = render_block(images.numpy(), labels.numpy(), seed=1)
    assert rendered.shape == (len(known), 28, 28) and rendered.dtype == np.uint8
    assert 80 <= (known != NO_DIGIT).sum() <= 100 and 15 <= (known == NO_DIGIT).sum() <= 20


@pytest.mark.slow
def test_a_seed_decides_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """In other processes, which take long to start, and in a thread of this one."""
    images, labels = (tensor.numpy() for tensor in draw_bars(60))
    first = render_set(images, labels, 1, copies=2)
    monkeypatch.setattr(rendering, "start_processes", lambda: ThreadPoolExecutor(1))
    again, other = (render_set(images, labels, seed, copies=2) for seed in (1, 2))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert 100 < len(first[0]) <= 144
