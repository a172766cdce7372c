"""The graphs that ONNX Runtime computes are those of the networks in torch."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from digitq.worker.learning.columns import Residual, fold
from digitq.worker.models.number_networks import (
    COLUMNS_SIZE,
    EXPERT_SIZE,
    GRAPHS_FOLDER,
    load_networks,
    make_session,
)
from training.graphs import GRAPHED, to_onnx
from training.number_trainer import read_networks


def test_the_installed_graphs_are_those_of_the_networks() -> None:
    for name, make in GRAPHED.items():
        assert onnx.load(GRAPHS_FOLDER / f"{name}.onnx", load_external_data=False) == to_onnx(
            fold(make())
        )


@torch.inference_mode()
def test_onnx_runtime_gives_the_answers_of_torch() -> None:
    torch.manual_seed(0)
    network, _ = read_networks()
    reader, _ = load_networks()
    for height, width in ((48, 16), (48, 144), (144, 304)):
        image = torch.randn(1, 1, height, width)
        strip, high = (
            torch.randn(1, 1, size.height, width) for size in (COLUMNS_SIZE, EXPERT_SIZE)
        )
        assert torch.allclose(network.detector(image), reader.detector(image), atol=1e-4)
        assert torch.allclose(network.columns(strip), reader.columns(strip), atol=1e-4)
        assert torch.allclose(network.expert(high), reader.expert(high), atol=1e-4)


@torch.inference_mode()
def test_any_convolution_is_the_same_in_onnx_runtime(tmp_path: Path) -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 4, 20, 20)
    for module in (
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(4, 4, (1, 3), padding=(0, 2), dilation=2, groups=2),
        nn.Conv2d(4, 4, (3, 1), (2, 1), (1, 0)),
        nn.ConvTranspose2d(4, 6, (1, 2), (1, 2)),
        nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), Residual(nn.Conv2d(16, 16, 3, padding=1))),
    ):
        network = nn.Sequential(module, nn.ReLU())
        graph = tmp_path / "network.onnx"
        graph.write_bytes(to_onnx(network).SerializeToString())
        weights = {name: value.numpy() for name, value in network.state_dict().items()}
        assert torch.allclose(network(image), make_session(graph, weights)(image), atol=1e-5)


def test_what_has_no_form_in_onnx_is_an_error() -> None:
    for module in (
        nn.Conv1d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.ConvTranspose2d(4, 4, 3, 2, output_padding=1),
        nn.Sigmoid(),
        nn.Upsample(size=8),
        nn.Flatten(1, 2),
    ):
        with pytest.raises(TypeError, match="no form of .* in ONNX"):
            to_onnx(nn.Sequential(module))
