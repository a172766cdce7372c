"""The models by name: a network, its weights, its card, and the device that it runs on."""

import copy
import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from warnings import catch_warnings

import numpy as np
import torch
from billiard.process import current_process
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.nn.functional import pad

from digitq.protocol.chunk import CLASSES, MODEL_ROWS, TILE_ROWS
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.settings import MODELS, WORKER_INDEX, settings
from digitq.worker.models.card import Card, card_path, parse_card, read_card
from digitq.worker.models.fast import FastNetwork
from digitq.worker.models.lent import CachedByWeights, fetch_lent
from digitq.worker.models.network import NETWORKS, NUMBER_READER, Mlp, Network

TORCH_THREADS = 1  # a worker process has one; two threads would add sums in another order
ROW_MULTIPLE = 16  # a row's last bits differ in a part of a tile that is no multiple of this

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A network ready to classify."""

    network: Network
    card: Card
    fastest: Network  # the form of the network that is fastest on its device
    tile_rows: int  # how many rows are classified at once
    row_multiple: int  # a part of a tile is padded to a multiple of this
    device: torch.device = torch.device("cpu")

    def classify(self, pixels: NDArray[np.uint8], first_row: int = 0) -> NDArray[np.float32]:
        """Ten probabilities for each image: (N, 784) uint8 → (N, 10) float32.

        In float32 a row's last bits depend on its index in the batch and on the batch's size. So
        image i of a job is always at row i % tile_rows of a tile, and zeros fill the rows without
        an image. Thus the result has the same bytes however a job is cut. `first_row` is the index
        in the job of the first image.
        """
        with catch_warnings(action="ignore"):  # torch warns of Arrow's read-only memory
            rows = torch.from_numpy(np.ascontiguousarray(pixels))
        probabilities = torch.empty(len(rows), CLASSES)
        start, row = 0, first_row % self.tile_rows
        with torch.inference_mode():
            while start < len(rows):
                stop = min(start + self.tile_rows - row, len(rows))
                probabilities[start:stop] = self._classify_tile(rows[start:stop], row)
                start, row = stop, 0
        return probabilities.numpy()

    def classify_together(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify images that always form the same batch: they need no zeros."""
        with torch.inference_mode():
            probabilities: Tensor = self.fastest(torch.from_numpy(pixels).to(self.device))
        return probabilities.cpu().numpy()

    def _classify_tile(self, rows: Tensor, first_row: int) -> Tensor:
        """Classify rows from `first_row` of a tile on, padded with zeros to `row_multiple`."""
        before = first_row % self.row_multiple
        after = -(before + len(rows)) % self.row_multiple
        tile = pad(rows, (0, 0, before, after)) if before or after else rows
        if self.device.type != "cpu":  # a GPU copies from pinned memory by itself
            tile = tile.pin_memory().to(self.device, non_blocking=True)
        probabilities: Tensor = self.fastest(tile)
        return probabilities[before : before + len(rows)]


@CachedByWeights
def load_model(name: str) -> Model:
    """The model of that name on the CPU, loaded once in a process.

    This sets torch to one thread for the process: with more, last bits change. Raises `UsageError`
    for an unknown name, `DigitqError` if the weights don't match their card.
    """
    if name not in MODELS:
        raise UsageError(f"there is no model {name!r}; there are: {', '.join(MODELS)}")
    torch.set_num_threads(TORCH_THREADS)
    if name == "random":
        return build_random_model()
    return make_model(*find_weights_of(name))


def build_model(network: Network, card: Card) -> Model:
    """A model on the CPU, with the tiles in which its answers depend on no other row."""
    network = network.requires_grad_(False).eval()
    fastest = FastNetwork(network) if isinstance(network, Mlp) else network
    if torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return Model(network, card, fastest, fastest.tile_rows, ROW_MULTIPLE)
    # without MKL, a part of a tile is summed differently, so tiles are smaller and always whole
    return Model(network, card, fastest, network.tile_rows, network.tile_rows)


def build_random_model() -> Model:
    """The tutorial's untrained network, whose weights are drawn from N(0, 1)."""
    network = Mlp(mean=0.5, std=0.5)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.normal_(generator=generator)
    return build_model(network, Card("random", network.architecture, 0.5, 0.5))


def find_weights_of(name: str) -> tuple[Card, dict[str, Tensor]]:
    """The card and the weights with which a model is to answer: those that the job has brought,
    else those in `DIGITQ_WEIGHTS`, else digitq's own. Raises `DigitqError` if they don't match."""
    if lent := fetch_lent():
        card = parse_card(lent[0], "its card")
        if card.name != name:
            raise DigitqError(f"it is of {card.name}, and not of {name}")
        return card, check_weights(card, lent[1], "its card", "its file of weights")
    path, own = card_path(name), settings().own_weights()
    if own and path.parent != own:
        logger.warning("DIGITQ_WEIGHTS=%s has no %s.json: digitq's own %s is used", own, name, name)
    return read_weights(path)


def read_weights(card_path: Path) -> tuple[Card, dict[str, Tensor]]:
    """Read a card and the file of its weights. Raises `DigitqError` if they don't match."""
    card, path = read_card(card_path), card_path.with_suffix(".safetensors")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DigitqError(f"{path} can't be read ({error}): install digitq again") from error
    return card, check_weights(card, content, str(card_path), str(path))


def check_weights(card: Card, content: bytes, card_name: str, name: str) -> dict[str, Tensor]:
    """The weights in a file of this content. Raises `DigitqError`, with the name of the card or of
    the file, if they don't match, or if this digitq has no such network."""
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise DigitqError(
            f"{name} isn't the file that its card describes (the SHA-256 differs): "
            "install digitq again or train the model again"
        )
    known = [*NETWORKS, NUMBER_READER]
    if card.architecture not in known:
        raise DigitqError(
            f"{card_name} asks for {card.architecture!r}, which this digitq does not have; "
            f"it has: {'; '.join(known)}"
        )
    try:
        weights = load(content)
    except (SafetensorError, ValueError) as error:
        raise DigitqError(f"{name} is damaged ({error})") from None
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise DigitqError(f"{card_name}: some weights are not finite: train the model again")
    return weights


def read_model(card_path: Path) -> Model:
    """Read a model from its card and weights. Raises `DigitqError` if they don't match."""
    return make_model(*read_weights(card_path))


def make_model(card: Card, weights: dict[str, Tensor]) -> Model:
    """The model with these weights. Raises `DigitqError` if the network has others."""
    with torch.inference_mode():
        network = NETWORKS[card.architecture](card.mean, card.std, card.temperature)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise DigitqError(f"the weights are not of this network: {error}") from None
    return build_model(network, card)


def count_gpus() -> int:
    """The number of GPUs to use. Raises `UsageError` if `DIGITQ_DEVICE=cuda` and there is none."""
    # torch asks NVML, so that CUDA isn't started before the fork
    found = 0 if settings().device == "cpu" else torch.cuda.device_count()
    if settings().device == "cuda" and not found:
        raise UsageError(
            "DIGITQ_DEVICE=cuda, but torch finds no GPU: see `nvidia-smi` and install torch's "
            "CUDA build, or set DIGITQ_DEVICE=auto"
        )
    return found


def choose_device() -> torch.device:
    """This process's device: the processes of a worker, or the workers of a command, take turns."""
    index = int(os.environ.get(WORKER_INDEX, "0")) + getattr(current_process(), "index", 0)
    gpus = count_gpus()
    return torch.device("cuda", index % gpus) if gpus else torch.device("cpu")


@CachedByWeights
def load_on_device(name: str) -> Model:
    """The model on this process's device. Raises what `load_model` and `count_gpus` raise."""
    device = choose_device()
    model = load_model(name)
    return model if device.type == "cpu" else move_to_gpu(model, device)


def move_to_gpu(model: Model, device: torch.device) -> Model:
    """The model on a GPU, with larger tiles, sums in float32 and always in one order."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    network = copy.deepcopy(model.network).to(device)
    rows = MODEL_ROWS.get(model.card.name, TILE_ROWS)  # as many as a job's first chunks have
    return Model(network, model.card, network, rows, rows, device)
