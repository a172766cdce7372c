"""The models by name: a network, its weights, and the card that says where they come from."""

import hashlib
import math
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load

from protocol.errors import DigitqError, UsageError
from protocol.settings import MODELS
from worker.models.card import Card, card_path, read_card
from worker.models.fast import optimise
from worker.models.network import CLASSES, NETWORKS, PIXELS, Mlp, Network

RANDOM_SEED = 0
THREADS = 1  # of torch in a process; with two, sums are added up in another order


@dataclass(frozen=True)
class Model:
    """A network ready to classify."""

    network: Network
    card: Card
    device: torch.device = torch.device("cpu")

    @cached_property
    def fastest(self) -> Network:
        """The network in the form that is fastest on its device."""
        return optimise(self.network) if self.device.type == "cpu" else self.network

    def classify(self, pixels: NDArray[np.uint8], first_row: int = 0) -> NDArray[np.float32]:
        """Ten probabilities for each image: (N, 784) uint8 → (N, 10) float32.

        In float32 a row's last bits depend on its place in the batch and on the batch's size. So
        the network only ever sees tiles of its `tile_rows`, or a part of one that is a multiple of
        its `row_multiple`, which does a row's sums in the same order. Image i of a job (`first_row`
        is the place of the first one here) lies at row i % tile_rows of its tile, between zeros
        where there is no image: the bytes are the same however a job is cut.
        """
        with catch_warnings():  # of memory that is read only: nothing here writes to it
            simplefilter("ignore")
            rows = torch.from_numpy(np.ascontiguousarray(pixels))
        probabilities = torch.empty(len(rows), CLASSES)
        with torch.inference_mode():
            tile_rows = self.fastest.tile_rows
            start, place = 0, first_row % tile_rows
            while start < len(rows):
                stop = min(start + tile_rows - place, len(rows))
                probabilities[start:stop] = self._classify_tile(rows[start:stop], place)
                start, place = stop, 0
        return probabilities.numpy()

    def classify_together(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same of a few images that are always classified together, in this order: without
        zeros around them."""
        with torch.inference_mode():
            probabilities: torch.Tensor = self.fastest(torch.from_numpy(pixels).to(self.device))
        return probabilities.cpu().numpy()

    def _classify_tile(self, rows: torch.Tensor, place: int) -> torch.Tensor:
        """Classify up to a tile of rows, between zeros where they fill no whole grains."""
        row_multiple = self.fastest.row_multiple
        before = place % row_multiple
        size = math.ceil((before + len(rows)) / row_multiple) * row_multiple
        if len(rows) == size:
            tile = rows
        else:
            tile = torch.zeros(size, PIXELS, dtype=torch.uint8)
            tile[before : before + len(rows)] = rows
        if self.device.type != "cpu":  # from pinned memory, a GPU fetches them by itself
            tile = tile.pin_memory().to(self.device, non_blocking=True)
        probabilities: torch.Tensor = self.fastest(tile)
        return probabilities[before : before + len(rows)]


@cache
def load_model(name: str) -> Model:
    """The model of that name, loaded once in a process.

    It sets torch to one thread: with more, last bits change.
    Raises `UsageError` for an unknown name, `DigitqError` where the weights aren't the card's.
    """
    if name not in MODELS:
        raise UsageError(f"there is no model {name!r}; there are: {', '.join(MODELS)}")
    torch.set_num_threads(THREADS)
    model = build_random_model() if name == "random" else read_model(card_path(name))
    if not has_mkl():  # only its strict mode adds up alike in any tile: small ones are cheaper then
        model.fastest.row_multiple = model.fastest.tile_rows = model.network.tile_rows
    return model


def has_mkl() -> bool:
    """Whether torch multiplies with Intel's library."""
    is_available: Any = torch.backends.mkl.is_available  # torch has no types here
    return bool(is_available())


def build_random_model() -> Model:
    """The tutorial's untrained network, right about one time in ten: weights from N(0, 1)."""
    network = Mlp(mean=0.5, std=0.5)
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    card = Card("random", network.architecture, 0.5, 0.5, seed=RANDOM_SEED)
    return Model(freeze(network), card)


def check_model(name: str) -> None:
    """Raises `DigitqError` where `load_model` would not find the weights its card describes."""
    if name != "random":
        read_weights(card_path(name))


def read_weights(card_path: Path) -> tuple[Card, bytes]:
    """Read a card and the `.safetensors` file beside it, checking the SHA-256."""
    card = read_card(card_path)
    path = card_path.with_suffix(".safetensors")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DigitqError(f"{path} can't be read ({error}); install digitq again") from error
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise DigitqError(
            f"{path} isn't the file its card describes (the SHA-256 differs); "
            "install digitq again or train the model again"
        )
    if card.architecture not in NETWORKS:
        raise DigitqError(
            f"{card_path} asks for {card.architecture!r}, which this digitq hasn't; "
            f"it has: {'; '.join(NETWORKS)}"
        )
    return card, data


def read_model(card_path: Path) -> Model:
    """Read a model from its card and weights. Raises `DigitqError` where they don't belong."""
    card, data = read_weights(card_path)
    weights = load(data)
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise DigitqError(f"{card_path}: some weights are no numbers: train the model again")
    with torch.inference_mode():
        network = NETWORKS[card.architecture](card.mean, card.std)
        network.load_state_dict(weights)
    network.temperature = card.temperature
    return Model(freeze(network), card)


def freeze(network: Network) -> Network:
    """Set a network up for classifying only: no gradients, evaluation mode."""
    return network.requires_grad_(False).eval()
