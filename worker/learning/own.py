"""Goes on training a network with one's own images: `digitq train cnn --data SOURCE`.

They are read as a worker reads them. A fifth is held back, and the network learns the others beside
MNIST's images, which it would forget otherwise.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from protocol.chunk import CLASSES, PIXELS, Chunk, kind_of
from protocol.errors import UsageError
from protocol.mnist import NoMnistError
from protocol.text import name_some, plural
from worker.classify import (
    TTA_BELOW,
    combine_views,
    find_best,
    read_image,
    read_pixels,
    read_rows,
    watch,
)
from worker.dataset import load_mnist
from worker.learning.calibration import (
    calibrate,
    choose_digit_threshold,
    classify,
    measure_accuracy,
    measure_calibration_error,
)
from worker.learning.recipes import OWN_RECIPES
from worker.learning.stages import (
    VALIDATION_IMAGES,
    StageData,
    make_writable,
    train_stage,
    write_model,
)
from worker.models.card import Card
from worker.models.model import Model, build_model, load_model
from worker.models.network import Cnn, Mlp, Network
from worker.sight.digits import trace_other_views
from worker.sight.normalisation.steps import Views
from worker.sight.types import INPUT_SIDE

MIN_OWN_IMAGES = 20  # fewer say nothing of an accuracy
OWN_ROWS = 3_000  # own images are repeated until an epoch shows about so many
MNIST_TIMES = {"mlp": 4, "cnn": 2}  # an epoch shows so many MNIST images for each own one
# This share of the old weights stays, so that less of MNIST is forgotten (M. Wortsman et al., 2022)
OLD_SHARE = {"mlp": 0.0, "cnn": 0.15}
SAMPLE_VALIDATION = 1_000  # so many images of MNIST's sample are held back
CHOOSING_IMAGES = 1_000  # so many of MNIST's validation images are classified after each epoch
HELD_BACK_STEP = 5  # every fifth image is held back
UNREADABLE = "can't be read"  # why an image is left out


class Rehearsed(NamedTuple):
    """MNIST's images, (N, 28, 28) uint8, with labels, (N,): those to learn, and those held back."""

    images: Tensor
    labels: Tensor
    validation: Tensor
    validation_labels: Tensor
    test: Tensor
    test_labels: Tensor
    has_test: bool  # otherwise, `test` is the same as `validation`


class OwnImages(NamedTuple):
    """Images with their labels, as the network sees them."""

    pixels: NDArray[np.uint8]  # (N, 784)
    views: list[Views]  # the other views of each
    labels: NDArray[np.int64]  # (N,)
    unreadable: int  # how many others can't be read

    def take(self, rows: NDArray[np.intp]) -> "OwnImages":
        return OwnImages(
            self.pixels[rows],
            [self.views[row] for row in rows.tolist()],
            self.labels[rows],
            self.unreadable,
        )


def read_own(chunks: Iterable[Chunk]) -> OwnImages:
    """Read the images of chunks whose rows all have a truth; says which can't be read.

    Raises `UsageError` if too few can be read, or all show the same digit.
    """
    pixels, labels = [np.zeros((0, PIXELS), np.uint8)], [np.zeros(0, np.int64)]
    views: list[Views] = []
    failed: list[str] = []
    for chunk in chunks:
        watch.forget()
        read, errors, _ = read_pixels(chunk.batch, read_image)
        is_read = errors.is_null().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(is_read)
        ids = chunk.batch.column("id")
        failed += [f"{ids[row]} ({errors[row]})" for row in np.flatnonzero(~is_read).tolist()]
        pixels.append(read[rows])
        labels.append(chunk.batch.column("truth").to_numpy()[rows].astype(np.int64))
        if kind_of(chunk.batch) == "image":
            images = chunk.batch.column("image")
            outcomes = read_rows(images, rows.tolist(), trace_other_views, read_image)
            views += [found or {} for found, _ in outcomes]
        else:
            views += [{}] * len(rows)
    report_failed(failed, UNREADABLE)
    own = OwnImages(np.concatenate(pixels), views, np.concatenate(labels), len(failed))
    check_enough(own.labels.tolist(), "digit")
    return own


def report_failed(failed: list[str], why: str) -> None:
    """Say which images are left out."""
    if failed:
        left_out = f"{plural(len(failed), 'image')} left out ({why})"
        print(f"{left_out}: {name_some(failed)}", file=sys.stderr)


def check_enough(answers: list[int] | list[str], what: str) -> None:
    """Raises `UsageError` if there are too few right answers, or all are the same."""
    if len(answers) < MIN_OWN_IMAGES:
        raise UsageError(
            f"{plural(len(answers), 'image')} with a right answer can be read: "
            f"at least {MIN_OWN_IMAGES} are needed"
        )
    if len({*answers}) < 2:
        raise UsageError(f"all images show the same {what}, {answers[0]}: others are needed too")


def hold_back(labels: NDArray[Any], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows to learn from, and those held back: a fifth, also of each label if it has enough."""
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    is_held_back = np.zeros(len(labels), bool)
    is_held_back[order[HELD_BACK_STEP // 2 :: HELD_BACK_STEP]] = True
    return np.flatnonzero(~is_held_back), np.flatnonzero(is_held_back)


def classify_own(model: Model, own: OwnImages) -> NDArray[np.float32]:
    """Ten probabilities for each image, (N, 10), as a worker would give them."""
    probabilities = model.classify(own.pixels)
    for row in np.flatnonzero(find_best(probabilities)[1] < TTA_BELOW).tolist():
        probabilities[row] = combine_views(model, probabilities[row], own.views[row])
    return probabilities


def load_rehearsed() -> Rehearsed:
    """MNIST; or its sample, if it is not on this machine and can't be downloaded."""
    try:
        images, labels = load_mnist("train")
        test, part = load_mnist("test"), slice(-VALIDATION_IMAGES, None)
    except NoMnistError as error:
        print(f"{error}; until then, 4,000 of its images are rehearsed", file=sys.stderr)
        images, labels = load_mnist("sample")
        test, part = None, slice(-SAMPLE_VALIDATION, None)
    validation = images[part], labels[part]
    rest = slice(part.start)
    return Rehearsed(images[rest], labels[rest], *validation, *(test or validation), bool(test))


def mix(own: OwnImages, known: Rehearsed) -> StageData:
    """What there is to learn: own images and their other views, and MNIST's."""
    pixels, answers = [own.pixels], [own.labels]
    for views, label in zip(own.views, own.labels, strict=True):
        if views:
            pixels.append(np.stack([*views.values()]).reshape(-1, PIXELS))
            answers.append(np.full(len(views), label))
    shown = torch.from_numpy(np.concatenate(pixels)).view(-1, INPUT_SIDE, INPUT_SIDE)
    targets = name_exactly(torch.from_numpy(np.concatenate(answers)))
    times = max(1, round(OWN_ROWS / len(shown)))
    return StageData(
        shown.repeat_interleave(times, 0),
        targets.repeat_interleave(times, 0),
        known.images,
        name_exactly(known.labels),
        known.validation[-CHOOSING_IMAGES:],
        known.validation_labels[-CHOOSING_IMAGES:],
    )


def name_exactly(labels: Tensor) -> Tensor:
    """The probabilities to learn, (N,) → (N, 10): 1 for the label."""
    return F.one_hot(labels, CLASSES).float()


def blend(network: Network, old: Network, share: float) -> None:
    """Move the weights by this share of the way back to the old ones."""
    weights = network.state_dict()
    for name, value in old.state_dict().items():
        weights[name].lerp_(value, share)


def train_own(
    chunks: Iterable[Chunk], name: str, seed: int, epochs: int | None, out: Path, command: str
) -> Card | None:
    """Go on training a model, and write `out/NAME.safetensors` and its card.

    If it then reads the images that are held back no better than before, nothing is written, and
    None is returned.
    """
    make_writable(out, name)
    before = load_model(name)  # sets torch to one thread
    own = read_own(chunks)
    learned, held_back = (own.take(rows) for rows in hold_back(own.labels, seed))
    recipe = OWN_RECIPES[name]
    known = load_rehearsed()
    data = mix(learned, known)
    share = min(1.0, MNIST_TIMES[name] * len(data.images) / len(data.more_images))
    recipe = replace(recipe, epochs=epochs or recipe.epochs, more_share=share)
    torch.manual_seed(seed)
    network: Network = (Mlp if name == "mlp" else Cnn)(recipe.mean, recipe.std)
    network.load_state_dict(before.network.state_dict())
    network = recipe.finish(train_stage(network, data, recipe))
    blend(network, before.network, OLD_SHARE[name])
    print("calibrating and testing …", file=sys.stderr)
    pixels, answers = torch.from_numpy(held_back.pixels), torch.from_numpy(held_back.labels)
    images = torch.cat([known.validation.flatten(1), pixels])
    network.temperature, _ = calibrate(
        network, images, torch.cat([known.validation_labels, answers])
    )
    validation, test = classify(network, known.validation), classify(network, known.test)
    known_before, known_after = (
        round(measure_accuracy(answers, known.test_labels), 6)
        for answers in (classify(before.network, known.test), test)
    )
    error = round(measure_calibration_error(test, known.test_labels), 6)
    card = replace(
        before.card,
        seed=seed,
        command=f"{before.card.command}; {command}",
        validation_accuracy=round(measure_accuracy(validation, known.validation_labels), 6),
        test_accuracy=known_after if known.has_test else None,
        test_calibration_error=error if known.has_test else None,
        temperature=network.temperature,
        review_below=choose_digit_threshold(validation),
        own_images=len(learned.labels),
        own_held_back=len(answers),
        own_left_out={UNREADABLE: own.unreadable} if own.unreadable else {},
    )
    after = build_model(network, card)
    shares = [
        measure_accuracy(torch.from_numpy(classify_own(model, held_back)), answers)
        for model in (before, after)
    ]
    card = replace(card, own_accuracy_before=round(shares[0], 6), own_accuracy=round(shares[1], 6))
    others = "MNIST's test images" if known.has_test else f"{len(test):,} images of MNIST's sample"
    if not report(before.card, card, (others, known_before, known_after)):
        return None
    return write_model(out, card, network.state_dict())


def report(before: Card, card: Card, others: tuple[str, float, float]) -> bool:
    """Print the accuracies; whether the network is better than before on one's own images.

    `others` are other images, with their accuracies before and after.
    """
    old, new = card.own_accuracy_before or 0.0, card.own_accuracy or 0.0
    print(f"{'':34}  before    after", file=sys.stderr)
    for what, was, is_now in (
        (f"your {card.own_held_back:,} images held back", old, new),
        others,
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
    return new > old
