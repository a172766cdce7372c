import dataclasses
import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save

from digitq.protocol.asked.own_network import OwnNetwork, find_own_network
from digitq.protocol.chunk import TILE_ROWS
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.settings import MODELS, settings
from digitq.worker.dataset import load_mnist
from digitq.worker.learning.calibration import measure
from digitq.worker.models import card as cards
from digitq.worker.models import model as models
from digitq.worker.models.lent import use_network
from digitq.worker.models.model import ROW_MULTIPLE, build_model, load_model, read_model
from digitq.worker.models.network import Network
from digitq.worker.sight.normalisation.steps import normalise
from tests.drawing import draw_bars, random_digits
from tests.weights import copy_weights
from training.synthetic.handwriting import draw_digit
from training.synthetic.outliers import NEGATIVES
from training.synthetic.scenes import crop

ROWS = TILE_ROWS + 2 * Network.tile_rows + 3


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (ROWS, 784), dtype=np.uint8)


def cut_at_random(rows: int, rng: random.Random) -> list[tuple[int, int]]:
    cuts = sorted(rng.sample(range(1, rows), rng.randint(1, 40)))
    return list(zip([0, *cuts], [*cuts, rows], strict=True))


@pytest.mark.parametrize(
    ("name", "floats"),
    [("random", False), ("random", True), ("mlp", False), ("mlp", True), ("cnn", True)],
)
def test_an_answer_does_not_depend_on_its_company(
    name: str, floats: bool, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    if floats:
        monkeypatch.setattr(models, "FastNetwork", lambda network: network)
    model = build_model(load_model(name).network, load_model(name).card)
    whole = model.classify(pixels)
    rng = random.Random(0)
    for _ in range(2):
        parts = [
            model.classify(pixels[start:stop], first_row=start)
            for start, stop in cut_at_random(ROWS, rng)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_nor_does_it_on_a_processor_without_avx512() -> None:
    code = """
import numpy as np
from digitq.worker.models.fast import multiplies_bytes
from digitq.worker.models.model import load_model
model, pixels = load_model("random"), np.random.default_rng(0).integers(0, 256, (300, 784), "u1")
whole = model.classify(pixels)
for rows in range(16, 300, 16):
    assert model.classify(pixels[:rows]).tobytes() == whole[:rows].tobytes(), rows
assert not multiplies_bytes()  # without VNNI, torch adds in 16 bits, and some sums overflow
"""
    older = {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    environment = os.environ | older
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


class Places(Network):
    """Gives each row's place in the batch instead of probabilities."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = len(pixels)
        assert rows <= self.tile_rows and rows % ROW_MULTIPLE == 0
        return torch.arange(rows).float()[:, None].expand(rows, 10)


@pytest.mark.parametrize("first_row", [0, 1, TILE_ROWS - 1, TILE_ROWS, 1000])
def test_the_network_sees_whole_grains_and_a_row_keeps_its_place(
    first_row: int, pixels: NDArray[np.uint8]
) -> None:
    model = build_model(Places(0.5, 0.5), load_model("random").card)
    places = model.classify(pixels, first_row)
    expected = (first_row + np.arange(ROWS)) % ROW_MULTIPLE
    np.testing.assert_array_equal(places % ROW_MULTIPLE, np.repeat(expected[:, None], 10, axis=1))


@pytest.mark.parametrize("name", ["random", "mlp", "cnn"])
def test_an_answer_does_not_depend_on_its_place(name: str) -> None:
    """So single calls may share a chunk. Bars are tested too: their answers have tiny parts."""
    model = load_model(name)
    digits = np.concatenate([random_digits(20), draw_bars(5)[0].numpy()]).reshape(-1, 784)
    for digit in digits:
        answers = model.classify(np.repeat(digit[None], model.tile_rows, axis=0))
        assert len({answer.tobytes() for answer in answers}) == 1


@pytest.mark.parametrize("name", ["random", "mlp", "cnn"])
def test_part_of_a_tile_gives_what_the_whole_gives(name: str, pixels: NDArray[np.uint8]) -> None:
    model = load_model(name)
    tile = pixels[: model.tile_rows]
    whole = model.classify(tile)
    for rows in range(1, len(tile), 5):
        assert model.classify(tile[:rows]).tobytes() == whole[:rows].tobytes()


@pytest.mark.parametrize("name", ["random", "mlp", "cnn"])
def test_tiles_give_what_the_plain_network_gives(name: str, pixels: NDArray[np.uint8]) -> None:
    model = load_model(name)
    expected = model.network(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(model.classify(pixels), expected, atol=5e-5)


@pytest.mark.parametrize("rows", [0, 1, TILE_ROWS - 1, TILE_ROWS, TILE_ROWS + 1])
def test_every_row_gets_ten_probabilities(rows: int, pixels: NDArray[np.uint8]) -> None:
    probabilities = load_model("mlp").classify(pixels[:rows], first_row=TILE_ROWS - 1)
    assert probabilities.shape == (rows, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_pixels_that_arrow_holds_read_only_are_fine(pixels: NDArray[np.uint8]) -> None:
    frozen = np.frombuffer(pixels[:3].tobytes(), np.uint8).reshape(3, 784)
    np.testing.assert_array_equal(
        load_model("mlp").classify(frozen), load_model("mlp").classify(pixels[:3])
    )


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'nlp'.*mlp, cnn, random"):
        load_model("nlp")


def test_a_model_is_loaded_once() -> None:
    assert load_model("mlp") is load_model("mlp")


def test_loading_leaves_torch_one_thread() -> None:
    torch.set_num_threads(2)
    load_model.cache_clear()
    load_model("random")
    assert torch.get_num_threads() == 1


def test_the_random_model_is_the_same_everywhere() -> None:
    again = models.build_random_model()
    assert again.network.w1.std().item() == pytest.approx(1, abs=0.01)
    for ours, theirs in zip(
        load_model("random").network.parameters(), again.network.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_other_weights_than_the_card_describes_are_refused(tmp_path: Path) -> None:
    for suffix in (".json", ".safetensors"):
        shutil.copy(cards.WEIGHTS_FOLDER / f"mlp{suffix}", tmp_path)
    assert read_model(tmp_path / "mlp.json").card.name == "mlp"
    weights = tmp_path / "mlp.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DigitqError, match="SHA-256 differs"):
        read_model(tmp_path / "mlp.json")
    weights.unlink()
    with pytest.raises(DigitqError, match="can't be read"):
        read_model(tmp_path / "mlp.json")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    weights = load((cards.WEIGHTS_FOLDER / "mlp.safetensors").read_bytes())
    weights["w2"][3, 3] = torch.nan  # as after a training that diverged
    data = save(weights)
    (tmp_path / "mlp.safetensors").write_bytes(data)
    card = dataclasses.replace(load_model("mlp").card, sha256=hashlib.sha256(data).hexdigest())
    card.write(tmp_path / "mlp.json")
    with pytest.raises(DigitqError, match="some weights are not finite"):
        read_model(tmp_path / "mlp.json")


def test_own_weights_take_the_place_of_those_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(cards.WEIGHTS_FOLDER / "mlp.safetensors", tmp_path)
    dataclasses.replace(load_model("mlp").card, temperature=7.0).write(tmp_path / "mlp.json")
    monkeypatch.setenv("DIGITQ_WEIGHTS", str(tmp_path))
    settings.cache_clear()
    load_model.cache_clear()
    try:
        assert load_model("mlp").network.temperature == 7 and not caplog.messages
        assert load_model("cnn").network.temperature != 7
        assert caplog.messages == [
            f"DIGITQ_WEIGHTS={tmp_path} has no cnn.json: digitq's own cnn is used"
        ]
        monkeypatch.setenv("DIGITQ_WEIGHTS", str(tmp_path / "nowhere"))
        settings.cache_clear()
        with pytest.raises(UsageError, match="DIGITQ_WEIGHTS=.*nowhere: there is no such folder"):
            cards.card_path("cnn")
    finally:
        load_model.cache_clear()


def test_own_weights_may_be_those_of_some_calls_only(tmp_path: Path) -> None:
    mine, built_in = copy_weights(tmp_path / "mine", "mlp", temperature=7.0), load_model("mlp")
    network = find_own_network(mine, "mlp")
    with use_network("mlp", network.name, lambda name: network):
        own = load_model("mlp")
        assert own.network.temperature == 7 and load_model("mlp") is own
    assert load_model("mlp") is built_in


def test_a_process_keeps_four_networks_that_jobs_have_brought(tmp_path: Path) -> None:
    """It fetches another one, or the one that was used before all others, and no more."""
    networks = [
        find_own_network(copy_weights(tmp_path / str(one), "mlp", temperature=1.0 + one), "mlp")
        for one in range(5)
    ]
    fetched = list[str]()

    def use(network: OwnNetwork) -> float:
        def fetch(name: str) -> OwnNetwork:
            fetched.append(name)
            return network

        with use_network("mlp", network.name, fetch):
            return load_model("mlp").network.temperature

    assert [use(networks[at]) for at in (0, 1, 2, 3, 0, 4, 0, 1)] == [1, 2, 3, 4, 1, 5, 1, 2]
    assert fetched == [networks[at].name for at in (0, 1, 2, 3, 4, 1)]


def test_without_mkl_a_tile_is_always_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    load_model.cache_clear()
    try:
        for name in MODELS:
            model = load_model(name)
            assert model.row_multiple == model.tile_rows == model.network.tile_rows
    finally:
        load_model.cache_clear()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"labels": [], "colour": 1}'])
def test_a_card_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "mlp.json").write_text(text)
    with pytest.raises(DigitqError, match="isn't a model card"):
        read_model(tmp_path / "mlp.json")


def test_an_architecture_this_version_lacks_is_refused(tmp_path: Path) -> None:
    shutil.copy(cards.WEIGHTS_FOLDER / "mlp.safetensors", tmp_path)
    card = dataclasses.replace(load_model("mlp").card, architecture="transformer")
    card.write(tmp_path / "mlp.json")
    with pytest.raises(DigitqError, match="asks for 'transformer'"):
        read_model(tmp_path / "mlp.json")


@pytest.mark.parametrize(("name", "architecture"), [("mlp", "784-256-10"), ("cnn", "convolutions")])
def test_the_card_holds_what_a_reader_asks(name: str, architecture: str) -> None:
    card = json.loads((cards.WEIGHTS_FOLDER / f"{name}.json").read_text())
    assert card["labels"] == [str(digit) for digit in range(10)]
    assert architecture in card["architecture"]
    assert card["command"].startswith(f"python -m training {name} --seed")


@cache
def classify_mnist(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's answers to MNIST's test set, and the right ones."""
    images, labels = load_mnist("test")
    return torch.from_numpy(load_model(name).classify(images.flatten(1).numpy())), labels


@pytest.mark.parametrize(("name", "least"), [("mlp", 0.991), ("cnn", 0.9955)])
def test_the_shipped_weights_are_as_good_as_their_card_says(
    name: str, least: float, mnist_root: Path
) -> None:
    model = load_model(name)
    answers, labels = classify_mnist(name)
    accuracy = (answers.argmax(1) == labels).float().mean().item()
    assert accuracy == pytest.approx(model.card.test_accuracy, abs=2e-4)
    assert round(accuracy, 4) >= least


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_confidence_is_the_share_of_right_answers(name: str, mnist_root: Path) -> None:
    model = load_model(name)
    answers, labels = classify_mnist(name)
    _, error = measure(answers, labels)
    assert error < 0.01
    assert error == pytest.approx(model.card.test_calibration_error, abs=2e-4)
    reviewed = answers.amax(1) < model.card.review_below
    assert 0.005 < reviewed.float().mean() <= 0.02
    wrong = answers.argmax(1) != labels
    assert reviewed[wrong].float().mean() > 0.5


def test_cnn_knows_digits_in_black_and_white_and_pale_ones() -> None:
    images, labels = (part[:1500] for part in load_mnist("sample"))
    model = load_model("cnn")
    for changed in ((images > 127).byte() * 255, images // 3):
        answers = model.classify(changed.flatten(1).numpy())
        assert (answers.argmax(1) == labels.numpy()).mean() > 0.99
        assert (answers.max(1) < model.card.review_below).mean() < 0.06


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_what_is_no_digit_is_to_be_reviewed(name: str) -> None:
    rng = np.random.default_rng(0)
    digits = [crop(draw_digit(label, rng)) for label in range(10)]
    for kind in NEGATIVES:
        others = [kind(digits[n % 10], digits[n * 7 % 10], rng) for n in range(100)]
        pixels = np.stack([normalise(np.pad(other, 12)) for other in others]).reshape(-1, 784)
        model = load_model(name)
        assert (model.classify(pixels).max(1) < model.card.review_below).mean() > 0.8, kind


FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")


@pytest.mark.skipif(not FASHION.exists(), reason="needs Debian's dataset-fashion-mnist")
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_garments_are_to_be_reviewed(name: str) -> None:
    with gzip.open(FASHION) as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    model = load_model(name)
    assert (model.classify(pixels).max(1) < model.card.review_below).mean() >= 0.9


def test_the_random_model_guesses() -> None:
    images, labels = load_mnist("sample")
    answers = torch.from_numpy(load_model("random").classify(images.flatten(1).numpy()))
    assert 0.02 < (answers.argmax(1) == labels).float().mean() < 0.25
