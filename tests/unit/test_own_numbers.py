"""Going on with one's own numbers."""

import json
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from protocol.chunk import FILES_SCHEMA, Chunk, write_chunk
from worker.commands import train
from worker.learning import own_numbers
from worker.learning.own import Trained
from worker.learning.own_numbers import REHEARSAL_FILE, load_rehearsal, place_digits
from worker.models.card import read_card
from worker.models.number import STRIDE, STRIP_HEIGHT, load_networks, read_number_weights

REHEARSAL = load_rehearsal()


def test_what_is_rehearsed_can_be_learned() -> None:
    assert REHEARSAL_FILE.stat().st_size < 4e6
    assert len(REHEARSAL.strips) > 1_500 and len(REHEARSAL.pictures) > 250
    for strip in REHEARSAL.strips:
        assert strip.values.shape[0] == STRIP_HEIGHT and strip.values.shape[1] % STRIDE == 0
        assert len(strip.text) == len(strip.middles) > 0
        assert (np.diff(strip.middles) > 0).all()
        assert strip.middles.min() > -STRIDE and strip.middles.max() < strip.values.shape[1] + 2


def test_the_digits_of_a_known_number_are_found() -> None:
    reader, _ = load_networks()
    pictures = REHEARSAL.pictures[:15]
    placed = [one for one in (place_digits(reader, picture) for picture in pictures) if one]
    assert len(placed) >= 10
    middles = [(one.boxes[:, 0] + one.boxes[:, 2]) / 2 for one in placed]
    assert [len(one) for one in middles] == [len(one.number) for one in placed]
    in_order = [bool((np.diff(one) > 0).all()) for one in middles]
    assert sum(in_order) >= 0.7 * len(placed)  # else two digits have the box of one candidate
    longer = pictures[0]._replace(number=pictures[0].number + "123")
    assert place_digits(reader, longer) is None


@pytest.mark.slow
def test_own_numbers_are_learned_beside_rendered_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers in mirror writing: the detector finds most of them, but few are read."""
    few = REHEARSAL._replace(strips=REHEARSAL.strips[:200], pictures=REHEARSAL.pictures[:40])
    monkeypatch.setattr(own_numbers, "load_rehearsal", lambda: few)
    train_own = own_numbers.train_own_numbers

    def train_better(*arguments: Any) -> Trained:  # so little makes nothing better
        trained = train_own(*arguments)
        return trained._replace(card=replace(trained.card, own_accuracy_before=-1.0))

    monkeypatch.setattr(own_numbers, "train_own_numbers", train_better)
    own = [one for one in REHEARSAL.pictures[40:] if len(one.number) < 6][:60]
    images = [cv2.imencode(".png", one.picture[:, ::-1])[1].tobytes() for one in own]
    names = [f"{place}.png" for place in range(len(images))]
    numbers = [one.number[::-1] for one in own]
    columns = [names, images, pa.nulls(len(names), pa.string()), numbers]
    task = {"name": "number", "out": str(tmp_path), "seed": 2, "epochs": 1, "command": "new"}
    with TemporaryFile() as file:
        write_chunk(file, Chunk(0, pa.record_batch(columns, FILES_SCHEMA)))
        file.seek(0)
        result = CliRunner().invoke(train, [json.dumps(task | {"images": os.dup(file.fileno())})])
    assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "number.json")
    ((reason, left_out),) = card.own_left_out.items()
    assert f"{left_out} images left out ({reason})" in result.stderr
    assert (card.own_images + left_out, card.own_held_back) == (48, 12)
    assert card.command and card.command.endswith("; new")
    monkeypatch.setenv("DIGITQ_WEIGHTS", str(tmp_path))
    weights, _ = read_number_weights()
    assert all(np.isfinite(value).all() for value in weights.values())
