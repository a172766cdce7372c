"""The rendered pictures of whole numbers: what is in them, and where."""

import numpy as np
import pytest

from worker.training.synthetic.numbers import render_number

SHAPES = np.zeros((40, 28, 28), np.uint8)
SHAPES[:, 4:24, 12:16] = SHAPES[:, 20:24, 8:20] = 255
LABELS = np.arange(40) % 10


@pytest.mark.parametrize("seed", range(40))
def test_each_digit_has_a_box_inside_the_picture(seed: int) -> None:
    scene = render_number(SHAPES, LABELS, np.random.default_rng(seed))
    height, width = scene.picture.shape[:2]
    assert scene.picture.dtype == np.uint8 and height >= 8 and width >= 8
    assert scene.boxes.shape == (len(scene.digits), 4)
    assert (scene.boxes >= 0).all() and (scene.boxes <= (width, height, width, height)).all()
    assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_gives_the_same_bits(seed: int) -> None:
    one, other = (render_number(SHAPES, LABELS, np.random.default_rng(seed)) for _ in range(2))
    assert one.picture.tobytes() == other.picture.tobytes()
    assert one.digits == other.digits and (one.boxes == other.boxes).all()
