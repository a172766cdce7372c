import dataclasses
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tests.drawing import draw_bars
from worker.distortion import Distortion
from worker.models import Card, read_model
from worker.training import CnnRecipe, MlpRecipe, Recipe, main, train_network

STILL = Distortion(
    rotation_degrees=1.0, stretch=0.0, shear=0.0, shift_pixels=0.1, elastic_pixels=0.1
)


@pytest.mark.parametrize(
    ("recipe", "epochs"),
    [
        (MlpRecipe(batch_rows=50, first_rate=1e-2, averaged=0.9, distortion=STILL), 6),
        (CnnRecipe(batch_rows=50, averaged=0.9, bfloat16=False, distortion=STILL), 5),
    ],
    ids=["mlp", "cnn"],
)
def test_training_learns(recipe: Recipe, epochs: int, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = draw_bars(600)
    network, accuracy = train_network(images, labels, seed=0, epochs=epochs, recipe=recipe)
    lines = capsys.readouterr().err.splitlines()
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == epochs
    assert losses[-1] < losses[0] / 4
    assert accuracy > 0.95
    assert (network(images.flatten(1)).argmax(1) == labels).float().mean() > 0.95


@pytest.mark.parametrize("recipe", [MlpRecipe(), CnnRecipe()], ids=["mlp", "cnn"])
def test_a_seed_decides_the_weights(recipe: Recipe) -> None:
    images, labels = draw_bars(120)
    first, again, other = (
        train_network(images, labels, seed, epochs=1, recipe=recipe)[0].state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_command_writes_weights_and_a_complete_card(
    name: str, mnist_root: Path, tmp_path: Path
) -> None:
    arguments = [name, "--seed", "3", "--epochs", "1", "--limit-images", "1200"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    assert "epoch 1/1" in result.stderr
    assert result.stdout == ""

    model = read_model(tmp_path / "new" / f"{name}.json")
    assert isinstance(model.card, Card)
    assert None not in dataclasses.asdict(model.card).values()
    assert model.card.seed == 3
    assert model.card.architecture == model.network.architecture
    assert model.card.command == f"python -m worker.training {' '.join(arguments)} --out DIR"
    assert model.card.test_accuracy is not None and 0.05 < model.card.test_accuracy < 1
    assert model.card.validation_accuracy is not None and 0.05 < model.card.validation_accuracy < 1


def test_the_command_refuses_a_name_it_cannot_train(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["random", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())
