"""The networks that read whole numbers: what they give, and how they are loaded.

The detector finds digits in a grey picture: a heat map of their middles. A cell of the map covers
4×4 px. For each it gives how likely the middle of a sign is there, which digit that is, if it is
one, and where its edges are (X. Zhou et al., "Objects as Points", 2019).

The network of columns reads a line column by column. For every second column of a strip it gives
how likely the middle of each digit or sign of `ALPHABET` is there, or of none (A. Graves et al.,
"Connectionist Temporal Classification", 2006). The expert gives the same. It has ten times as many
weights, and sees a higher strip.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import onnxruntime
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


COLUMNS_SIZE, EXPERT_SIZE = StripSize(28, 17), StripSize(40, 24)
STRIDE = 2  # px: a column of the answer covers this much of the strip's width
BLANK = len(ALPHABET)  # the class, after these, of a column that is the middle of none of them

GRAPHS_FOLDER = Path(__file__).parent / "graphs"
Weights = dict[str, NDArray[np.float32]]  # a network's name is the prefix of its weights' names
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

    detector: Callable[[Tensor], Tensor]
    columns: Callable[[Tensor], Tensor]
    expert: Callable[[Tensor], Tensor]


def make_reader(weights: Weights) -> NumberReader:
    """The networks with these weights, ready to read."""
    return NumberReader(
        *(
            make_session(GRAPHS_FOLDER / f"{name}.onnx", take_weights(weights, name))
            for name in NumberReader._fields
        )
    )


def make_session(graph: Path, weights: Weights) -> Callable[[Tensor], Tensor]:
    """The network whose graph is in a file, with weights by the names that they have there.

    ONNX Runtime computes it on one thread, in half of torch's time for a small picture.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # an exception says what goes wrong
    values = [
        onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
        for value in weights.values()
    ]
    options.add_external_initializers([*weights], values)
    session = onnxruntime.InferenceSession(graph.read_bytes(), options, ["CPUExecutionProvider"])
    (parameter,) = session.get_inputs()

    def answer(images: Tensor, weights: object = values) -> Tensor:  # the session has no copy
        (answers,) = session.run(None, {parameter.name: images.numpy()})
        return torch.from_numpy(answers)

    return answer


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


@CachedByWeights
def load_networks() -> tuple[NumberReader, Card]:
    """The networks with these weights, ready to read. Raises what `read_number_weights` raises, and
    `DigitqError` for weights of other networks."""
    torch.set_num_threads(TORCH_THREADS)
    weights, card = read_number_weights()
    try:
        return make_reader(weights), card
    except Exception as error:  # those of ONNX Runtime have no class of their own
        raise DigitqError(f"the weights are not of these networks: {error}") from None
