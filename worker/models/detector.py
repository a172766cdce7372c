"""The network that finds the digits of a number in a grey picture: a heat map of their middles.

A cell of the map covers 4×4 px. For each it gives how likely the middle of a sign is there, which
digit that is, if it is one, and where its edges are (X. Zhou et al., "Objects as Points", 2019).
"""

from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from protocol.chunk import CLASSES

CELL = 4  # px: side of a cell of the map
MULTIPLE = 16  # the sides of a picture are padded to a multiple of this, in px
OTHER = CLASSES  # the class, after the ten digits, of letters and of digits that are crossed out
SIGNS = CLASSES + 1
EDGES = 4  # left, top, right and bottom
SIZE_UNIT = 16.0  # px: the distances of the edges from the cell's middle are learned in this unit

Array = TypeVar("Array", Tensor, NDArray[np.float32])


class Maps(NamedTuple, Generic[Array]):
    """What the network gives for each cell of N pictures, or of N cells alone."""

    middle: Array  # (N, height, width): the logit of a sign's middle being there
    signs: Array  # (N, 11, height, width): the logits of the ten digits and of `OTHER`
    edges: Array  # (N, 4, height, width): distances to left, top, right, bottom, in SIZE_UNIT


def divide(answer: Array) -> Maps[Array]:
    """The maps in the network's answer, (N, 16, height, width), or in N cells of it, (N, 16)."""
    return Maps(answer[:, 0], answer[:, 1 : 1 + SIGNS], answer[:, 1 + SIGNS :])
