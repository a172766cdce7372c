"""The parts of `digitq train NAME --data SOURCE` that all networks share.

A fifth of the images is held back, to measure what is right, to review, and wrong without a mark,
before and after.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from safetensors.torch import save
from torch import Tensor

from digitq.protocol.asked.own_network import MIN_OWN_IMAGES
from digitq.protocol.chunk import Chunk
from digitq.protocol.errors import OutputError, UsageError
from digitq.protocol.text import name_some, plural
from digitq.worker.classify import Outcome, watch
from digitq.worker.learning.calibration import Judged, Score, measure_score, raise_threshold
from digitq.worker.learning.held_back import hold_back
from digitq.worker.models.card import Card

T = TypeVar("T")
OwnImage = tuple[str, T, Any]  # its id, what was read of it, and the right answer


class Compared(NamedTuple):
    """The answers to the same images before and after the training."""

    before: Judged
    after: Judged


class Trained(NamedTuple):
    """A network that has learned own images."""

    before: Card  # the card of the weights that it began with
    card: Card
    weights: dict[str, Tensor]
    own: Compared  # the own images held back
    held_back: list[str]  # the ids of these
    rehearsed: Compared  # images like those that are rehearsed beside own ones
    kind: str  # what these show: "images of MNIST"


def read_own(
    chunks: Iterable[Chunk],
    read: Callable[[pa.RecordBatch], Iterable[Outcome[T]]],
    what: str,
    seed: int,
) -> tuple[list[OwnImage[T]], list[OwnImage[T]], dict[str, int]]:
    """Read the images of chunks whose rows all have a right answer; says which can't be read.

    Gives those to learn from, those held back, and how many others there are by the reason. Raises
    `UsageError` if too few can be read, or all show the same.
    """
    own: list[OwnImage[T]] = []
    failed: list[str] = []
    for chunk in chunks:
        watch.forget()
        ids, truths = (pa.array(one).to_pylist() for one in (chunk.batch["id"], chunk.truth))
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
    is_held_back = hold_back([id for id, _, _ in own], answers, seed)
    learned, held_back = (
        [one for one, is_in in zip(own, part, strict=True) if is_in]
        for part in (~is_held_back, is_held_back)
    )
    return learned, held_back, left_out


def leave_out(failed: list[str], why: str) -> dict[str, int]:
    """Say which images are left out, if there are any; gives how many these are by the reason."""
    if not failed:
        return {}
    print(f"{plural(len(failed), 'image')} left out ({why}): {name_some(failed)}", file=sys.stderr)
    return {why: len(failed)}


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
    """Print what was measured, and write the network if it is better on one's own images.

    The threshold for `review` rises until no more answers than before are wrong without a mark.
    `more` is what else the card says. Gives whether the network was written.
    """
    old, below = trained.before.review_below, trained.card.review_below
    compared = trained.own, trained.rehearsed
    for one in compared:
        below = raise_threshold(below, measure_score(one.before, old).unmarked_errors, one.after)
    own, rehearsed = (
        (measure_score(one.before, old), measure_score(one.after, below)) for one in compared
    )
    print(f"{'':34} {'right':20} {'to review':20} wrong and unmarked", file=sys.stderr)
    print(f"{'':34}" + "     ".join(["  before    after"] * 3), file=sys.stderr)
    images, others = len(trained.held_back), len(trained.rehearsed.after.is_right)
    show_scores(f"your {images:,} images held back", own)
    show_scores(f"{others:,} held-back {trained.kind}", rehearsed)
    print(f"{'to review below':34} {old:7.2%}  {below:7.2%}", file=sys.stderr)
    if why := find_refusal(own, rehearsed):
        print(f"{why}, so nothing is written: {advise(trained)}", file=sys.stderr)
        return False
    card = replace(
        trained.card,
        review_below=below,
        risks=(),  # those of the old weights say nothing of the new ones
        own_accuracy_before=own[0].right,
        own_accuracy=own[1].right,
        own_to_review_before=own[0].to_review,
        own_to_review=own[1].to_review,
        own_unmarked_errors_before=own[0].unmarked_errors,
        own_unmarked_errors=own[1].unmarked_errors,
        rehearsed_unmarked_errors_before=rehearsed[0].unmarked_errors,
        rehearsed_unmarked_errors=rehearsed[1].unmarked_errors,
        **more,
    )
    write_model(out, card, trained.weights)
    return True


def show_scores(what: str, scores: tuple[Score, Score]) -> None:
    """Print a row of the table: each share before and after."""
    cells = "     ".join(f"{was:7.2%}  {now:7.2%}" for was, now in zip(*scores, strict=True))
    print(f"{what:34} {cells}", file=sys.stderr)


def find_refusal(own: tuple[Score, Score], rehearsed: tuple[Score, Score]) -> str:
    """Why a network is not to be written, from the scores before and after; "" if it is."""
    was, now = own
    if now.right <= was.right:
        how = "worse" if now.right < was.right else "no better"
        return f"your images that are held back are read {how} than before"
    is_silent = any(now.unmarked_errors > was.unmarked_errors for was, now in (own, rehearsed))
    if is_silent or now.right_and_unmarked < was.right_and_unmarked:
        return (
            "more images than before would be wrong without a mark, unless so many were to review "
            "that fewer of yours were right without a mark"
        )
    return ""


def advise(trained: Trained) -> str:
    """What may help if a network is not written; names the own images that are surely wrong."""
    confidence, is_right = trained.own.after
    order = confidence.argsort(descending=True).tolist()
    sure = [trained.held_back[row] for row in order if confidence[row] > 0 and not is_right[row]]
    wrong = f", first of all those of {name_some(sure)}" if sure else ""
    return f"more images may help, or right answers that are checked once more{wrong}"
