"""The parts of `digitq train NAME --data SOURCE` that all networks share.

A fifth of the images with a right answer is held back, to measure what is right, to review, and
wrong without a mark, before and after. Without right answers, it is measured what is to review.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from digitq.protocol.asked.own_network import MIN_OWN_IMAGES
from digitq.protocol.chunk import Chunk
from digitq.protocol.errors import OutputError, UsageError
from digitq.protocol.text import name_some, plural
from digitq.worker.classify import Outcome, watch
from digitq.worker.learning.calibration import Judged, Score, measure_score, raise_threshold
from digitq.worker.learning.held_back import hold_back
from digitq.worker.learning.surest import MIN_SURE, TooFewError
from digitq.worker.models.card import Card
from digitq.worker.models.second_reader import is_second_reader_used

T = TypeVar("T")
OwnImage = tuple[str, T, Any]  # its id, what was read of it, and the right answer, or None
# If a larger share of the answers that were sure are others, a network has learned its own errors
MAX_CHANGED = 0.02
# Where a network that teaches itself saves a smaller share of all answers from review, it makes as
# many errors as it corrects
MIN_SAVED = 0.015
NO_ANSWER = "no right answer"


class OwnImages(NamedTuple, Generic[T]):
    """One's own images, as they were read."""

    learned: list[OwnImage[T]]  # those with a right answer to learn from
    held_back: list[OwnImage[T]]  # and those that measure what was learned
    unknown: list[OwnImage[T]]  # those without a right answer
    left_out: dict[str, int]  # how many others there are, by the reason


class Compared(NamedTuple):
    """The answers to the same images before and after the training."""

    before: Judged
    after: Judged


class Taught(NamedTuple):
    """What a network answers to the same N images, once it has learned some of its answers."""

    was_unmarked: NDArray[np.bool_]  # (N,): whether the answers before were not to review
    is_unmarked: NDArray[np.bool_]
    has_changed: NDArray[np.bool_]  # whether the answer is another one
    teacher: "Taught | None" = None  # of the network whose answers it learned, if that is another
    # In how many it agrees with the second reader, before and after, if that is in use
    agreed: tuple[int, int] | None = None

    @property
    def to_review(self) -> int:
        """How many answers are to be reviewed: also those that are others than before."""
        return int((~self.is_unmarked | self.has_changed).sum())

    @property
    def confirmed(self) -> int:
        """How many answers were to be reviewed, and are the same and sure now."""
        return int((~self.was_unmarked & self.is_unmarked & ~self.has_changed).sum())


class Trained(NamedTuple):
    """A network that has learned own images."""

    before: Card  # the card of the weights that it began with
    card: Card
    weights: dict[str, Tensor]
    own: Compared | Taught  # the own images held back; those without a right answer if none are
    held_back: list[str]  # the ids of these
    rehearsed: Compared | None  # images like those that are rehearsed beside own ones
    kind: str  # what these show: "images of MNIST"


def read_own(
    chunks: Iterable[Chunk],
    read: Callable[[pa.RecordBatch], Iterable[Outcome[T]]],
    what: str,
    seed: int,
) -> OwnImages[T]:
    """Read the images of chunks; says which can't be read. A fifth of those with a right answer is
    held back.

    If many images have no right answer, the others may be too few for that; few of them are left
    out. Raises `UsageError` if too few can be read, or all show the same, and `TooFewError` if none
    can be read and none has a right answer.
    """
    own: list[OwnImage[T]] = []
    failed: list[str] = []
    has_answers = False
    for chunk in chunks:
        watch.forget()
        ids = pa.array(chunk.batch["id"]).to_pylist()
        truths = pa.array(chunk.truth).to_pylist() if chunk.truth else [None] * len(ids)
        has_answers |= any(truths)
        for id, (image, error), truth in zip(ids, read(chunk.batch), truths, strict=True):
            if image is None:
                failed.append(f"{id} ({error})")
            else:
                own.append((id, image, None if truth == "" else truth))
    left_out = leave_out(failed, "can't be read")
    unknown = [one for one in own if one[2] is None]
    labelled = [one for one in own if one[2] is not None]
    answers = [truth for _, _, truth in labelled]
    if len(labelled) >= MIN_OWN_IMAGES and len(unknown) < MIN_SURE:
        left_out |= leave_out([id for id, _, _ in unknown], NO_ANSWER)
        unknown = []
    if unknown and len(labelled) < MIN_OWN_IMAGES:
        return OwnImages(labelled, [], unknown, left_out)
    if not own and not has_answers:
        raise TooFewError("no image can be read")
    if len(labelled) < MIN_OWN_IMAGES:
        raise UsageError(
            f"{plural(len(labelled), 'image')} with a right answer can be read: "
            f"at least {MIN_OWN_IMAGES} are needed"
        )
    if len({*answers}) < 2 and not unknown:
        raise UsageError(f"all images show the same {what}, {answers[0]}: others are needed too")
    is_held_back = hold_back([id for id, _, _ in labelled], answers, seed)
    learned, held_back = (
        [one for one, is_in in zip(labelled, part, strict=True) if is_in]
        for part in (~is_held_back, is_held_back)
    )
    return OwnImages(learned, held_back, unknown, left_out)


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


def write_if_better(trained: Trained, out: Path, **more: Any) -> str:
    """Print what was measured, and write the network if it is better on one's own images.

    The threshold for `review` rises until no more answers than before are wrong without a mark.
    `more` is what else the card says. Gives why the network was not written; "" if it was.
    """
    has_second, card = is_second_reader_used(), trained.card
    alone, with_second = card.thresholds
    if isinstance(trained.own, Taught):
        if why := show_taught(trained.own):
            return why
        card = replace(card.mark_below(alone, with_second), **more)
        write_model(out, card, trained.weights)
        return ""
    old, below = trained.before.review_below, with_second if has_second else alone
    assert trained.rehearsed
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
        return why
    # The way in which it was not judged marks no less
    alone, with_second = (
        (max(alone, below), below) if has_second else (below, max(with_second, below))
    )
    card = replace(
        card.mark_below(alone, with_second),
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
    return ""


def show_taught(own: Taught) -> str:
    """Print what became of images without a right answer; gives why nothing is gained, or ""."""
    images, was = len(own.has_changed), int((~own.was_unmarked).sum())
    sure = int(own.was_unmarked.sum())
    changed = int((own.was_unmarked & own.has_changed).sum())
    print(
        f"of {plural(images, 'image')} of yours, {was:,} were to review, and {own.to_review:,} "
        f"are; of {sure:,} answers that were not, {changed:,} have changed",
        file=sys.stderr,
    )
    if changed > MAX_CHANGED * sure:
        return f"{changed / sure:.1%} of the answers that were sure would be others"
    if own.agreed:
        return refuse_disagreement(*own.agreed, ceil(MIN_SAVED * images))
    # What is no digit has no answer to be sure of: a network that learns it goes to and fro
    teacher = own.teacher or own
    if (others := int(teacher.has_changed.sum())) > teacher.confirmed:
        return (
            f"{others:,} answers would be others, and only {teacher.confirmed:,} would become sure"
        )
    needed = 1 if own.teacher else ceil(MIN_SAVED * images)
    if was - own.to_review < needed:
        return (
            f"{was:,} to review would become {own.to_review:,}, and at least {needed:,} fewer "
            "are needed"
        )
    return ""


def refuse_disagreement(before: int, after: int, needed: int) -> str:
    """Why a network has not gained that agrees with the second reader in so many answers; gives ""
    if it has. The second reader does not learn, so it can be asked."""
    if after - before >= needed:
        return ""
    return (
        f"the second reader agrees with {before:,} answers and would agree with {after:,}, and at "
        f"least {needed:,} more are needed"
    )


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
    """What may help if a network is not written, after a colon; names the own images that are
    surely wrong. "" if none has a right answer."""
    if isinstance(trained.own, Taught):
        return ""
    confidence, is_right = trained.own.after
    order = confidence.argsort(descending=True).tolist()
    sure = [trained.held_back[row] for row in order if confidence[row] > 0 and not is_right[row]]
    wrong = f", first of all those of {name_some(sure)}" if sure else ""
    return f": more images may help, or right answers that are checked once more{wrong}"
