"""The networks that read whole numbers, with their weights: the detector, and that of columns."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load
from torch import Tensor

from protocol.settings import NUMBER
from worker.models.card import Card, card_path
from worker.models.model import TORCH_THREADS, read_weights
from worker.models.runtime import make_session

GRAPHS_FOLDER = Path(__file__).parent / "graphs"
Weights = dict[str, NDArray[np.float32]]  # the names of both networks' weights have a prefix


class NumberReader(NamedTuple):
    """Both networks in ONNX Runtime, to read numbers."""

    detector: Callable[[Tensor], Tensor]
    columns: Callable[[Tensor], Tensor]


def make_reader(weights: Weights) -> NumberReader:
    """The networks with these weights, ready to read."""
    return NumberReader(
        *(
            make_session(GRAPHS_FOLDER / f"{name}.onnx", take_weights(weights, name))
            for name in NumberReader._fields
        )
    )


def take_weights(weights: Weights, network: str) -> Weights:
    """The weights of one of the networks, without its prefix."""
    prefix = f"{network}."
    named = weights.items()
    return {key.removeprefix(prefix): value for key, value in named if key.startswith(prefix)}


def read_number_weights() -> tuple[Weights, Card]:
    """The installed weights, with their card. Raises `DigitqError` if they differ."""
    card, content = read_weights(card_path(NUMBER))
    return load(content), card


@cache
def load_networks() -> tuple[NumberReader, Card]:
    """The installed networks, ready to read. Raises what `read_number_weights` raises."""
    torch.set_num_threads(TORCH_THREADS)
    weights, card = read_number_weights()
    return make_reader(weights), card
