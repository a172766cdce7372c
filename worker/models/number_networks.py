"""The networks that read whole numbers: what they give, and how they are loaded.

The detector finds digits in a grey picture: a heat map of their middles. A cell of the map covers
4×4 px. For each it gives how likely the middle of a sign is there, which digit that is, if it is
one, and where its edges are (X. Zhou et al., "Objects as Points", 2019).

The network of columns reads a line column by column. For every second column of a strip it gives
how likely the middle of each digit or sign of `ALPHABET` is there, or of none (A. Graves et al.,
"Connectionist Temporal Classification", 2006). The expert gives the same. It has ten times as many
weights, and sees a higher strip.
"""

from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from digitq.protocol.asked.values import ALPHABET
from digitq.protocol.chunk import CLASSES
from digitq.protocol.errors import DigitqError
from digitq.protocol.settings import NUMBER
from digitq.worker.models.card import Card
from digitq.worker.models.lent import CachedByWeights
from digitq.worker.models.model import TORCH_THREADS, find_weights_of
from digitq.worker.models.onnx_session import Session, Weights, make_session
from digitq.worker.models.second_reader import is_second_reader_used, load_second_reader

CELL = 4  # px: side of a cell of the map
MULTIPLE = 16  # the sides of a picture are padded to a multiple of this, in px
OTHER = CLASSES  # the class, after the ten digits, of letters and of digits that are crossed out
SIGNS = CLASSES + 1
EDGES = 4  # left, top, right and bottom
SIZE_UNIT = 16.0  # px: the distances of the edges from the cell's middle are learned in this unit


class StripSize(NamedTuple):
    """The size at which a network reads a line."""

    height: int  # px: of the strip
    digit: int  # px: the usual height of a digit in it


COLUMNS_SIZE, EXPERT_SIZE, SECOND_SIZE = StripSize(28, 17), StripSize(40, 24), StripSize(48, 28)
STRIDE = 2  # px: a column of the answer covers this much of the strip's width
BLANK = len(ALPHABET)  # the class, after these, of a column that is the middle of none of them

GRAPHS_FOLDER = Path(__file__).parent / "graphs"
Array = TypeVar("Array", Tensor, NDArray[np.float32])


class Maps(NamedTuple, Generic[Array]):
    """The answer of the network for each cell of N pictures, or for N single cells."""

    middle: Array  # (N, height, width): the logit of a sign's middle being there
    signs: Array  # (N, 11, height, width): the logits of the ten digits and of `OTHER`
    edges: Array  # (N, 4, height, width): distances to left, top, right, bottom, in SIZE_UNIT


def divide(answer: Array) -> Maps[Array]:
    """The maps in the network's answer, (N, 16, height, width), or in N cells of it, (N, 16)."""
    return Maps(answer[:, 0], answer[:, 1 : 1 + SIGNS], answer[:, 1 + SIGNS :])


class NumberReader(NamedTuple):
    """The networks in ONNX Runtime, to read numbers."""

    detector: Session
    columns: Session
    expert: Session
    second: Session | None = None  # the second reader, if the job asks for it


def make_reader(weights: Weights, second: Session | None = None) -> NumberReader:
    """The networks with these weights, ready to read, perhaps with the second reader."""
    detector, columns, expert = (
        make_session(GRAPHS_FOLDER / f"{name}.onnx", take_weights(weights, name))
        for name in ("detector", "columns", "expert")
    )
    return NumberReader(detector, columns, expert, second)


def take_weights(weights: Weights, network: str) -> Weights:
    """The weights of one of the networks, without its prefix."""
    prefix = f"{network}."
    named = weights.items()
    return {key.removeprefix(prefix): value for key, value in named if key.startswith(prefix)}


def read_number_weights() -> tuple[Weights, Card]:
    """The weights with which numbers are to be read, with their card. Raises `DigitqError` if they
    differ.

    Some are saved in 16 bits, which halves their size.
    """
    card, weights = find_weights_of(NUMBER)
    return {name: value.float().numpy() for name, value in weights.items()}, card


def load_networks() -> tuple[NumberReader, Card]:
    """The networks that read numbers, with the second reader if it is in use, and their card.
    Raises what `load_own_networks`, `load_second_reader` and `Card.in_use` raise."""
    reader, card = load_own_networks()
    if not is_second_reader_used():
        return reader, card
    return reader._replace(second=load_second_reader()), card.in_use(second_reader=True)


@CachedByWeights
def load_own_networks() -> tuple[NumberReader, Card]:
    """The networks with these weights, ready to read. Raises what `read_number_weights` raises, and
    `DigitqError` for weights of other networks."""
    torch.set_num_threads(TORCH_THREADS)
    weights, card = read_number_weights()
    try:
        return make_reader(weights), card
    except Exception as error:  # those of ONNX Runtime have no class of their own
        raise DigitqError(f"the weights are not of these networks: {error}") from None
