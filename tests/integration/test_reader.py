"""`digitq.reader`: the answers of workers, without them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import digitq
from digitq import Client
from digitq.protocol.errors import UsageError
from digitq.protocol.settings import settings
from digitq.worker.classify import watch
from tests.drawing import draw_one, encode_image, random_digits
from tests.weights import copy_weights

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = sorted((EXAMPLES / "digits").iterdir())
NUMBERS = sorted((EXAMPLES / "numbers").glob("*.png"))
FORM = EXAMPLES / "forms/form.toml"
SCRIPT = """
import sys
import torch
import digitq

torch.set_num_threads(2)
matrix = torch.rand(300, 300)
matrix @ matrix  # MKL has chosen its mode
print(digitq.reader().classify_all(sys.argv[1:]).table.column("probabilities").to_pylist())
assert torch.get_num_threads() == 2
assert not {"celery", "kombu"} & set(sys.modules)
"""


@pytest.fixture(autouse=True)
def limits_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process find them again."""
    monkeypatch.setattr(watch, "clock", watch.clock)
    monkeypatch.setattr(watch, "lost_seconds", watch.lost_seconds)


def test_answers_for_single_images_are_those_of_workers(client: Client) -> None:
    one: Any
    reader, array = digitq.reader(digitq.digits("cnn")), random_digits(1)[0]
    content = encode_image(draw_one((60, 70)))
    for one in (DIGITS[0], content, array, array[None] / 255, b"text", "nowhere.png"):
        assert reader.classify(one) == client.classify(one, digitq.digits("cnn"))
    known = digitq.numbers(length="2-5", allowed=["86", "41902", "00007"])
    numbers = digitq.reader(known)
    for path in NUMBERS:
        assert numbers.classify(path) == client.classify(path, known)
    pages = digitq.reader(digitq.form(FORM))
    page = min((EXAMPLES / "forms/pages").iterdir())
    assert pages.classify(page) == client.classify(page, digitq.form(FORM))


def test_answers_for_many_images_are_those_of_workers(client: Client) -> None:
    reader, stack = digitq.reader(), random_digits(300)
    images: Any
    for images in (DIGITS, [EXAMPLES / "digits"], stack, [("a", stack[0]), ("b", stack[1])]):
        results = reader.classify_all(images)
        expected = digitq.classify(images, client=client)
        assert results.table.equals(expected.table) and repr(results) == repr(expected)
    assert len(reader.classify_all([])) == 0


def test_a_process_that_uses_torch_itself(client: Client) -> None:
    paths = [*map(str, DIGITS[:3])]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *paths], capture_output=True, text=True, check=False
    )
    expected = client.submit(paths).table().column("probabilities").to_pylist()
    assert ran.stdout == f"{expected}\n", ran.stderr


def test_own_weights_are_those_of_one_reader(tmp_path: Path) -> None:
    mine = copy_weights(tmp_path / "mine", "cnn", temperature=7.0)  # it is never sure
    built_in = digitq.reader(digitq.digits("cnn"))
    own = digitq.reader(digitq.digits("cnn", weights=mine))
    first = built_in.classify(DIGITS[0])
    assert own.classify(DIGITS[0]).confidence < first.confidence - 0.05
    assert built_in.classify(DIGITS[0]) == first


def test_own_weights_that_are_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = copy_weights(tmp_path / "mine", "cnn")
    how = 'mine has no mlp.json, but cnn: add `--model cnn`, in Python digits\\("cnn"\\)'
    with pytest.raises(UsageError, match=f"weights=.*{how}"):
        digitq.digits(weights=mine)
    with pytest.raises(UsageError, match="weights=.*gone: there is no such folder"):
        digitq.digits(weights=tmp_path / "gone")
    monkeypatch.setenv("DIGITQ_WEIGHTS", str(mine))
    settings.cache_clear()
    for read in (digitq.classify, lambda _: digitq.reader()):
        with pytest.raises(UsageError, match=f"DIGITQ_WEIGHTS=.*{how}"):
            read(DIGITS)


def test_what_is_wrong_is_told() -> None:
    wrong: Any = "cnn"
    with pytest.raises(UsageError, match=r"'cnn' does not say what to read: .* digits\(\"cnn\"\)"):
        digitq.reader(wrong)
    with pytest.raises(UsageError, match="`classify` takes one image"):
        digitq.reader().classify(["a.png", "b.png"])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="undo a normalisation"):
        digitq.reader().classify(np.zeros((28, 28)) + 7)
