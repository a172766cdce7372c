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

from digitq.protocol.chunk import CLASSES, Chunk, kind_of
from digitq.protocol.formats.mnist import Part
from digitq.worker.classify import (
    TTA_BELOW,
    Outcome,
    combine_views,
    find_best,
    read_image,
    read_pixels,
    read_rows,
)
from digitq.worker.dataset import load_mnist
from digitq.worker.learning.augmentation import Augmenter
from digitq.worker.learning.calibration import (
    Judged,
    choose_digit_threshold,
    choose_temperature,
    classify,
    measure,
)
from digitq.worker.learning.courses import (
    ADAPTING_RECIPES,
    OWN_RECIPES,
    DigitData,
    DigitRecipe,
    draw_batches,
    measure_loss,
)
from digitq.worker.learning.learner import Course, Learner, blend_weights
from digitq.worker.learning.own import Compared, OwnImage, Taught, Trained, read_own
from digitq.worker.learning.surest import GIVEN, ROUNDS, TooFewError, choose_surest, refuse_few
from digitq.worker.models.card import Card
from digitq.worker.models.model import Model, build_model, load_model
from digitq.worker.models.network import Cnn, Mlp, Network
from digitq.worker.picture import INPUT_SIDE
from digitq.worker.sight.digits import trace_other_views
from digitq.worker.sight.normalisation.steps import Views

OWN_ROWS = 3_000  # own images are repeated until an epoch shows about this many
MNIST_TIMES = {"mlp": 4, "cnn": 2}  # an epoch shows this many MNIST images for each own one
TEACHER = "cnn"  # its answers are better than those of `mlp`, also where it is unsure
ADAPTING_TIMES = 1 / 3  # the same where a network learns its own answers
NEW_SHARE = {"mlp": 1.0, "cnn": 0.85}  # so much of the new weights, the rest of the old
VALIDATION_IMAGES = 5_000  # the last training images of MNIST are never learned
SAMPLE_VALIDATION = 1_000  # this many images of MNIST's sample are held back

LabelledTensors = tuple[Tensor, Tensor]  # images, (N, 28, 28) uint8, with labels, (N,)


class SeenDigit(NamedTuple):
    pixels: NDArray[np.uint8]  # what the network sees, (784,)
    views: Views
    is_doubted: bool  # whether it is to be reviewed, however sure the network is


class Rehearsed(NamedTuple):
    """MNIST's images to learn, those held back, and its test images if they can be had."""

    learned: LabelledTensors
    held_back: LabelledTensors
    test: LabelledTensors | None


def read_digits(batch: pa.RecordBatch) -> Iterator[Outcome[SeenDigit]]:
    """What the network sees of each image, or its error."""
    pixels, errors, reasons = read_pixels(batch, read_image)
    views: dict[int, Views] = {}
    if kind_of(batch) == "image":
        rows = np.flatnonzero(errors.is_null()).tolist()
        outcomes = read_rows(batch.column("image"), rows, trace_other_views, read_image)
        views = {row: found or {} for row, (found, _) in zip(rows, outcomes, strict=True)}
    for row, error in enumerate(errors.to_pylist()):
        seen = SeenDigit(pixels[row], views.get(row, {}), bool(reasons[row]))
        yield (None, error) if error else (seen, None)


def load_rehearsed(part: Part) -> Rehearsed:
    """MNIST, if the part is `train`; or its `sample`."""
    images, labels = load_mnist(part)
    held_back = VALIDATION_IMAGES if part == "train" else SAMPLE_VALIDATION
    test = load_mnist("test") if part == "train" else None
    learned, validation = slice(-held_back), slice(-held_back, None)
    return Rehearsed(
        (images[learned], labels[learned]), (images[validation], labels[validation]), test
    )


def mix(own: Sequence[SeenDigit], targets: Tensor, rehearsed: Rehearsed) -> DigitData:
    """What there is to learn: own images and their other views, with the probabilities to learn,
    (N, 10), and MNIST's."""
    shown = [[seen.pixels.reshape(INPUT_SIDE, INPUT_SIDE), *seen.views.values()] for seen in own]
    counts = torch.tensor([*map(len, shown)])
    images = torch.from_numpy(np.stack([image for views in shown for image in views]))
    times = max(1, round(OWN_ROWS / len(images)))
    return DigitData(
        images.repeat_interleave(times, 0),
        targets.repeat_interleave(counts, 0).repeat_interleave(times, 0),
        rehearsed.learned[0],
        name_exactly(rehearsed.learned[1]),
    )


def name_exactly(labels: Tensor) -> Tensor:
    """The probabilities to learn, (N,) → (N, 10): 1 for the label."""
    return F.one_hot(labels, CLASSES).float()


def answer_own(
    model: Model, own: Sequence[SeenDigit]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What a worker would answer to own images: the probabilities, (N, 10), and how sure it is,
    (N,), which is 0 where it doubts the image. The surety of its first answer counts, too."""
    probabilities = model.classify(np.stack([seen.pixels for seen in own]))
    _, first = find_best(probabilities)
    for row in np.flatnonzero(first < TTA_BELOW).tolist():
        probabilities[row] = combine_views(model, probabilities[row], own[row].views)
    _, last = find_best(probabilities)
    is_doubted = [seen.is_doubted for seen in own]
    return probabilities, np.where(is_doubted, 0.0, np.minimum(first, last))


def judge_own(model: Model, own: Sequence[OwnImage[SeenDigit]]) -> Judged:
    """What is right of the answers to own images."""
    probabilities, confidence = answer_own(model, [seen for _, seen, _ in own])
    answers, _ = find_best(probabilities)
    is_right = answers == [label for _, _, label in own]
    return Judged(torch.from_numpy(confidence), torch.from_numpy(is_right))


def judge_mnist(network: Network, images: Tensor, labels: Tensor) -> Judged:
    """The answers to images of MNIST, (N, 28, 28), with labels, (N,)."""
    confidence, answers = classify(network, images).max(1)
    return Judged(confidence, answers == labels)


def calibrate(
    network: Network, old: Card, own: Sequence[OwnImage[SeenDigit]], rehearsed: Rehearsed
) -> Card:
    """Choose the temperature of a network, and a threshold for `review` that is not below the old.

    Gives the card with these, and with the accuracies on MNIST's images.
    """
    images, labels = rehearsed.held_back
    shown = torch.from_numpy(np.stack([seen.pixels for _, seen, _ in own]))
    network.temperature = choose_temperature(
        network,
        torch.cat([images.flatten(1), shown]),
        torch.cat([labels, torch.tensor([label for _, _, label in own])]),
    )
    validation = classify(network, images)
    accuracy = error = None
    if rehearsed.test:
        test_images, test_labels = rehearsed.test
        accuracy, error = measure(classify(network, test_images), test_labels)
    return replace(
        old,
        validation_accuracy=measure(validation, labels)[0],
        test_accuracy=accuracy,
        test_calibration_error=error,
        temperature=network.temperature,
        review_below=max(old.review_below, choose_digit_threshold(validation)),
    )


def learn_digits(
    before: Model, data: DigitData, recipe: DigitRecipe, times: float, course: Course
) -> Network:
    """The network of a model after it has gone on to learn. An epoch shows so many `times` the own
    images of MNIST."""
    name = before.card.name
    shown = min(len(data.images), recipe.most_rows or len(data.images))
    share = min(1.0, times * shown / len(data.more_images))
    recipe = replace(recipe, epochs=course.epochs or recipe.epochs, more_share=share)
    torch.manual_seed(course.seed)
    network: Network = (Mlp if name == "mlp" else Cnn)(recipe.mean, recipe.std)
    network.load_state_dict(before.network.state_dict())
    batches = partial(draw_batches, data, recipe, Augmenter(recipe.distortion))
    optimisers = [recipe.make_optimiser(network)]
    learner = Learner(network, partial(measure_loss, recipe, 1.0), recipe, optimisers)
    with course.many_threads():
        network = recipe.finish(learner.train(batches, course.tell))
    blend_weights(network, before.network, NEW_SHARE[name])
    return network


def teach_itself(
    before: Model,
    own: Sequence[SeenDigit],
    labels: Sequence[int | None],
    rehearsed: Rehearsed,
    course: Course,
) -> tuple[Model, Taught]:
    """The model after it has learned own images by its own answers, the surest of each round, and
    by the right ones where there are any. `mlp` learns those of `cnn`, which has learned its own
    first. Raises `TooFewError`.

    It learns how sure it was of each digit, so what it was unsure of changes little (D.-H. Lee,
    "Pseudo-label", 2013; Q. Xie et al., "Self-training with noisy student", 2020).
    """
    name = before.card.name
    teacher = before if name == TEACHER else load_model(TEACHER)
    is_labelled = np.array([label is not None for label in labels])
    exact = name_exactly(torch.tensor([label or 0 for label in labels]))
    lessons = len(ROUNDS) + (teacher is not before)

    def learn(student: Model, teacher: Model, number: int, share: float) -> Model:
        probabilities, confidence = answer_own(teacher, own)
        sureness = np.where(is_labelled, GIVEN, confidence)
        classes = np.where(is_labelled, exact.argmax(1), find_best(probabilities)[0])
        rows = choose_surest(sureness, classes, share)
        if not number:
            refuse_few(classes[rows], before.card.labels)
        answered = torch.from_numpy(probabilities)
        targets = torch.where(torch.from_numpy(is_labelled)[:, None], exact, answered)[rows]
        data = mix([own[row] for row in rows.tolist()], targets, rehearsed)
        recipe, part = ADAPTING_RECIPES[student.card.name], course.part(number, lessons)
        network = learn_digits(student, data, recipe, ADAPTING_TIMES, part)
        network.temperature = student.network.temperature
        return build_model(network, student.card)

    new = teacher
    for number, share in enumerate(ROUNDS):
        new = learn(new, new, number, share)
    taught = compare_answers(teacher, new, own)
    if teacher is not before:
        new = learn(before, new, len(ROUNDS), 1.0)
        taught = compare_answers(before, new, own)._replace(teacher=taught)
    return new, taught


def compare_answers(before: Model, after: Model, own: Sequence[SeenDigit]) -> Taught:
    """The answers to the same images before and after a network has learned some of them."""
    (first, was), (last, now) = (answer_own(model, own) for model in (before, after))
    below = before.card.review_below
    return Taught(was >= below, now >= below, find_best(first)[0] != find_best(last)[0])


def train_own_digits(name: str, chunks: Iterable[Chunk], course: Course, mnist: Part) -> Trained:
    """Go on training `mlp` or `cnn`, and rehearse a part of MNIST. Raises `TooFewError` if too few
    images have a right answer, and too few answers are sure."""
    before = load_model(name)  # sets torch to one thread
    own = read_own(chunks, read_digits, "digit", course.seed)
    rehearsed = load_rehearsed(mnist)
    judged: Compared | Taught | None = None
    shown = [*own.learned, *own.unknown]
    try:
        if own.unknown:
            digits, labels = [seen for _, seen, _ in shown], [label for _, _, label in shown]
            new, judged = teach_itself(before, digits, labels, rehearsed, course)
    except TooFewError as error:
        if not own.held_back:
            raise
        print(f"{error}, so only right answers are learned", file=sys.stderr)
    if not judged:
        shown = own.learned
        targets = name_exactly(torch.tensor([label for _, _, label in shown]))
        data = mix([seen for _, seen, _ in shown], targets, rehearsed)
        network = learn_digits(before, data, OWN_RECIPES[name], MNIST_TIMES[name], course)
        new = build_model(network, before.card)
    if own.held_back:
        print("calibrating and testing …", file=sys.stderr)
        card = calibrate(new.network, before.card, own.held_back, rehearsed)
        new = build_model(new.network, card)
        judged = Compared(*(judge_own(one, own.held_back) for one in (before, new)))
    assert judged
    card = replace(
        new.card,
        own_images=len(shown),
        own_held_back=len(own.held_back),
        own_left_out=own.left_out,
    )
    return Trained(
        before.card,
        card,
        new.network.state_dict(),
        judged,
        [id for id, _, _ in own.held_back],
        Compared(*(judge_mnist(one.network, *rehearsed.held_back) for one in (before, new))),
        "images of MNIST",
    )
