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
from numpy.typing import NDArray
from torch import Tensor

from protocol.chunk import PIXELS, Chunk, kind_of
from protocol.errors import UsageError
from protocol.text import name_some, plural
from training.recipes import OWN_RECIPES
from training.trainer import (
    VALIDATION_IMAGES,
    TrainingData,
    make_writable,
    train_stage,
    write_model,
)
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
from worker.models.card import Card
from worker.models.model import Model, build_model, load_model
from worker.models.network import Network
from worker.sight.digits import trace_other_views
from worker.sight.normalisation.steps import Views
from worker.sight.types import INPUT_SIDE

MIN_OWN_IMAGES = 20  # fewer say nothing of an accuracy
OWN_ROWS = 3_000  # own images are repeated until an epoch shows about so many
MNIST_TIMES = {"mlp": 4, "cnn": 2}  # an epoch shows so many MNIST images for each own one
# This share of the old weights stays, so that less of MNIST is forgotten (M. Wortsman et al., 2022)
OLD_SHARE = {"mlp": 0.0, "cnn": 0.15}
CHOOSING_IMAGES = 1_000  # so many of MNIST's validation images are classified after each epoch
HELD_BACK_STEP = 5  # every fifth image is held back


class OwnImages(NamedTuple):
    """Images with their labels, as the network sees them."""

    pixels: NDArray[np.uint8]  # (N, 784)
    views: list[Views]  # the other views of each
    labels: NDArray[np.int64]  # (N,)

    def take(self, rows: NDArray[np.intp]) -> "OwnImages":
        return OwnImages(
            self.pixels[rows], [self.views[row] for row in rows.tolist()], self.labels[rows]
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
    report_failed(failed)
    own = OwnImages(np.concatenate(pixels), views, np.concatenate(labels))
    check_enough(own.labels.tolist(), "digit")
    return own


def report_failed(failed: list[str]) -> None:
    """Say which images can't be read and are left out."""
    if failed:
        left_out = f"{plural(len(failed), 'image')} left out that can't be read"
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


def mix(own: OwnImages, images: Tensor, labels: Tensor) -> TrainingData:
    """What there is to learn: own images and their other views, and MNIST's.

    The MNIST images are (N, 28, 28) uint8, their labels (N,). The last ones choose the epoch.
    """
    pixels, answers = [own.pixels], [own.labels]
    for views, label in zip(own.views, own.labels, strict=True):
        if views:
            pixels.append(np.stack([*views.values()]).reshape(-1, PIXELS))
            answers.append(np.full(len(views), label))
    shown = np.concatenate(pixels).reshape(-1, INPUT_SIDE, INPUT_SIDE), np.concatenate(answers)
    times = max(1, round(OWN_ROWS / len(shown[0])))
    digits = np.repeat(shown[0], times, axis=0), np.repeat(shown[1], times)
    known = images.numpy(), labels.numpy()
    first, last = slice(-VALIDATION_IMAGES), slice(-CHOOSING_IMAGES, None)
    return TrainingData(
        digits, (known[0][first], known[1][first]), (known[0][last], known[1][last])
    )


def blend(network: Network, old: Network, share: float) -> None:
    """Move the weights by this share of the way back to the old ones."""
    weights = network.state_dict()
    for name, value in old.state_dict().items():
        weights[name].lerp_(value, share)


def train_own(
    chunks: Iterable[Chunk], name: str, seed: int, epochs: int | None, out: Path, command: str
) -> Card | None:
    """Go on training a model, and write `out/NAME.safetensors` and its card.

    If it then reads the images that are held back worse than before, nothing is written, and None
    is returned.
    """
    make_writable(out, name)
    before = load_model(name)  # sets torch to one thread
    own = read_own(chunks)
    learned, held_back = (own.take(rows) for rows in hold_back(own.labels, seed))
    recipe = OWN_RECIPES[name]
    images, labels = load_mnist("train")
    data = mix(learned, images, labels)
    share = min(1.0, MNIST_TIMES[name] * len(data.digits[0]) / len(data.pictures[0]))
    recipe = replace(recipe, epochs=epochs or recipe.epochs, picture_share=share)
    torch.manual_seed(seed)
    network = recipe.init_network().fold()
    network.load_state_dict(before.network.state_dict())
    network = recipe.finish(train_stage(network, data, recipe, [], ""))
    blend(network, before.network, OLD_SHARE[name])
    print("calibrating and testing …", file=sys.stderr)
    images, labels = images[-VALIDATION_IMAGES:], labels[-VALIDATION_IMAGES:]
    pixels, answers = torch.from_numpy(held_back.pixels), torch.from_numpy(held_back.labels)
    both = torch.cat([images.flatten(1), pixels]), torch.cat([labels, answers])
    network.temperature, _ = calibrate(network, *both)
    validation = classify(network, images)
    test_images, test_labels = load_mnist("test")
    test = classify(network, test_images)
    card = replace(
        before.card,
        seed=seed,
        command=f"{before.card.command}; {command}",
        validation_accuracy=round(measure_accuracy(validation, labels), 6),
        test_accuracy=round(measure_accuracy(test, test_labels), 6),
        test_calibration_error=round(measure_calibration_error(test, test_labels), 6),
        temperature=network.temperature,
        review_below=choose_digit_threshold(validation),
        own_images=len(own.labels),
    )
    after = build_model(network, card)
    shares = [
        measure_accuracy(torch.from_numpy(classify_own(model, held_back)), answers)
        for model in (before, after)
    ]
    card = replace(card, own_accuracy_before=round(shares[0], 6), own_accuracy=round(shares[1], 6))
    is_kept = report(before.card, card, len(answers))
    return write_model(out, card, network) if is_kept else None


def report(before: Card, card: Card, held_back: int, others: str = "MNIST's test images") -> bool:
    """Print the accuracies; whether the network is not worse than before on one's own images."""
    rows = [
        (f"your {held_back:,} images held back", card.own_accuracy_before, card.own_accuracy),
        (others, before.test_accuracy, card.test_accuracy),
        ("to review below", before.review_below, card.review_below),
    ]
    print(f"{'':34}  before    after", file=sys.stderr)
    for what, old, new in rows:
        print(f"{what:34} {old or 0:7.2%}  {new or 0:7.2%}", file=sys.stderr)
    gain = (card.own_accuracy or 0) - (card.own_accuracy_before or 0)
    if gain < 0:
        print(
            "your images that are held back are read worse than before, so nothing is written: "
            "more images may help, or right answers that are checked once more",
            file=sys.stderr,
        )
    elif not gain:
        print("your images that are held back are read no better than before", file=sys.stderr)
    return gain >= 0
