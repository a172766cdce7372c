"""Training of `mlp` and `cnn` from scratch."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from digitq.protocol.chunk import CLASSES
from digitq.worker.learning.augmentation import Augmenter, Distortion
from digitq.worker.learning.courses import CnnRecipe, MlpRecipe, draw_batches
from digitq.worker.models.model import load_model, read_model
from digitq.worker.models.network import Mlp
from tests.drawing import draw_bars, write_glyphs
from tests.waiting import wait_for
from training import trainer
from training.__main__ import main
from training.recipes import COURSES, Course, init_network
from training.synthetic import rendering
from training.synthetic.rendering import NO_DIGIT
from training.trainer import (
    draw_lessons,
    prepare_data,
    target_probabilities,
    train_model,
    train_network,
    train_stages,
)

torch.set_num_threads(1)  # the cores belong to several processes of tests
STILL = Distortion(
    rotation_degrees=1.0, stretch=0.0, shear=0.0, shift_pixels=0.1, elastic_pixels=0.1
)
MLP = MlpRecipe(batch_rows=50, first_learning_rate=1e-2, ema_decay=0.9, distortion=STILL)
CNN = CnnRecipe(batch_rows=50, ema_decay=0.9, bfloat16=False, distortion=STILL)
QUICK_MLP = Course(MLP, copies=0)
QUICK_CNN = Course(CNN, copies=0, fine_tuning=dataclasses.replace(CNN, learning_rate=5e-4))


def shorten(course: Course, epochs: int, teachers: int = 0) -> Course:
    recipe = dataclasses.replace(course.recipe, epochs=epochs)
    return dataclasses.replace(course, recipe=recipe, teachers=teachers)


@pytest.mark.parametrize(("course", "epochs"), [(QUICK_MLP, 6), (QUICK_CNN, 5)], ids=["mlp", "cnn"])
def test_training_learns(course: Course, epochs: int, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = draw_bars(600)
    data = prepare_data(images, labels, 0, QUICK_MLP)
    network = train_network(data, 0, shorten(course, epochs))
    lines = capsys.readouterr().err.splitlines()
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == epochs + (epochs // 3 if course.fine_tuning else 0)
    assert losses[epochs - 1] < losses[0] / 4
    assert (network(images.flatten(1)).argmax(1) == labels).float().mean() > 0.95


@pytest.mark.slow
def test_it_is_the_teachers_answers_that_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = draw_bars(600)
    torch.manual_seed(0)
    data = prepare_data(images, (labels + 1) % CLASSES, 0, QUICK_MLP)
    teacher = train_stages(data, shorten(QUICK_MLP, 6))
    monkeypatch.setattr(trainer, "train_teachers", lambda *_: [teacher])
    data = prepare_data(images, labels, 0, QUICK_MLP)
    network = train_network(data, 0, shorten(QUICK_CNN, 5, teachers=1))
    answers = network(images.flatten(1)).argmax(1)
    assert (answers == (labels + 1) % CLASSES).float().mean() > 0.95


def test_training_on_keeps_right_answers_and_corrects_wrong_ones() -> None:
    images, labels = draw_bars(600)
    torch.manual_seed(0)
    half = torch.where(labels < 5, labels, (labels + 1) % CLASSES)
    first = train_stages(prepare_data(images, half, 0, QUICK_MLP), shorten(QUICK_MLP, 6))
    data = prepare_data(images, labels, 0, QUICK_MLP)
    course = dataclasses.replace(shorten(QUICK_MLP, 12), corrects_teachers=True)
    before = first(images.flatten(1)).argmax(1)
    assert (before == half).float().mean() > 0.95
    network = train_network(data, 0, course, begin_with=first)
    assert (network(images.flatten(1)).argmax(1) == labels).float().mean() > 0.95
    still = train_network(data, 0, shorten(course, 0), begin_with=first)
    assert torch.equal(still(images.flatten(1)).argmax(1), before)


def test_teachers_are_asked_once_for_what_is_shown_several_times() -> None:
    torch.manual_seed(0)
    images, labels = draw_bars(150)
    teacher = Mock(logits=Mock(side_effect=lambda pixels: torch.zeros(len(pixels), CLASSES)))
    known, _ = prepare_data(images, labels, 0, QUICK_MLP).name_targets()
    draw = partial(draw_batches, known, MLP, Augmenter(STILL))
    course = dataclasses.replace(QUICK_MLP, shows=3)
    places, batches = zip(*draw_lessons(course, [teacher], draw, 0), strict=True)
    assert len(batches) == 3 * teacher.logits.call_count > 3
    shown = Counter(pixels.numpy().tobytes() for pixels, _ in batches)
    assert {*shown.values()} == {3}
    assert places[0] == 0 and places[-1] < 1 and [*places] == sorted({*places})
    for _, targets in batches:  # 0.1 each
        torch.testing.assert_close(targets, torch.full_like(targets, 1 / CLASSES))


def test_another_network_in_use_can_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = draw_bars(600)
    torch.manual_seed(0)
    other = prepare_data(images, (labels + 1) % CLASSES, 0, QUICK_MLP)
    teacher = train_stages(other, shorten(QUICK_MLP, 6))
    asked: list[str] = []
    monkeypatch.setattr(
        trainer, "load_model", lambda name: asked.append(name) or Mock(network=teacher)
    )
    course = dataclasses.replace(shorten(QUICK_MLP, 3), shows=4, teacher="cnn")
    data = prepare_data(images, labels, 0, QUICK_MLP)
    network = train_network(data, 0, course, begin_with=init_network(MLP))
    answers = network(images.flatten(1)).argmax(1)
    assert (answers == (labels + 1) % CLASSES).float().mean() > 0.95
    assert asked == ["cnn"]


@pytest.mark.parametrize("name", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_a_seed_decides_the_weights(name: str) -> None:
    data = prepare_data(*draw_bars(120), 0, QUICK_MLP)
    course = shorten(COURSES[name], 1, teachers=int(name == "cnn"))
    first, again, other = (train_network(data, seed, course).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn in one process, instead of one for each core: each takes long to start."""
    monkeypatch.setattr(rendering, "usable_cores", lambda: 1)


@pytest.mark.slow
@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_training_writes_weights_and_a_complete_card(
    name: str, mnist_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_model(name, 3, 1, tmp_path, 100)
    shown = capsys.readouterr()
    assert "epoch 1/1" in shown.err and shown.out == ""

    model = read_model(tmp_path / f"{name}.json")
    unknown = [key for key, value in dataclasses.asdict(model.card).items() if value is None]
    assert [key for key in unknown if not key.startswith(("own_", "rehearsed_"))] == [
        "shorter_runs"
    ]
    assert model.card.seed == 3
    assert model.card.architecture == model.network.architecture
    options = "--seed 3 --epochs 1 --limit-images 100 --out DIR"
    assert model.card.command == f"python -m training {name} {options}"
    assert model.card.test_accuracy is not None and 0.05 < model.card.test_accuracy < 1
    assert model.card.validation_accuracy is not None and 0.05 < model.card.validation_accuracy < 1


@pytest.mark.slow
@pytest.mark.usefixtures("one_process")
def test_the_weights_in_use_learn_real_hands(mnist_root: Path, tmp_path: Path) -> None:
    write_glyphs(tmp_path / "hands", "school", 20)
    card = train_model("mlp", 3, 0, tmp_path, 100, True, (tmp_path / "hands",), 0.5)
    assert card.sources == {"MNIST": 0.667, "school": 0.333}
    assert card.command and card.command.startswith("python -m training mlp --seed 0")
    options = "--seed 3 --epochs 0 --limit-images 100"
    options += " --blend 0.5 --hands hands --fine-tune --out NEW"
    assert card.command.endswith(f"; DIGITQ_WEIGHTS=DIR python -m training mlp {options}")
    installed = load_model("mlp").card
    assert card.test_accuracy == pytest.approx(installed.test_accuracy, abs=2e-4)
    assert card.review_below != installed.review_below
    networks = [load_model("mlp").network]
    for blend in (1.0, 0.25):
        folder = tmp_path / str(blend)
        folder.mkdir()
        train_model("mlp", 3, 1, folder, 100, True, (tmp_path / "hands",), blend)
        networks.append(read_model(folder / "mlp.json").network)
    for old, new, mean in zip(*(one.parameters() for one in networks), strict=True):
        assert not torch.equal(old, new)
        torch.testing.assert_close(mean, old.lerp(new, 0.25))


def test_what_is_no_digit_is_to_be_answered_with_all_alike() -> None:
    targets = target_probabilities(torch.tensor([3, NO_DIGIT]))
    assert targets[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    torch.testing.assert_close(targets[1], torch.full((CLASSES,), 0.1))


TEACHING = """
import os, time
from digitq.protocol.host.process import end_at_once
from training.synthetic.rendering import start_processes
if __name__ == "__main__":
    end_at_once()
    with start_processes() as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_training_starts_ends_with_it(number: int, tmp_path: Path) -> None:
    (tmp_path / "teaching.py").write_text(TEACHING)
    with subprocess.Popen(
        [sys.executable, tmp_path / "teaching.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ) as parent:
        assert parent.stdout and parent.stderr
        child = int(parent.stdout.readline())
        signal_all = os.killpg if number == signal.SIGINT else os.kill
        signal_all(parent.pid, number)
        wait_for(lambda: not is_running(child))
        assert parent.stderr.read() == b""


def is_running(pid: int) -> bool:
    """Whether this process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_mlp_ships_without_what_its_hidden_softmax_takes_out() -> None:
    torch.manual_seed(0)
    network = init_network(MlpRecipe()).eval()
    with torch.no_grad():
        network.w1 += torch.randn(len(network.w1), 1) / 16
        network.b1 += 5
        pixels = 255 * torch.rand(64, 784, dtype=torch.float64)
        before = network.double()(pixels)
        shipped = MlpRecipe().finish(network)
        assert isinstance(shipped, Mlp)
        assert torch.allclose(shipped(pixels), before, rtol=0, atol=1e-12)
        assert shipped.w1.mean(1).abs().max() < 1e-15
        assert shipped.b1.mean().abs() < 1e-12


def test_a_folder_that_can_t_be_made_is_bad_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["training", "graphs", "--out", str(tmp_path / "file" / "a")])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "can't write to" in capsys.readouterr().err
