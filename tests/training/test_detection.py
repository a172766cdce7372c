"""What the detector of digits learns from, and a short training of it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from digitq.protocol.errors import UsageError
from digitq.worker.learning import column_batches
from digitq.worker.learning.columns import Columns, fold
from digitq.worker.models.card import card_path, read_card
from digitq.worker.models.number_networks import CELL, COLUMNS_SIZE, SIZE_UNIT, divide
from tests.scenes import draw_scene
from training import epochs, number_trainer
from training.detector import Detector
from training.detector_batches import make_batches, measure_losses
from training.epochs import SceneLearner, ScenesRecipe, make_optimisers, save
from training.muon import Muon, make_orthogonal
from training.number_trainer import (
    EXPERT_TUNING_RECIPE,
    TUNING_RECIPE,
    RealNumbers,
    read_networks,
    train_expert,
    train_networks,
    train_number,
)
from training.rendered import render_scenes


def test_targets_are_where_the_digits_are() -> None:
    scenes = [draw_scene([number % 10] * (number % 4)) for number in range(40)]
    batches = make_batches(scenes, np.random.default_rng(0))
    assert sum(len(batch.images) for batch in batches) == len(scenes)
    for batch in batches:
        middles = (batch.heat == 1).nonzero()
        assert batch.images.shape[2:] == tuple(CELL * side for side in batch.heat.shape[1:])
        for picture, row, column in middles.tolist():
            mine = (batch.places == torch.tensor([picture, row, column])).all(1).nonzero()
            left, top, right, bottom = (batch.edges[mine[0, 0]] * SIZE_UNIT).tolist()
            x, y = (column + 0.5) * CELL, (row + 0.5) * CELL
            inside = batch.images[
                picture, 0, int(y - top) + 1 : int(y + bottom), int(x - left) + 1 : int(x + right)
            ]
            around = batch.images[picture, 0]
            assert abs(inside.mean() - around.mean()) > 0.3


def test_a_batch_without_digits_has_a_loss() -> None:
    (batch,) = make_batches([draw_scene([])], np.random.default_rng(0))
    losses = measure_losses(Detector(), batch)
    assert all(torch.isfinite(loss) for loss in losses) and losses[1:] == (0, 0)


def test_folding_and_scaling_keep_the_answers() -> None:
    torch.manual_seed(0)
    network, image = Detector(), torch.randn(2, 1, 48, 96)
    network(image)  # gives the normalisations something to merge
    network.eval()
    with torch.no_grad():
        before = divide(network(image))
        after = divide(fold(network)(image))
        assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        assert all(weight.requires_grad for weight in network.parameters())
        assert torch.allclose(before.middle, after.middle, atol=1e-4)
        network.scale(2, 1, 3)
        scaled = divide(network(image))
    assert torch.allclose(scaled.middle, 2 * before.middle + 1, atol=1e-3)
    assert torch.allclose(scaled.signs, 3 * before.signs, atol=1e-3)
    assert torch.allclose(scaled.edges, before.edges, atol=1e-4)


def test_scenes_have_all_whole_digits(mnist_root: Path) -> None:
    scenes = render_scenes(True, (), (1,), 60)
    assert all(len(scene.signs) == len(scene.boxes) >= len(scene.number) for scene in scenes)
    assert any(scene.number and not scene.doubt for scene in scenes)
    again = render_scenes(True, (), (1,), 60)
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(scenes, again, strict=True))


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes are rendered in a thread of this process: a process takes long to start."""
    for module in (epochs, number_trainer):
        monkeypatch.setattr(module, "start_processes", lambda: ThreadPoolExecutor(1))


def test_muon_makes_a_step_equally_long_in_all_directions() -> None:
    torch.manual_seed(0)
    for shape in ((8, 40), (40, 8)):
        uneven = torch.randn(shape) * torch.logspace(0, 1.5, shape[1])
        step = make_orthogonal(uneven)
        left, _, right = torch.linalg.svd(uneven, full_matrices=False)
        values = torch.linalg.svdvals(step)
        assert values.min() > 0.5 and values.max() < 1.3
        assert F.cosine_similarity(step.flatten(), (left @ right).flatten(), dim=0) > 0.95


def test_muon_makes_steps_of_one_length() -> None:
    torch.manual_seed(0)
    for scale in (1e-3, 10.0):
        weight = nn.Parameter(torch.randn(96, 64, 3, 3))
        before, weight.grad = weight.detach().clone(), scale * torch.randn_like(weight)
        Muon([weight], lr=0.01, weight_decay=0.0).step()
        length = (weight - before).square().mean().sqrt().item() / 0.01
        assert 0.35 < length < 0.55


def test_each_weight_has_one_optimiser() -> None:
    for network in (Detector(), Columns()):
        optimisers = make_optimisers(network, ScenesRecipe(1))
        sets = {
            name: {id(one) for group in optimiser.param_groups for one in group["params"]}
            for name, optimiser in optimisers.items()
        }
        filters = {name: one for name, one in network.named_parameters() if one.ndim == 4}
        by_adamw = [name for name, one in filters.items() if id(one) in sets["adamw"]]
        assert len(by_adamw) == 2 and by_adamw[1] == "head.weight"
        assert filters[by_adamw[0]].shape[1] == 1  # the first layer sees one channel
        everything = sorted(id(one) for one in network.parameters())
        assert sorted([*sets["muon"], *sets["adamw"]]) == everything


def test_muon_learns_filters() -> None:
    torch.manual_seed(0)
    images, teacher, pupil = torch.randn(32, 4, 8, 8), nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3)
    pupil.bias = teacher.bias
    muon = Muon([pupil.weight], lr=0.03, weight_decay=0.0)
    losses = []
    for step in range(60):
        for group in muon.param_groups:
            group["lr"] = 0.03 * (1 - step / 60)
        muon.zero_grad()
        loss = (pupil(images) - teacher(images).detach()).square().mean()
        loss.backward()
        muon.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]


def teach(seed: int, saved: Path) -> list[Tensor]:
    """Train both networks for two epochs; gives their weights."""
    network = train_networks(seed, ScenesRecipe(epochs=2, scenes=10), saved)
    return [*network.state_dict().values()]


@pytest.mark.usefixtures("no_processes")
@pytest.mark.slow
def test_a_training_that_was_broken_off_continues(
    mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_and_break(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    whole = teach(0, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(epochs, "save", save_and_break)
        teach(0, tmp_path / "part")
    first_part = torch.load(tmp_path / "part", weights_only=True)
    assert first_part["epoch"] == 1
    rest = teach(0, tmp_path / "part")
    assert all(torch.equal(one, other) for one, other in zip(whole, rest, strict=True))
    with pytest.raises(UsageError, match="of another training"):
        teach(1, tmp_path / "part")
    first_part["detector"]["optimiser"] = first_part["detector"].pop("muon")
    torch.save(first_part, tmp_path / "older")
    with pytest.raises(UsageError, match="of another training"):
        teach(0, tmp_path / "older")


@pytest.mark.usefixtures("no_processes")
def test_a_network_sees_the_scenes_of_some_epochs(
    mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []

    def note(learner: SceneLearner, scenes: list[Any], *_: Any) -> str:
        shown.append((learner.shown_epochs, len(scenes)))
        return ""

    def save_and_break(learners: Any, state: dict[str, Any], saved: Path) -> None:
        save(learners, state, saved)
        if state["epoch"] == 4:
            raise KeyboardInterrupt

    def teach_both() -> None:
        recipe = ScenesRecipe(epochs=5, scenes=2)
        learners = {
            name: SceneLearner(
                Columns(),
                partial(RealNumbers(()).make_strip_batches, size=COLUMNS_SIZE, share=0),
                column_batches.measure_losses,
                recipe,
                window,
            )
            for name, window in (("one", 1), ("three", 3))
        }
        epochs.train(learners, recipe, 0, tmp_path / "saved")

    monkeypatch.setattr(SceneLearner, "show_scenes", note)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(epochs, "save", save_and_break)
        teach_both()
    teach_both()
    counts = {window: [n for one, n in shown if one == window] for window in (1, 3)}
    assert counts == {1: [2, 2, 2, 2, 2], 3: [2, 4, 6, 6, 6]}


@pytest.mark.usefixtures("no_processes")
def test_fine_tuning_begins_with_the_installed_weights(mnist_root: Path, tmp_path: Path) -> None:
    installed = read_networks()[0].state_dict()
    recipe = replace(TUNING_RECIPE, epochs=0, scenes=20)
    kept = train_networks(0, recipe, tmp_path / "kept", fine_tune=True).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in installed.items())
    recipe = replace(recipe, epochs=1)
    trained = train_networks(0, recipe, tmp_path / "trained", fine_tune=True).state_dict()
    changed = {name for name, value in installed.items() if not torch.equal(trained[name], value)}
    is_apart = {name for name in installed if name.startswith("expert.")}
    assert changed == {*installed} - is_apart  # the biases, too
    assert all(value.isfinite().all() for value in trained.values())
    again = train_networks(0, recipe, tmp_path / "trained", fine_tune=True, blend=0.25)
    for name, value in again.state_dict().items():
        share = 0.25 if name.startswith("columns.") else 1
        torch.testing.assert_close(value, installed[name].lerp(trained[name], share))


@pytest.mark.usefixtures("no_processes")
@pytest.mark.slow
def test_the_installed_networks_can_be_calibrated_anew(mnist_root: Path, tmp_path: Path) -> None:
    card = train_number(0, 0, tmp_path, 30, fine_tune=True)
    installed = read_card(card_path("number"))
    assert card.sha256 == installed.sha256 and card.sources == installed.sources
    assert card.calibration != installed.calibration
    assert {path.name for path in tmp_path.iterdir()} == {"number.json", "number.safetensors"}


@pytest.mark.slow
def test_trained_networks_come_with_their_card(mnist_root: Path, tmp_path: Path) -> None:
    card = train_number(0, 2, tmp_path, 100)
    assert {path.name for path in tmp_path.iterdir()} == {"number.json", "number.safetensors"}
    assert (
        card.command == "python -m training number --seed 0 --epochs 2 --limit-images 100 --out DIR"
    )
    assert 0 <= card.test_calibration_error <= 1


@pytest.mark.usefixtures("no_processes")
@pytest.mark.slow
def test_the_expert_is_trained_apart(mnist_root: Path, tmp_path: Path) -> None:
    card = train_number(0, 1, tmp_path, 60, is_expert=True)
    assert card.command
    assert card.command.endswith("number --seed 0 --epochs 1 --limit-images 60 --expert --out NEW")
    installed = read_networks()[0].state_dict()
    for name, value in load_file(tmp_path / "number.safetensors").items():
        is_expert = name.startswith("expert.")
        assert torch.equal(value.float(), installed[name]) != is_expert
        assert (value.dtype == torch.float16) == is_expert


@pytest.mark.usefixtures("no_processes")
@pytest.mark.slow
def test_the_expert_in_use_keeps_a_share_of_its_weights(mnist_root: Path, tmp_path: Path) -> None:
    recipe = replace(EXPERT_TUNING_RECIPE, epochs=1, scenes=60, warm_up_steps=1, ema_decay=0.5)
    installed = read_networks()[0].expert
    new, mean = (
        train_expert(0, recipe, tmp_path / str(blend), True, blend=blend).expert
        for blend in (1.0, 0.25)
    )
    networks = [one.parameters() for one in (installed, new, mean)]
    for old, changed, mixed in zip(*networks, strict=True):
        assert not torch.equal(old, changed)
        torch.testing.assert_close(mixed, old.lerp(changed, 0.25), atol=1e-3, rtol=1e-3)
