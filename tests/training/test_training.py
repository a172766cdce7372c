import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from click.testing import CliRunner, Result

from protocol.chunk import CLASSES
from tests.drawing import draw_bars
from tests.waiting import wait_for
from training import trainer
from training.number_trainer import (
    MARKED_SHARE,
    Answers,
    calibrate_card,
    calibrated,
    choose_threshold,
    fit_confidence,
    fit_known_confidence,
    measure_gaps,
)
from training.recipes import RECIPES, CnnRecipe, MlpRecipe, Recipe
from training.synthetic import rendering
from training.synthetic.rendering import NO_DIGIT
from training.trainer import prepare_data, target_probabilities, train_network, train_stages
from worker.commands import train
from worker.learning.augmentation import Distortion
from worker.learning.calibration import (
    REVIEWED_SHARE,
    calibrate,
    count_gaps,
    measure_calibration_error,
)
from worker.models.card import Card
from worker.models.model import read_model
from worker.models.network import Mlp, softmax

torch.set_num_threads(1)  # the cores belong to several processes of tests
STILL = Distortion(
    rotation_degrees=1.0, stretch=0.0, shear=0.0, shift_pixels=0.1, elastic_pixels=0.1
)
QUICK_MLP = MlpRecipe(
    batch_rows=50, first_learning_rate=1e-2, ema_decay=0.9, copies=0, distortion=STILL
)
QUICK_STAGE = CnnRecipe(
    batch_rows=50, ema_decay=0.9, bfloat16=False, copies=0, teachers=0, distortion=STILL
)
QUICK_CNN = dataclasses.replace(
    QUICK_STAGE, fine_tuning=dataclasses.replace(QUICK_STAGE, learning_rate=5e-4)
)


def run_train(out: Path, name: str = "mlp", **task: object) -> Result:
    """What `digitq train` has the worker's process do."""
    options = {"seed": 0, "epochs": None, "limit_images": None, "fine_tune": False}
    task = options | {"name": name, "out": str(out)} | task
    return CliRunner().invoke(train, [json.dumps(task)])


@pytest.mark.parametrize(("recipe", "epochs"), [(QUICK_MLP, 6), (QUICK_CNN, 5)], ids=["mlp", "cnn"])
def test_training_learns(recipe: Recipe, epochs: int, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = draw_bars(600)
    data = prepare_data(images, labels, seed=0, copies=0)
    network = train_network(data, 0, dataclasses.replace(recipe, epochs=epochs))
    lines = capsys.readouterr().err.splitlines()
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == epochs + (epochs // 3 if recipe.fine_tuning else 0)
    assert losses[epochs - 1] < losses[0] / 4
    assert (network(images.flatten(1)).argmax(1) == labels).float().mean() > 0.95


def test_it_is_the_teachers_answers_that_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = draw_bars(600)
    torch.manual_seed(0)
    data = prepare_data(images, (labels + 1) % CLASSES, seed=0, copies=0)
    teacher = train_stages(data, dataclasses.replace(QUICK_MLP, epochs=6))
    monkeypatch.setattr(trainer, "train_teachers", lambda *_: [teacher])
    recipe = dataclasses.replace(QUICK_CNN, epochs=5, teachers=1)
    network = train_network(prepare_data(images, labels, seed=0, copies=0), 0, recipe)
    answers = network(images.flatten(1)).argmax(1)
    assert (answers == (labels + 1) % CLASSES).float().mean() > 0.95


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(MlpRecipe(epochs=1, copies=0), id="mlp"),
        pytest.param(
            dataclasses.replace(RECIPES["cnn"], epochs=1, teachers=1, copies=0),
            id="cnn",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_seed_decides_the_weights(recipe: Recipe) -> None:
    data = prepare_data(*draw_bars(120), seed=0, copies=0)
    first, again, other = (train_network(data, seed, recipe).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn in one process, instead of one for each core: each takes long to start."""
    monkeypatch.setattr(rendering, "usable_cores", lambda: 1)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_the_command_writes_weights_and_a_complete_card(
    name: str, mnist_root: Path, tmp_path: Path
) -> None:
    result = run_train(tmp_path / "new", name, seed=3, epochs=1, limit_images=100)
    assert result.exit_code == 0, result.output
    assert "epoch 1/1" in result.stderr
    assert result.stdout == ""

    model = read_model(tmp_path / "new" / f"{name}.json")
    assert isinstance(model.card, Card)
    unknown = [key for key, value in dataclasses.asdict(model.card).items() if value is None]
    assert unknown == ["shorter_runs", "own_accuracy_before", "own_accuracy"]
    assert model.card.seed == 3
    assert model.card.architecture == model.network.architecture
    options = "--seed 3 --epochs 1 --limit-images 100 --out DIR"
    assert model.card.command == f"digitq train {name} {options}"
    assert model.card.test_accuracy is not None and 0.05 < model.card.test_accuracy < 1
    assert model.card.validation_accuracy is not None and 0.05 < model.card.validation_accuracy < 1


def test_what_is_no_digit_is_to_be_answered_with_all_alike() -> None:
    targets = target_probabilities(torch.tensor([3, NO_DIGIT]))
    assert targets[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    torch.testing.assert_close(targets[1], torch.full((CLASSES,), 0.1))


def make_network(sharpness: float) -> Mlp:
    """A network that reads the label from the first ten pixels, as `draw_labels` sets them."""
    network = Mlp(0.0, 1.0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.b1[CLASSES:] = -1e4  # only ten of the hidden units matter
        network.w1[:CLASSES, :CLASSES] = torch.eye(CLASSES) * 50
        network.w2[:CLASSES] = torch.eye(CLASSES) * sharpness
    return network


def draw_labels(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(CLASSES, (count,))
    shown = torch.where(torch.rand(count) < 0.1, torch.randint(CLASSES, (count,)), labels)
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    images[torch.arange(count), 0, shown] = 255
    return images, labels


@pytest.mark.parametrize("sharpness", [2.0, 4.0, 12.0])
def test_a_temperature_makes_confidence_the_accuracy(sharpness: float) -> None:
    network, (images, labels) = make_network(sharpness), draw_labels(4000)
    network.temperature, _ = calibrate(network, images, labels)
    with torch.inference_mode():
        answers = network(images.flatten(1))
    assert answers.max(1).values.mean().item() == pytest.approx(0.91, abs=0.02)
    assert measure_calibration_error(answers, labels) < 0.02


def test_so_many_of_the_held_back_images_are_to_be_reviewed() -> None:
    torch.manual_seed(0)
    network = MlpRecipe().init_network()
    images = torch.randint(256, (2000, 28, 28), dtype=torch.uint8)
    network.temperature, below = calibrate(network, images, torch.randint(10, (2000,)))
    with torch.inference_mode():
        confidence = softmax(network.logits(images.flatten(1)) / network.temperature).amax(1)
    assert (confidence < below).float().mean().item() == pytest.approx(REVIEWED_SHARE, abs=0.01)


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = torch.full((100, 10), 0.2 / 9)
    probabilities[:, 0] = 0.8
    for right in (100, 80, 30):
        labels = torch.cat([torch.zeros(right), torch.ones(100 - right)]).long()
        gap = measure_calibration_error(probabilities, labels)
        assert gap == pytest.approx(abs(0.8 - right / 100), abs=1e-6)


def test_the_confidence_of_a_number_depends_on_its_length() -> None:
    torch.manual_seed(0)
    logits, digits = 2 + 2 * torch.randn(5000).double(), torch.randint(1, 13, (5000,))
    is_right = torch.rand(5000) < torch.sigmoid(0.8 * logits + 0.6 * digits.log() - 1)
    is_doubted = torch.rand(5000) < 0.2
    is_right &= ~is_doubted | (torch.rand(5000) < 0.3)
    is_known_right = torch.rand(5000) < torch.sigmoid(0.7 * logits - 0.3)
    answers = Answers(
        logits.sigmoid(), digits, is_doubted, is_right, logits.sigmoid(), is_known_right
    )
    slope, length_factor, offset = fit_confidence(answers)
    assert [slope, length_factor, offset] == pytest.approx([0.8, 0.6, -1], abs=0.15)
    card = Card(
        "number", "", 0, 1, temperature=1 / slope, offset=offset, length_factor=length_factor
    )
    assert fit_known_confidence(answers) == pytest.approx([0.7, -0.3], abs=0.15)
    confidence = calibrated(card, answers)
    for length in (1, 12):
        of_length = ~is_doubted & (digits == length)
        assert count_gaps(confidence[of_length], is_right[of_length]) < 0.1
    is_marked = is_doubted | (confidence < choose_threshold(confidence, answers))
    assert is_marked[~is_right].float().mean().item() == pytest.approx(MARKED_SHARE, abs=0.002)


def test_what_is_probably_wrong_is_to_review_whatever_was_learned() -> None:
    nothing, wrong = torch.zeros(50, dtype=torch.bool), torch.zeros(50, dtype=torch.bool)
    chances = torch.linspace(0, 0.01, 50)
    answers = Answers(chances, torch.ones(50), nothing, wrong, chances, wrong)
    assert choose_threshold(chances, answers) == 0.5
    assert choose_threshold(chances, answers._replace(is_right=~wrong)) == 0.5


def test_a_number_whose_length_was_known_has_a_confidence_of_its_own() -> None:
    card = Card("number", "", 0, 1, length_factor=0.5, known_temperature=2, known_offset=-0.5)
    assert card.calibrate(0.9, 9, is_length_known=True) == pytest.approx(3 / (3 + math.exp(0.5)))
    assert card.calibrate(0.9, 9) == pytest.approx(27 / 28)


def test_images_without_a_number_do_not_calibrate() -> None:
    torch.manual_seed(0)
    logits, digits = 2 + 2 * torch.randn(1000), torch.randint(1, 13, (1000,))
    right = torch.rand(1000) < torch.sigmoid(logits)
    read = Answers(logits.sigmoid(), digits, right & False, right, logits.sigmoid(), right)
    unread = Answers(*(torch.zeros_like(column) for column in read))._replace(
        digits=torch.ones_like(digits)
    )
    both = Answers(*(torch.cat(parts) for parts in zip(read, unread, strict=True)))
    card = calibrate_card(Card("number", "", 0, 1), both)
    assert dataclasses.replace(calibrate_card(card, read), review_below=card.review_below) == card
    assert measure_gaps(card, both) == measure_gaps(card, read) > 0
    calibrate_card(card, unread)  # nothing was read at all
    assert measure_gaps(card, unread) == 0


def test_a_folder_that_can_t_be_written_to_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run_train(tmp_path / "file" / "weights")
    assert result.exit_code == 2
    assert result.output == f"digitq: can't write to {tmp_path}/file/weights: Not a directory\n"


@pytest.mark.usefixtures("one_process")
def test_a_disk_that_is_full_in_the_end_is_told(mnist_root: Path, tmp_path: Path) -> None:
    with patch.object(Path, "write_bytes", side_effect=OSError(28, "No space left on device")):
        result = run_train(tmp_path, epochs=1, limit_images=60)
    assert result.exit_code == 3 and "can't write" in result.stderr and "No space" in result.stderr
    assert not [*tmp_path.iterdir()]


def test_weights_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mlp.safetensors").write_bytes(b"an hour's work")
    result = run_train(tmp_path)
    assert result.exit_code == 2 and "exists: choose another --out" in result.output
    assert (tmp_path / "mlp.safetensors").read_bytes() == b"an hour's work"


TEACHING = """
import os, time
from protocol.host.process import end_at_once
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
    network = MlpRecipe().init_network().eval()
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
