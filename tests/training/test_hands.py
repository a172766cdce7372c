"""Real handwriting beside MNIST's: folders of digits, numbers and papers."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from digitq.protocol.errors import UsageError
from digitq.worker.learning.column_batches import NO_BOXES, batch_strips, measure_losses
from digitq.worker.learning.number_examples import (
    MAX_MISSED,
    PlacedNumber,
    RealNumber,
    cut_number,
    place_number,
)
from digitq.worker.learning.own_numbers import load_rehearsal
from digitq.worker.models.number_networks import (
    ALPHABET,
    BLANK,
    COLUMNS_SIZE,
    load_networks,
)
from training import hands
from training.hands import load_glyphs, load_numbers, load_papers
from training.number_trainer import choose_numbers, to_scene
from training.synthetic import writing
from training.synthetic.number_scenes import render_number
from training.synthetic.writing import Scripts, choose_hand

WRITERS = 20
PAPER = np.full((40, 90), 200, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Two sources of digits by 20 writers each, a source of numbers, and a paper."""
    for part in ("glyphs", "strings/forms", "strings/cheques", "backgrounds/desk"):
        (tmp_path / part).mkdir(parents=True)
    images = np.zeros((WRITERS * 10, 48, 48), np.uint8)
    images[:, 4:44, 20:28] = 255
    labels = np.arange(len(images)) % 10
    names = [f"writer {row // 10:02}" for row in range(len(images))]
    for source in ("one", "two"):
        np.savez(tmp_path / f"glyphs/{source}.npz", image=images, label=labels, writer=names)
    for source, texts in (("forms", ["12.5", "7 (30)"]), ("cheques", ["125", "9"])):
        lines = ["path,text,writer"]
        for row in range(WRITERS):
            cv2.imwrite(str(tmp_path / f"strings/{source}/{row}.png"), PAPER)
            lines.append(f"{row}.png,{texts[row % 2]},writer {row:02}")
        (tmp_path / f"strings/{source}/labels.csv").write_text("\n".join(lines))
    cv2.imwrite(str(tmp_path / "backgrounds/desk/1.png"), PAPER)
    yield tmp_path
    for load in (load_glyphs, load_papers):
        load.cache_clear()


def test_a_tenth_of_the_writers_is_held_back(folder: Path) -> None:
    for part, count in ((False, 18), (True, 2)):
        sources = load_glyphs((folder,), part)
        assert [len(source.writers) for source in sources] == [count, count]
        assert all(len(digit) == 1 for digit in sources[0].writers[0])
        numbers = [*load_numbers([folder], part)]
        assert len(numbers) == 2 * count
    assert len([*load_numbers([folder], None)]) == 2 * WRITERS


def test_numbers_have_signs_if_their_source_tells_any(folder: Path) -> None:
    numbers = [*load_numbers([folder], None)]
    assert {(one.source, one.text, one.knows_signs) for one in numbers} == {
        *(("forms", text, True) for text in ("12.5", "730")),  # brackets are not read
        *(("cheques", text, False) for text in ("125", "9")),
    }


def test_a_table_without_texts_is_refused(folder: Path) -> None:
    table = folder / "strings/forms/labels.csv"
    table.write_text("path,writer\n1.png,one\n")
    with pytest.raises(UsageError, match="labels.csv has no column 'text'"):
        [*load_numbers([folder], None)]
    table.write_text("path,text,writer\nmissing.png,12,one\n")
    with pytest.raises(UsageError, match="missing.png can't be read"):
        [*load_numbers([folder], None)]


def test_hands_are_those_of_real_writers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "REAL_SHARE", 1)
    rng = np.random.default_rng(0)
    none = np.zeros((40, 28, 28), np.uint8), np.arange(40) % 10
    scripts = Scripts(*none, load_glyphs((folder,), False))
    for _ in range(20):
        real = [each for each in choose_hand(scripts, rng).examples if len(each)]
        assert len(real) >= 8 and all(each.shape[1:] == (56, 56) and each.any() for each in real)
    scene = render_number(scripts, rng, papers=load_papers((folder,)))
    assert scene.picture.std() > 1


def test_a_writer_borrows_the_digits_that_he_has_not(folder: Path) -> None:
    (source, _) = load_glyphs((folder,), False)
    source.writers[0][7] = source.writers[0][7][:0]
    for _ in range(30):
        assert len(source.choose_digits(np.random.default_rng(0))[7]) == 1


def place(text: str, source: str = "forms", knows_signs: bool = True) -> PlacedNumber:
    boxes = np.array([(120 + 12 * i, 8, 130 + 12 * i, 30) for i in range(len(text))], np.float32)
    return PlacedNumber(
        RealNumber(np.full((40, 300), 200, np.uint8), text, knows_signs, source), boxes, True
    )


def test_of_a_large_source_fewer_are_drawn() -> None:
    numbers = [place("1", "large")] * 400 + [place("2", "small")] * 100
    drawn = choose_numbers(numbers, 3_000, np.random.default_rng(0))
    share = sum(one.real.source == "large" for one in drawn) / len(drawn)
    assert 0.62 < share < 0.71
    assert choose_numbers([], 5, np.random.default_rng(0)) == []


def test_real_numbers_are_found_as_far_as_the_networks_can() -> None:
    scenes = [scene for scene in load_rehearsal()[1] if not scene.doubt][:12]
    real = [RealNumber(one.picture, one.text, True, "rendered") for one in scenes]
    real.append(RealNumber(PAPER, "12", True, "empty"))
    found = [place_number(load_networks()[0], one) for one in real]
    placed = [one for one in found if one]
    assert 6 <= len(placed) <= 12
    exact = [one for one in placed if one.is_exact]
    assert len(exact) >= 4
    for one in exact:
        scene = to_scene(one)
        assert [*map(str, scene.signs)] == [sign for sign in one.real.text if sign.isdecimal()]
        assert (np.diff(scene.boxes[:, 0]) > 0).all()
    for one in placed:
        digits = sum(sign.isdecimal() for sign in one.real.text)
        assert abs(len(one.digits) - digits) <= MAX_MISSED


def test_middles_are_learned_of_digits_that_are_exactly_placed() -> None:
    rng = np.random.default_rng(1)
    assert len(cut_number(place("125"), rng, COLUMNS_SIZE).middles) == 3
    assert not len(
        cut_number(place("12.5")._replace(digits=place("125").digits), rng, COLUMNS_SIZE).middles
    )
    inexact = place("125")._replace(is_exact=False)
    for seed in range(5):
        exact, longer = (
            cut_number(one, np.random.default_rng(seed), COLUMNS_SIZE)
            for one in (place("125"), inexact)
        )
        assert not len(longer.middles) and len(longer.values[0]) > len(exact.values[0]) + 20


class Spelling(nn.Module):
    """Shows each class of a text in every third column, and none between."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), BLANK + 1, 1, images.shape[3] // 2)
        logits[:, BLANK] = 9
        for place, sign in enumerate(self.text):
            logits[:, ALPHABET.index(sign), 0, 3 * place + 1] = 18
        return logits


def test_signs_that_are_not_known_are_passed_over() -> None:
    rng = np.random.default_rng(2)
    losses = {}
    for knows_signs in (True, False):
        strip = cut_number(place("125"), rng, COLUMNS_SIZE)._replace(middles=NO_BOXES[:, 0])
        (batch,) = batch_strips([strip._replace(knows_signs=knows_signs)], rng)
        losses[knows_signs] = float(measure_losses(Spelling("12.5"), batch)[0])
    assert losses[False] < 0.1 and losses[True] > 1


def test_the_share_of_held_back_writers_is_of_each_source() -> None:
    names = ["a"] * 5 + ["b"] * 5
    assert not hands.split_writers(names, True).any()  # two writers are too few
    assert hands.split_writers(names, False).all()
