"""A network of a person's own that must answer, and how it is told from others."""

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from digitq.protocol.chunk import WEIGHTS_DIGITS
from digitq.protocol.settings import FolderLike, find_weights, in_use

MIN_OWN_IMAGES = 20  # images with a right answer to learn from: fewer would say nothing


@dataclass(frozen=True)
class OwnNetwork:
    """What travels with a job."""

    name: str  # as results name it, see `name_network`
    folder: str  # the folder of `digitq train` that has it, where the job was submitted


OWN_NETWORK = TypeAdapter(OwnNetwork)  # reads what JSON has of one


def name_network(card: Path) -> str:
    """The first digits of the SHA-256 of a model's card, which has that of its weights."""
    return hashlib.sha256(card.read_bytes()).hexdigest()[:WEIGHTS_DIGITS]


def find_own_network(folder: FolderLike, model: str) -> OwnNetwork:
    """The network of this model in a folder. Raises `UsageError` if it is not there."""
    found = find_weights(Path(folder), model, "weights=")
    return OwnNetwork(name_network(found / f"{model}.json"), str(found))


def use_network(network: OwnNetwork | None) -> AbstractContextManager[None]:
    """Within this context, networks are loaded from its folder, if there is one, in place of
    `DIGITQ_WEIGHTS`."""
    return in_use(network.folder, network.name) if network else nullcontext()
