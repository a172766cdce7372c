"""The networks that read whole numbers, with their weights: the detector, and that of columns."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from safetensors.torch import load
from torch import Tensor, nn

from protocol.settings import NUMBER
from worker.models.card import Card, card_path
from worker.models.column_network import Columns
from worker.models.detector import Detector, fold
from worker.models.model import TORCH_THREADS, read_weights
from worker.models.network import NUMBER_READER
from worker.models.runtime import make_session


class NumberNetwork(nn.Module):
    """Both networks as modules of torch, to train and to save."""

    architecture = NUMBER_READER

    def __init__(self, detector: Detector, columns: Columns) -> None:
        super().__init__()
        self.detector, self.columns = detector, columns


class NumberReader(NamedTuple):
    """Both networks in ONNX Runtime, to read numbers."""

    detector: Callable[[Tensor], Tensor]
    columns: Callable[[Tensor], Tensor]


def make_reader(network: NumberNetwork) -> NumberReader:
    """The networks, without batch normalisations, ready to read."""
    return NumberReader(make_session(network.detector), make_session(network.columns))


def read_networks() -> tuple[NumberNetwork, Card]:
    """The installed networks, with their card. Raises `DigitqError` if they differ.

    Their batch normalisations are merged into the convolutions.
    """
    card, content = read_weights(card_path(NUMBER))
    network = NumberNetwork(fold(Detector()), fold(Columns()))
    network.load_state_dict(load(content))
    return network, card


@cache
def load_networks() -> tuple[NumberReader, Card]:
    """The installed networks, ready to read. Raises what `read_networks` raises."""
    torch.set_num_threads(TORCH_THREADS)
    network, card = read_networks()
    return make_reader(network), card
