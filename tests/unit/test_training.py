import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from worker.models import Card, read_model
from worker.training import Distorter, Recipe, main, train_network


def draw_bars(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that are easy to tell apart: label n is a bar in the n-th pair of rows."""
    labels = torch.arange(count) % 10
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[4 + 2 * label : 6 + 2 * label, 6:22] = 255
    return images, labels


def test_training_learns(capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = draw_bars(600)
    still = Recipe(
        batch_rows=50,
        first_rate=1e-2,
        second_rate=0.3,
        averaged=0.9,
        rotation_degrees=1.0,
        stretch=0.0,
        shear=0.0,
        shift_pixels=0.1,
        elastic_pixels=0.1,
    )
    network, accuracy = train_network(images, labels, seed=0, epochs=6, recipe=still)
    lines = capsys.readouterr().err.splitlines()
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == 6
    assert losses[-1] < losses[0] / 4
    assert accuracy > 0.95
    assert (network(images.flatten(1)).argmax(1) == labels).float().mean() > 0.95


def test_a_seed_decides_the_weights() -> None:
    images, labels = draw_bars(120)
    first, again, other = (
        train_network(images, labels, seed, epochs=1, recipe=Recipe())[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first.w1, again.w1)
    assert torch.equal(first.w2, again.w2)
    assert not torch.equal(first.w1, other.w1)


def test_distortions_keep_shape_and_range() -> None:
    torch.manual_seed(0)
    images, _ = draw_bars(200)
    distorted = Distorter(Recipe())(images)
    assert distorted.shape == (200, 784)
    assert distorted.min() >= 0 and 200 < distorted.max() <= 255.01
    kept = distorted.sum(1) / images.flatten(1).float().sum(1)
    assert 0.8 < kept.mean() < 1.2  # the ink is still there


def test_distortions_differ_from_image_to_image() -> None:
    torch.manual_seed(0)
    images = draw_bars(1)[0].expand(50, 28, 28)
    distorted = Distorter(Recipe())(images)
    assert len(torch.unique(distorted, dim=0)) == 50


def test_a_distortion_of_nothing_is_the_image() -> None:
    images, _ = draw_bars(20)
    nothing = Recipe(rotation_degrees=0, stretch=0, shear=0, shift_pixels=0, elastic_pixels=0)
    expected = images.flatten(1).float()
    torch.testing.assert_close(Distorter(nothing)(images), expected, atol=0.05, rtol=0)


def test_elastic_pixels_is_how_far_a_pixel_moves() -> None:
    torch.manual_seed(0)
    distorter = Distorter(Recipe(elastic_pixels=2.0))
    mix = distorter.draw_mix(500)[:, :, 3:]
    moved = mix @ distorter.fields[3:] * 14  # half a side is 14 pixels
    assert moved.std(0).mean().item() == pytest.approx(2.0, rel=0.05)


def test_the_command_writes_weights_and_a_complete_card(mnist_root: Path, tmp_path: Path) -> None:
    arguments = ["mlp", "--seed", "3", "--epochs", "1", "--limit-images", "1200"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    assert "epoch 1/1" in result.stderr
    assert result.stdout == ""

    card = read_model(tmp_path / "new" / "mlp.json").card
    assert isinstance(card, Card)
    assert None not in json.loads((tmp_path / "new" / "mlp.json").read_text()).values()
    assert card.seed == 3
    assert card.command == f"python -m worker.training {' '.join(arguments)} --out DIR"
    assert card.test_accuracy is not None and 0.05 < card.test_accuracy < 1
    assert card.validation_accuracy is not None and 0.05 < card.validation_accuracy < 1


def test_the_command_refuses_a_name_it_cannot_train(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["random", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())
