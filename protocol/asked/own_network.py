"""A network of a person's own that must answer: how it travels, and is told from others."""

import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path

from digitq.protocol.chunk import WEIGHTS_DIGITS
from digitq.protocol.errors import UsageError
from digitq.protocol.host.regular_files import read_regular
from digitq.protocol.settings import FolderLike, find_weights

MIN_OWN_IMAGES = 20  # images with a right answer to learn from: fewer would say nothing
MAX_NETWORK_BYTES = 16 << 20  # a network with its card may have so many bytes
CARD_SIZE = struct.Struct(">I")  # what travels begins with the size of the card, in bytes


@dataclass(frozen=True)
class OwnNetwork:
    """What is stored in Redis once for all jobs that name it."""

    name: str  # as results name it, see `name_network`
    payload: bytes = field(default=b"", compare=False, repr=False)  # the card and the weights


def name_network(card: bytes) -> str:
    """The first digits of the SHA-256 of a model's card, which has that of its weights."""
    return hashlib.sha256(card).hexdigest()[:WEIGHTS_DIGITS]


def find_own_network(folder: FolderLike, model: str, named: str = "weights=") -> OwnNetwork:
    """The network of this model in a folder, which `named` has named. Raises `UsageError` if it is
    not there, or too large."""
    found = find_weights(Path(folder), model, named)
    try:
        card, weights = (
            read_regular(found / f"{model}.{suffix}", MAX_NETWORK_BYTES)
            for suffix in ("json", "safetensors")
        )
    except OSError as error:
        raise UsageError(f"can't read {error.filename}: {error.strerror or error}") from None
    return OwnNetwork(name_network(card), CARD_SIZE.pack(len(card)) + card + weights)


def unpack_network(network: OwnNetwork) -> tuple[bytes, bytes]:
    """The card and the weights of a network. Raises `ValueError` if they are not those of its name,
    or too large."""
    payload = network.payload
    if len(payload) > MAX_NETWORK_BYTES:
        raise ValueError(f"it has more than {MAX_NETWORK_BYTES >> 20} MB")
    if len(payload) < CARD_SIZE.size:
        raise ValueError("it is cut off")
    end = CARD_SIZE.size + CARD_SIZE.unpack_from(payload)[0]
    card = payload[CARD_SIZE.size : end]
    if name_network(card) != network.name:
        raise ValueError("it has another card than its name says")
    return card, payload[end:]
