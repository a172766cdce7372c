"""Going on with one's own numbers."""

import json
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner

from protocol.chunk import FILES_SCHEMA, Chunk, write_chunk
from training.rendered import Scene, render_scenes
from training.synthetic import rendering
from worker.commands import train
from worker.learning import own_numbers
from worker.learning.own_numbers import place_digits
from worker.models.card import read_card
from worker.models.number import load_networks, read_networks


@pytest.fixture
def scenes(mnist_root: Path) -> list[Scene]:
    return [scene for scene in render_scenes(True, (5,), 60) if not scene.doubt]


def test_the_digits_of_a_known_number_are_found(scenes: list[Scene]) -> None:
    reader, _ = load_networks()
    placed, right = 0, 0
    for scene in scenes[:15]:
        bare = scene._replace(signs=[], boxes=np.zeros((0, 4), np.float32))
        if found := place_digits(reader, bare):
            boxes = scene.boxes[: len(scene.number)]
            middles = [(part[:, 0] + part[:, 2]) / 2 for part in (found.boxes, boxes)]
            width = np.median(boxes[:, 3] - boxes[:, 1])
            assert "".join(map(str, found.signs)) == scene.number
            placed += 1
            right += bool(np.abs(middles[0] - middles[1]).max() < width / 2)
    assert placed >= 10 and right >= 0.8 * placed
    longer = scenes[0]._replace(number=scenes[0].number + "123")
    assert place_digits(reader, longer) is None


@pytest.mark.slow
def test_own_numbers_are_learned_beside_rendered_ones(
    scenes: list[Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "usable_cores", lambda: 1)
    monkeypatch.setattr(own_numbers, "RECIPE", replace(own_numbers.RECIPE, scenes=60))
    monkeypatch.setattr(own_numbers, "CALIBRATING_SCENES", 60)
    images = [cv2.imencode(".png", scene.picture)[1].tobytes() for scene in scenes[:30]]
    names = [f"{place}.png" for place in range(len(images))]
    columns = [names, images, pa.nulls(len(names), pa.string()), [s.number for s in scenes[:30]]]
    task = {"name": "number", "out": str(tmp_path), "seed": 2, "epochs": 1, "command": "new"}
    with TemporaryFile() as file:
        write_chunk(file, Chunk(0, pa.record_batch(columns, FILES_SCHEMA)))
        file.seek(0)
        result = CliRunner().invoke(train, [json.dumps(task | {"images": os.dup(file.fileno())})])
    assert result.exit_code in (0, 1), result.output
    assert "your 6 images held back" in result.stderr
    assert "rendered numbers" in result.stderr
    assert not (tmp_path / "number.partial").exists()
    if result.exit_code == 0:  # else it had become worse
        monkeypatch.setenv("DIGITQ_WEIGHTS", str(tmp_path))
        card = read_card(tmp_path / "number.json")
        assert card.own_images == 30 and card.command and card.command.endswith("; new")
        network, _ = read_networks()
        assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
