"""Chance: a generator of random numbers, what it picks from, and arrays of images and labels."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Rng = np.random.Generator
Images = NDArray[np.uint8]  # (N, side, side): 28 px of MNIST, 56 px of real hands
Labels = NDArray[np.int64]  # (N,)


def pick(options: Sequence[T], rng: Rng) -> T:
    """Draw one of the options; one that is listed twice is drawn twice as often."""
    return options[int(rng.integers(len(options)))]


def pick_by_weight(weights: Mapping[T, float], rng: Rng) -> T:
    """Draw one of the keys, each as often as its weight says."""
    shares = np.array([*weights.values()])
    place = np.searchsorted(shares.cumsum(), rng.random() * shares.sum())
    return [*weights][int(place)]
