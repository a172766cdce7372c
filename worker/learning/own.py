"""The parts of `digitq train NAME --data SOURCE` that all networks share.

A fifth of the images is held back, to measure the accuracy before and after.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from protocol.chunk import Chunk
from protocol.errors import OutputError, UsageError
from protocol.text import name_some, plural
from worker.classify import Outcome, watch
from worker.models.card import Card

MIN_OWN_IMAGES = 20  # an accuracy measured with fewer would say nothing
HELD_BACK_STEP = 5  # every fifth image is held back

T = TypeVar("T")
OwnImage = tuple[str, T, Any]  # its id, what was read of it, and the right answer


class Trained(NamedTuple):
    """A network that has learned own images."""

    before: Card  # the card of the weights that it began with
    card: Card
    weights: dict[str, Tensor]
    others: tuple[str, float, float]  # other images, with the accuracies before and after


def read_own(
    chunks: Iterable[Chunk],
    read: Callable[[pa.RecordBatch], Iterable[Outcome[T]]],
    what: str,
    seed: int,
) -> tuple[list[OwnImage[T]], list[OwnImage[T]], dict[str, int]]:
    """Read the images of chunks whose rows all have a truth; says which can't be read.

    Gives those to learn from, those held back, and how many others there are by the reason. Raises
    `UsageError` if too few can be read, or all show the same.
    """
    own: list[OwnImage[T]] = []
    failed: list[str] = []
    for chunk in chunks:
        watch.forget()
        ids, truths = (chunk.batch.column(name).to_pylist() for name in ("id", "truth"))
        for id, (image, error), truth in zip(ids, read(chunk.batch), truths, strict=True):
            if image is None:
                failed.append(f"{id} ({error})")
            else:
                own.append((id, image, truth))
    left_out = leave_out(failed, "can't be read")
    answers = [truth for _, _, truth in own]
    if len(own) < MIN_OWN_IMAGES:
        raise UsageError(
            f"{plural(len(own), 'image')} with a right answer can be read: "
            f"at least {MIN_OWN_IMAGES} are needed"
        )
    if len({*answers}) < 2:
        raise UsageError(f"all images show the same {what}, {answers[0]}: others are needed too")
    parts = hold_back(np.array(answers), seed)
    learned, held_back = ([own[row] for row in rows.tolist()] for rows in parts)
    return learned, held_back, left_out


def leave_out(failed: list[str], why: str) -> dict[str, int]:
    """Say which images are left out, if there are any; gives how many these are by the reason."""
    if not failed:
        return {}
    print(f"{plural(len(failed), 'image')} left out ({why}): {name_some(failed)}", file=sys.stderr)
    return {why: len(failed)}


def hold_back(labels: NDArray[Any], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows to learn from, and those held back: a fifth, also of each label if it has enough."""
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    is_held_back = np.zeros(len(labels), bool)
    is_held_back[order[HELD_BACK_STEP // 2 :: HELD_BACK_STEP]] = True
    return np.flatnonzero(~is_held_back), np.flatnonzero(is_held_back)


def check_writable(folder: Path, name: str) -> None:
    """Raises `UsageError` if a folder can't be made or written to, or has this model already."""
    if (folder / f"{name}.safetensors").exists():
        raise UsageError(f"{folder / name}.safetensors exists: choose another --out")
    try:
        TemporaryFile(dir=next(one for one in (folder, *folder.parents) if one.exists())).close()
    except OSError as error:
        raise UsageError(f"can't write to {folder}: {error.strerror or error}") from None


def write_model(out: Path, card: Card, weights: dict[str, Tensor]) -> Card:
    """Write the weights and the card to a folder; gives the card with the weights' SHA-256.

    Raises `OutputError`.
    """
    content = save({key: tensor.contiguous() for key, tensor in weights.items()})
    card = replace(card, sha256=hashlib.sha256(content).hexdigest())
    path = out / f"{card.name}.safetensors"
    try:
        out.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        card.write(out / f"{card.name}.json")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OutputError(f"can't write {path}: {error.strerror or error}") from None
    return card


def write_if_better(trained: Trained, out: Path, **more: Any) -> bool:
    """Print the accuracies, and write the network if it is better on one's own images.

    `more` is what else the card says. Gives whether it was written.
    """
    before, card = trained.before, replace(trained.card, risks=(), **more)  # it reads anew
    old, new = card.own_accuracy_before or 0.0, card.own_accuracy or 0.0
    print(f"{'':34}  before    after", file=sys.stderr)
    for what, was, is_now in (
        (f"your {card.own_held_back:,} images held back", old, new),
        trained.others,
        ("to review below", before.review_below, card.review_below),
    ):
        print(f"{what:34} {was:7.2%}  {is_now:7.2%}", file=sys.stderr)
    if new <= old:
        print(
            f"your images that are held back are read {'worse' if new < old else 'no better'} than "
            "before, so nothing is written: more images may help, or right answers that are "
            "checked once more",
            file=sys.stderr,
        )
        return False
    write_model(out, card, trained.weights)
    return True
