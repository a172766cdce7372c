"""Single digits that are cut out of real numbers."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from digitq.worker.learning.number_examples import PlacedNumber, RealNumber
from digitq.worker.learning.own_numbers import load_rehearsal
from training import neighbourhoods
from training.neighbourhoods import MIN_CUT_HEIGHT, cut_digit, cut_set

SHADES = 0, 60, 120  # the grey values of three digits side by side


def place_bars() -> PlacedNumber:
    """Three bars of 10×40 px, 4 px apart."""
    picture = np.full((60, 60), 255, np.uint8)
    boxes = [(10 + 14 * place, 10, 20 + 14 * place, 50) for place in range(3)]
    for (left, top, right, bottom), shade in zip(boxes, SHADES, strict=True):
        picture[top:bottom, left:right] = shade
    number = RealNumber(picture, "111", True, "bars")
    return PlacedNumber(number, np.array(boxes, np.float32), True)


def test_a_digit_is_cut_out_with_parts_of_its_neighbours() -> None:
    pictures = [cut_digit(place_bars(), 1, np.random.default_rng(seed)) for seed in range(60)]
    assert all(picture.shape[0] >= MIN_CUT_HEIGHT and picture.shape[1] >= 8 for picture in pictures)
    assert len({picture.shape for picture in pictures}) > 30
    middles = [int(picture[len(picture) // 2, picture.shape[1] // 2]) for picture in pictures]
    assert np.mean([abs(middle - SHADES[1]) < 5 for middle in middles]) > 0.7  # else at the edge
    shows = [(picture < SHADES[0] + 20).any() for picture in pictures]
    assert 0.2 < np.mean(shows) < 0.9


def test_digits_of_numbers_are_learned_as_a_worker_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbourhoods, "start_processes", lambda: ThreadPoolExecutor(1))
    (images, labels), counts = cut_set([tmp_path], 0, False)
    assert images.shape == (0, 28, 28) and labels.shape == (0,) and not counts
    folder = tmp_path / "strings/forms"
    folder.mkdir(parents=True)
    scenes = [scene for scene in load_rehearsal()[1] if scene.number and not scene.doubt][:10]
    lines = ["path,text,writer"]
    for row, scene in enumerate(scenes):
        cv2.imwrite(str(folder / f"{row}.png"), scene.picture)
        lines.append(f"{row}.png,{scene.text},writer {row}")
    (folder / "labels.csv").write_text("\n".join(lines))
    (images, labels), counts = cut_set([tmp_path], 0, False)
    assert images.shape == (len(labels), 28, 28) and images.max(axis=(1, 2)).min() > 100
    assert counts == {"forms": len(labels)}
    written = "".join(scene.number for scene in scenes[:9])  # one writer of ten is held back
    assert len(written) / 4 < len(labels) <= len(written)
    assert {*map(str, labels.tolist())} <= {*written}
    again, _ = cut_set([tmp_path], 0, False)
    assert np.array_equal(again[0], images)
