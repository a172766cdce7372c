"""Goes on training a network of single digits with one's own images.

They are read as a worker reads them. The network learns them beside MNIST's images, which it would
forget otherwise.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from protocol.chunk import CLASSES, Chunk, kind_of
from protocol.mnist import Part
from worker.classify import (
    TTA_BELOW,
    Outcome,
    combine_views,
    find_best,
    read_image,
    read_pixels,
    read_rows,
)
from worker.dataset import load_mnist
from worker.learning.augmentation import Augmenter
from worker.learning.calibration import (
    choose_digit_threshold,
    choose_temperature,
    classify,
    measure,
    measure_share,
)
from worker.learning.learner import Learner
from worker.learning.own import OwnImage, Trained, read_own
from worker.learning.recipes import OWN_RECIPES, DigitData, draw_batches, measure_loss
from worker.models.model import Model, build_model, load_model
from worker.models.network import Cnn, Mlp, Network
from worker.sight.digits import trace_other_views
from worker.sight.normalisation.steps import Views
from worker.sight.types import INPUT_SIDE

OWN_ROWS = 3_000  # own images are repeated until an epoch shows about this many
MNIST_TIMES = {"mlp": 4, "cnn": 2}  # an epoch shows this many MNIST images for each own one
# This share of the old weights stays, so that less of MNIST is forgotten (M. Wortsman et al., 2022)
OLD_SHARE = {"mlp": 0.0, "cnn": 0.15}
VALIDATION_IMAGES = 5_000  # the last training images of MNIST are never learned
SAMPLE_VALIDATION = 1_000  # this many images of MNIST's sample are held back

LabelledTensors = tuple[Tensor, Tensor]  # images, (N, 28, 28) uint8, with labels, (N,)
SeenDigit = tuple[NDArray[np.uint8], Views]  # what the network sees, (784,), and other views


class Rehearsed(NamedTuple):
    """MNIST's images to learn, those held back, and its test images if they can be had."""

    learned: LabelledTensors
    held_back: LabelledTensors
    test: LabelledTensors | None


def read_digits(batch: pa.RecordBatch) -> Iterator[Outcome[SeenDigit]]:
    """What the network sees of each image, or its error."""
    pixels, errors, _ = read_pixels(batch, read_image)
    views: dict[int, Views] = {}
    if kind_of(batch) == "image":
        rows = np.flatnonzero(errors.is_null()).tolist()
        outcomes = read_rows(batch.column("image"), rows, trace_other_views, read_image)
        views = {row: found or {} for row, (found, _) in zip(rows, outcomes, strict=True)}
    for row, error in enumerate(errors.to_pylist()):
        yield (None, error) if error else ((pixels[row], views.get(row, {})), None)


def load_rehearsed(part: Part) -> Rehearsed:
    """MNIST, if the part is `train`; or its `sample`."""
    images, labels = load_mnist(part)
    held_back = VALIDATION_IMAGES if part == "train" else SAMPLE_VALIDATION
    test = load_mnist("test") if part == "train" else None
    learned, validation = slice(-held_back), slice(-held_back, None)
    return Rehearsed(
        (images[learned], labels[learned]), (images[validation], labels[validation]), test
    )


def mix(own: Sequence[OwnImage[SeenDigit]], rehearsed: Rehearsed) -> DigitData:
    """What there is to learn: own images and their other views, and MNIST's."""
    shown, labels = [], []
    for _, (pixels, views), label in own:
        shown += [pixels.reshape(INPUT_SIDE, INPUT_SIDE), *views.values()]
        labels += [label] * (1 + len(views))
    times = max(1, round(OWN_ROWS / len(shown)))
    images, targets = torch.from_numpy(np.stack(shown)), name_exactly(torch.tensor(labels))
    return DigitData(
        images.repeat_interleave(times, 0),
        targets.repeat_interleave(times, 0),
        rehearsed.learned[0],
        name_exactly(rehearsed.learned[1]),
    )


def name_exactly(labels: Tensor) -> Tensor:
    """The probabilities to learn, (N,) → (N, 10): 1 for the label."""
    return F.one_hot(labels, CLASSES).float()


def measure_own(model: Model, own: Sequence[OwnImage[SeenDigit]]) -> float:
    """The share of own images on which a worker would be right."""
    probabilities = model.classify(np.stack([pixels for _, (pixels, _), _ in own]))
    for row in np.flatnonzero(find_best(probabilities)[1] < TTA_BELOW).tolist():
        _, (_, views), _ = own[row]
        probabilities[row] = combine_views(model, probabilities[row], views)
    labels = [label for _, _, label in own]
    return measure_share(torch.from_numpy(probabilities).argmax(1) == torch.tensor(labels))


def train_own_digits(
    name: str, chunks: Iterable[Chunk], seed: int, epochs: int | None, mnist: Part
) -> Trained:
    """Go on training `mlp` or `cnn`, and rehearse a part of MNIST."""
    before = load_model(name)  # sets torch to one thread
    learned, held_back, left_out = read_own(chunks, read_digits, "digit", seed)
    rehearsed = load_rehearsed(mnist)
    data, recipe = mix(learned, rehearsed), OWN_RECIPES[name]
    share = min(1.0, MNIST_TIMES[name] * len(data.images) / len(data.more_images))
    recipe = replace(recipe, epochs=epochs or recipe.epochs, more_share=share)
    torch.manual_seed(seed)
    network: Network = (Mlp if name == "mlp" else Cnn)(recipe.mean, recipe.std)
    network.load_state_dict(before.network.state_dict())
    batches = partial(draw_batches, data, recipe, Augmenter(recipe.distortion))
    optimisers = [recipe.make_optimiser(network)]
    learner = Learner(network, partial(measure_loss, recipe), recipe, optimisers)
    network = recipe.finish(learner.train(batches))
    weights = network.state_dict()
    for key, value in before.network.state_dict().items():
        weights[key].lerp_(value, OLD_SHARE[name])
    print("calibrating and testing …", file=sys.stderr)
    images, labels = rehearsed.held_back
    own = np.stack([pixels for _, (pixels, _), _ in held_back])
    network.temperature = choose_temperature(
        network,
        torch.cat([images.flatten(1), torch.from_numpy(own)]),
        torch.cat([labels, torch.tensor([label for _, _, label in held_back])]),
    )
    validation = classify(network, images)
    test_images, test_labels = rehearsed.test or rehearsed.held_back
    test = measure(classify(network, test_images), test_labels)
    card = replace(
        before.card,
        validation_accuracy=measure(validation, labels)[0],
        test_accuracy=test[0] if rehearsed.test else None,
        test_calibration_error=test[1] if rehearsed.test else None,
        temperature=network.temperature,
        review_below=choose_digit_threshold(validation),
        own_images=len(learned),
        own_held_back=len(held_back),
        own_left_out=left_out,
        own_accuracy_before=measure_own(before, held_back),
    )
    card = replace(card, own_accuracy=measure_own(build_model(network, card), held_back))
    what = "MNIST's test images" if rehearsed.test else f"{len(labels):,} images of MNIST's sample"
    was = measure(classify(before.network, test_images), test_labels)[0]
    return Trained(before.card, card, weights, (what, was, test[0]))
