import math

import pytest
import torch
from torch import Tensor

from digitq.worker.models.network import (
    NETWORKS,
    Cnn,
    Mlp,
    Network,
    TwoViewCnn,
    softmax,
)

NOWHERE = -math.inf


def tutorial_softmax(logits: Tensor) -> Tensor:
    """The softmax of many tutorials, with one maximum for the whole batch."""
    exponentials = torch.exp(logits - logits.max())
    return exponentials / exponentials.sum(dim=1, keepdim=True)


def test_it_is_the_softmax_everybody_knows() -> None:
    logits = torch.randn(100, 10, generator=torch.Generator().manual_seed(0)) * 5
    torch.testing.assert_close(softmax(logits), torch.softmax(logits, dim=-1))


def test_it_normalises_along_the_dimension_asked_for() -> None:
    logits = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    for dim in (0, 1, -1):
        torch.testing.assert_close(softmax(logits, dim), torch.softmax(logits, dim))


def test_its_gradient_is_that_of_the_softmax_everybody_knows() -> None:
    logits = torch.randn(5, 10, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 10, dtype=torch.float64)
    (ours,) = torch.autograd.grad((softmax(logits) * weights).sum(), logits)
    (theirs,) = torch.autograd.grad((torch.softmax(logits, -1) * weights).sum(), logits)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "row",
    [
        [1e4] * 10,
        [-1e4] * 10,
        [1e4, -1e4] * 5,
        [1e4 + place for place in range(10)],
        [3e38, -3e38] * 5,
        [NOWHERE, 0.0] * 5,
        [NOWHERE] * 9 + [-1e4],
        [NOWHERE] * 10,
        [math.inf] + [0.0] * 9,
        [math.inf, NOWHERE] * 5,
    ],
)
def test_every_row_sums_to_one_and_nothing_is_nan(row: list[float], dtype: torch.dtype) -> None:
    ordinary = [float(place) for place in range(10)]
    probabilities = softmax(torch.tensor([row, ordinary], dtype=dtype))
    assert probabilities.dtype == dtype
    assert not probabilities.isnan().any()
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    sums = probabilities.double().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=tolerance, rtol=0)


def test_where_infinite_entries_go() -> None:
    rows = torch.tensor(
        [
            [NOWHERE, NOWHERE, -1e4, NOWHERE],  # one entry is possible: it gets 1
            [NOWHERE, NOWHERE, NOWHERE, NOWHERE],  # none is possible: uniform
            [0.0, math.inf, 1e4, NOWHERE],
            [math.inf, math.inf, 0.0, 0.0],
        ]
    )
    expected = [[0, 0, 1, 0], [0.25] * 4, [0, 1, 0, 0], [0.5, 0.5, 0, 0]]
    assert softmax(rows).tolist() == expected


def test_nan_is_not_hidden() -> None:
    assert softmax(torch.tensor([[math.nan, 1.0]])).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_far_apart_do_not_disturb_each_other(dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [1e4, 1e4, 1e4]], dtype=dtype)
    assert tutorial_softmax(logits)[0].isnan().all()  # exp underflows: 0 / 0
    torch.testing.assert_close(softmax(logits), torch.softmax(logits, -1))
    assert torch.equal(softmax(logits)[:1], softmax(logits[:1]))


def test_the_network_is_two_layers_with_a_softmax_after_each() -> None:
    torch.manual_seed(0)
    network = Mlp(mean=0.5, std=0.5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pixels = torch.randint(0, 256, (7, 784), dtype=torch.uint8)

    inputs = (pixels.double() / 255 - 0.5) / 0.5
    w1, b1, w2, b2 = (parameter.double() for parameter in network.parameters())
    logits = torch.softmax(inputs @ w1 + b1, -1) @ w2 + b2

    torch.testing.assert_close(network.logits(pixels).double(), logits, atol=1e-5, rtol=0)
    expected = torch.softmax(logits, -1)
    torch.testing.assert_close(network(pixels).double(), expected, atol=1e-5, rtol=0)
    assert torch.equal(network(pixels.float()), network(pixels))


@pytest.mark.parametrize("kind", NETWORKS.values())
def test_a_network_leaves_the_pixels_it_was_given_alone(kind: type[Network]) -> None:
    pixels = torch.full((2, 784), 7.0)
    kind(mean=0.1, std=0.3)(pixels)
    assert (pixels == 7).all()


def test_two_views_are_of_the_image_and_of_it_moved_by_a_pixel() -> None:
    network = Cnn(mean=0.1, std=0.3)
    twice = TwoViewCnn(mean=0.1, std=0.3)
    twice.load_state_dict(network.state_dict())
    pixels = torch.randint(0, 256, (5, 28, 28), dtype=torch.uint8)
    moved = torch.zeros_like(pixels)
    moved[:, :-1, :-1] = pixels[:, 1:, 1:]
    first, second = network.logits(pixels.flatten(1)), network.logits(moved.flatten(1))
    assert not torch.allclose(first, second, atol=1e-3)
    torch.testing.assert_close(twice.logits(pixels.flatten(1)), (first + second) / 2)


def test_a_conv_network_takes_bytes_and_floats_and_gives_probabilities() -> None:
    network = TwoViewCnn(mean=0.1, std=0.3)
    pixels = torch.randint(0, 256, (7, 784), dtype=torch.uint8)
    assert torch.equal(network(pixels.float()), network(pixels))
    assert network(pixels).shape == (7, 10)
    torch.testing.assert_close(network(pixels).sum(1), torch.ones(7))
    assert network(pixels[:0]).shape == (0, 10)
    assert sum(parameter.numel() for parameter in network.parameters()) < 250_000
