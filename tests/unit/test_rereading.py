"""Each digit of a line is read again, alone."""

from pathlib import Path

import numpy as np
import pytest

from worker.dataset import load_mnist
from worker.numbers.finding import Candidates
from worker.numbers.rereading import cut_digit, read_again
from worker.pictures import Grey

COUNT = 40


def place(digits: Grey, light: bool) -> tuple[Grey, np.ndarray]:
    """Digits of 28×28 px twice as large in a row, and a box around the ink of each."""
    picture = np.full((80, 60 * len(digits)), 200, np.uint8)
    boxes = []
    for number, digit in enumerate(digits):
        large = digit.repeat(2, axis=0).repeat(2, axis=1)
        top, left = 12, 60 * number
        picture[top : top + 56, left : left + 56] -= (large * np.float32(0.6)).astype(np.uint8)
        rows, columns = np.nonzero(large > 60)
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        boxes.append(np.add(edges, (left, top, left, top)))
    return 255 - picture if light else picture, np.array(boxes, np.float32)


@pytest.mark.parametrize("light", [False, True])
def test_the_second_reader_decides_where_the_first_does_not_know(
    light: bool, mnist_root: Path
) -> None:
    images, labels = (tensor.numpy()[:COUNT] for tensor in load_mnist("test"))
    picture, boxes = place(images, light)
    unknown = np.full((COUNT, 10), 0.1, np.float32)
    line = Candidates(np.ones(COUNT, np.float32), unknown, np.zeros(COUNT, np.float32), boxes)
    again = read_again(picture, line)
    assert (again.digits.argmax(1) == labels).mean() >= 0.95
    assert np.allclose(again.digits.sum(1), 1, atol=1e-5)
    assert again.boxes is line.boxes and np.allclose(again.chances, line.chances, atol=1e-3)

    certain = line._replace(digits=np.eye(10, dtype=np.float32)[(labels + 1) % 10])
    assert (read_again(picture, certain).digits.argmax(1) == (labels + 1) % 10).all()


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (-9, -9, 3, 500), (700, 90, 900, 99)])
def test_any_box_can_be_cut(box: tuple[int, ...]) -> None:
    blank = np.full((80, 600), 255, np.uint8)
    ink, _ = cut_digit(blank, np.array(box, np.float32))
    assert not ink.any()
    noise = np.random.default_rng(0).integers(0, 256, (80, 600), np.uint8)
    ink, _ = cut_digit(noise, np.array(box, np.float32))
    assert ink.shape == (28, 28)


def test_what_is_much_fainter_than_the_other_digits_is_less_likely_a_digit(
    mnist_root: Path,
) -> None:
    picture, boxes = place(load_mnist("test")[0].numpy()[:3], light=False)
    picture[:, :60] = 200 - (200 - picture[:, :60]) // 4
    sure = np.full(3, 0.9, np.float32)
    line = Candidates(sure, np.full((3, 10), 0.1, np.float32), np.zeros(3, np.float32), boxes)
    first, *others = read_again(picture, line).chances
    assert first < 0.55 and np.allclose(others, 0.9, atol=1e-3)


def test_nothing_is_read_again_where_nothing_was_found() -> None:
    nothing = np.zeros((0, 10), np.float32)
    line = Candidates(nothing[:, 0], nothing, nothing[:, 0], nothing[:, :4])
    assert read_again(np.zeros((9, 9), np.uint8), line) is line
