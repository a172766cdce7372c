"""The fastest form of `mlp` gives the same answers, with floats and with integers."""

from functools import cache

import pytest
import torch
from torch import Tensor

from digitq.protocol.formats.mnist import Part
from digitq.worker.dataset import load_mnist
from digitq.worker.models import fast
from digitq.worker.models.fast import BASE_DIGITS, FastNetwork, split_digits
from digitq.worker.models.model import load_model
from digitq.worker.models.network import Mlp, Network

needs_bytes = pytest.mark.skipif(
    not fast.multiplies_bytes(), reason="this processor doesn't multiply bytes"
)


@pytest.fixture(params=["floats", pytest.param("bytes", marks=needs_bytes)])
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[FastNetwork]:
    """Builds the network with products of floats, or of bytes."""
    monkeypatch.setattr(fast, "multiplies_bytes", lambda: request.param == "bytes")
    return FastNetwork


def answer_exactly(network: Network, pixels: Tensor) -> Tensor:
    """The probabilities of an `Mlp`, computed in float64 from its float32 weights."""
    assert isinstance(network, Mlp)
    w1, b1, w2, b2 = (parameter.double() for parameter in network.parameters())
    hidden = ((pixels * network.scale + network.shift) @ w1 + b1).softmax(1)
    return ((hidden @ w2 + b2) / network.temperature).softmax(1)


@cache
def answer_mnist(name: str, part: Part) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Blocks of MNIST's pixels, with exact answers and those of the plain network."""
    plain = load_model(name).network
    return [
        (pixels, answer_exactly(plain, pixels.double()), plain(pixels))
        for pixels in load_mnist(part)[0].flatten(1).split(2048)
    ]


@pytest.mark.usefixtures("mnist_root")
@pytest.mark.parametrize("part", [pytest.param("train", marks=pytest.mark.slow), "test"])
@pytest.mark.parametrize("name", ["mlp", "random"])
def test_all_of_mnist_gets_the_same_labels_and_probabilities(
    name: str, part: Part, build: type[FastNetwork]
) -> None:
    check_answers(name, part, build)


@pytest.mark.parametrize("name", ["mlp", "random"])
def test_the_sample_gets_the_same_labels_and_probabilities(
    name: str, build: type[FastNetwork]
) -> None:
    check_answers(name, "sample", build)


def check_answers(name: str, part: Part, build: type[FastNetwork]) -> None:
    plain = load_model(name).network
    assert isinstance(plain, Mlp)
    fast = build(plain)
    worst = {"plain": 0.0, "fast": 0.0, "between": 0.0}
    for pixels, exact, expected in answer_mnist(name, part):
        answers = {"plain": expected, "fast": fast(pixels)}
        assert torch.equal(answers["fast"].argmax(1), expected.argmax(1))
        off = {kind: probabilities - exact for kind, probabilities in answers.items()}
        off["between"] = answers["fast"] - expected
        worst = {kind: max(worst[kind], off[kind].abs().max().item()) for kind in worst}
    between = worst.pop("between")
    assert max(worst.values()) < 1e-5
    assert between < {"mlp": 1e-5, "random": 2e-5}[name]  # random weights are larger


def test_digits_put_together_are_the_weights_to_24_bits() -> None:
    torch.manual_seed(0)
    weights = torch.randn(784, 256, dtype=torch.float64) * torch.logspace(-3, 3, 256)
    weights[:, 5] = 0
    digits, scales = split_digits(weights)
    assert digits.dtype == torch.int8
    parts = (digits.double() * scales.double()).chunk(BASE_DIGITS, 1)
    errors = (sum(parts) - weights).abs()
    assert (errors <= weights.abs().amax(0) * 2**-22).all()
    assert (errors[:, 5] == 0).all()


def test_sums_are_right_at_the_ends_of_the_range(build: type[FastNetwork]) -> None:
    """Sums of 16 bits would overflow here."""
    network = Mlp(mean=0.0, std=1 / 255)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.w1[:, 0], network.w1[:, 1] = 1 / 1024, -1 / 1024
        network.w2[0, 0], network.w2[1, 1] = 1.0, 1.0
    fast = build(network)
    for pixels in (torch.full((3, 784), value, dtype=torch.uint8) for value in (0, 1, 254, 255)):
        exact = answer_exactly(network, pixels.double())
        torch.testing.assert_close(fast(pixels).double(), exact, atol=1e-7, rtol=0)


def test_the_fastest_form_is_what_classifies() -> None:
    load_model.cache_clear()  # the tests above load it with products of floats
    fastest = load_model("mlp").fastest
    assert isinstance(fastest, FastNetwork)
    assert len(fastest.products) == (BASE_DIGITS if fast.multiplies_bytes() else 1)
    assert load_model("cnn").fastest is load_model("cnn").network
