"""The networks that read whole numbers, with their weights: the detector, and that of columns."""

from functools import cache

import torch
from safetensors.torch import load
from torch import nn

from protocol.settings import NUMBER
from worker.models.card import Card, card_path
from worker.models.columns import Columns
from worker.models.detector import Detector, fold
from worker.models.direct import make_direct
from worker.models.model import TORCH_THREADS, read_weights
from worker.models.network import NUMBER_READER


class NumberNetwork(nn.Module):
    """Both networks, without their batch normalisations."""

    architecture = NUMBER_READER

    def __init__(self, detector: Detector, columns: Columns) -> None:
        super().__init__()
        self.detector, self.columns = detector, columns


def read_networks() -> tuple[NumberNetwork, Card]:
    """The installed networks, on the CPU, with their card. Raises `DigitqError` if they differ."""
    card, content = read_weights(card_path(NUMBER))
    network = NumberNetwork(fold(Detector()), fold(Columns()))
    network.load_state_dict(load(content))
    return network, card


@cache
def load_networks() -> tuple[NumberNetwork, Card]:
    """As `read_networks`, ready to read."""
    torch.set_num_threads(TORCH_THREADS)
    network, card = read_networks()
    network.requires_grad_(False).eval()
    return NumberNetwork(make_direct(network.detector), make_direct(network.columns)), card
