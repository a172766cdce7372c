"""A smooth shift of a plane, as a bent page has: each direction is a polynomial of degree three."""

from collections.abc import Callable
from functools import lru_cache
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import Grey
from digitq.worker.sight.forms.perspective import Points

POWERS = [(i, j) for i, j in product(range(4), repeat=2) if i + j <= 3]  # powers of x, y
DEGREES = np.array([i + j for i, j in POWERS])
KNOTS = 33  # a picture is bent through a grid of so many points each way
SMOOTH_WEIGHT = 4e-4  # keeps a shift small where nothing tells it
Shift = NDArray[np.float64]  # (10, 2): the coefficients of `monomials`, px
NO_SHIFT: Shift = np.zeros((len(POWERS), 2))


def monomials(points: Points, size: tuple[int, int]) -> NDArray[np.float64]:
    """All products of x and y up to the third degree, (N, 10), in which both go from -1 to 1."""
    x, y = (2 * points / size - 1).T
    return np.stack([x**i * y**j for i, j in POWERS], axis=1)


def fit_shift(
    terms: NDArray[np.float64],
    shifts: NDArray[np.float64],
    weights: NDArray[np.float64],
    near: float,
) -> Shift:
    """The smooth shift through shifts (N, 2) where `terms` (N, 10) are.

    `weights` (N, 2, 2) say how much each counts in which direction. One that differs by more than
    `near` px from the smooth shift counts less.
    """
    count = terms.shape[1]
    ridge = np.diag(np.repeat(SMOOTH_WEIGHT * len(terms) * DEGREES**2, 2).astype(np.float64))
    ridge += 1e-6 * np.eye(2 * count)
    coefficients = np.zeros((count, 2))
    trust = np.ones(len(terms))
    for strictness in (8, 4, 2, 1, 1, 1):
        told = trust[:, None, None] * weights
        left = np.empty((count, 2, count, 2))
        for a, b in product(range(2), repeat=2):
            left[:, a, :, b] = (terms * told[:, a, b, None]).T @ terms
        right = terms.T @ multiply(told, shifts)
        solved = np.linalg.solve(left.reshape(2 * count, 2 * count) + ridge, right.reshape(-1))
        coefficients = np.asarray(solved, np.float64).reshape(count, 2)
        miss = shifts - terms @ coefficients
        error = np.sqrt((miss * multiply(weights, miss)).sum(1).clip(0))
        trust = 1 / (1 + (error / (strictness * near)) ** 2) ** 2
    return coefficients


def multiply(matrices: NDArray[np.float64], vectors: Points) -> Points:
    """The product of each matrix (N, 2, 2) and its vector (N, 2)."""
    return np.asarray((matrices @ vectors[:, :, None])[:, :, 0])


def undo_shift(points: Points, shift: Shift, size: tuple[int, int]) -> Points:
    """The points (N, 2) that the shift brought there."""
    before = points
    for _ in range(4):
        before = points - monomials(before, size) @ shift
    return before


def warp_smoothly(picture: Grey, place: Callable[[Points], Points], size: tuple[int, int]) -> Grey:
    """The picture of width and height `size` whose px `place` puts into those of `picture`.

    What is outside of the picture is like its edge.
    """
    knots = np.linspace(0, 1, KNOTS)
    targets = place(np.stack(np.meshgrid(knots, knots), 2).reshape(-1, 2) * size) - 0.5
    rim = cv2.BORDER_REPLICATE
    shown = targets.reshape(KNOTS, KNOTS, 2).astype(np.float32)
    dense = cv2.remap(shown, place_on_knots(*size), None, cv2.INTER_LINEAR, borderMode=rim)
    return np.asarray(cv2.remap(picture, dense, None, cv2.INTER_LINEAR, borderMode=rim))


@lru_cache(maxsize=4)
def place_on_knots(wide: int, high: int) -> NDArray[np.float32]:
    """Where the px of a picture of this size are on its grid, (high, wide, 2), in knots."""
    across, down = ((np.arange(side) + 0.5) / side * (KNOTS - 1) for side in (wide, high))
    return np.stack(np.meshgrid(across, down), 2).astype(np.float32)
