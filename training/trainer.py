"""Trains the networks of single digits: `python -m training cnn --out DIR`.

The training set is MNIST, real hands if there are any, rendered pictures of their digits and of
drawn ones, and shapes that are no digit. All are distorted anew in each epoch. With `--fine-tune` a
network begins with the weights in use.
"""

import copy
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from digitq.protocol.chunk import CLASSES
from digitq.protocol.errors import UsageError
from digitq.protocol.text import plural
from digitq.worker.dataset import load_mnist
from digitq.worker.learning.augmentation import Augmenter
from digitq.worker.learning.calibration import (
    choose_digit_threshold,
    choose_temperature,
    classify,
    measure,
)
from digitq.worker.learning.courses import (
    DigitBatch,
    DigitData,
    DigitRecipe,
    draw_batches,
    measure_loss,
)
from digitq.worker.learning.learner import (
    Batches,
    Learner,
    blend_weights,
    has_bfloat16,
    report_epoch,
)
from digitq.worker.learning.own import write_model
from digitq.worker.learning.own_digits import VALIDATION_IMAGES
from digitq.worker.models.card import Card
from digitq.worker.models.model import load_model
from digitq.worker.models.network import Network, softmax
from training.hands import choose_glyphs, load_glyphs
from training.neighbourhoods import cut_set
from training.normalised_cnn import NormalisedCnn
from training.recipes import (
    COURSES,
    TUNING_COURSES,
    Course,
    copy_network,
    describe_command,
    init_network,
)
from training.synthetic.rendering import (
    NO_DIGIT,
    Labelled,
    join,
    normalise_glyphs,
    render_set,
    start_processes,
)

MNIST_PER_GLYPH = 2  # this many of MNIST's images are learned, and held back, for each real glyph
LAST_PART = 10  # the best epoch is sought in the last tenth: an earlier one is good by luck


class TrainingData(NamedTuple):
    """Images and labels to learn from, and those that choose the epoch that is kept.

    Arrays travel to the processes of teachers: tensors would take too much shared memory.
    """

    digits: Labelled
    pictures: Labelled
    validation: Labelled
    mnist_rows: int  # how many of these are MNIST's: the first ones
    sources: dict[str, float]  # the share of each source in what is learned

    def name_targets(self) -> tuple[DigitData, list[Tensor]]:
        """Give these as tensors, with the probabilities to learn in place of labels."""
        (images, labels), (pictures, more_labels), validation = (
            [torch.from_numpy(array) for array in part] for part in self[:3]
        )
        targets = target_probabilities(labels), target_probabilities(more_labels)
        return DigitData(images, targets[0], pictures, targets[1]), validation


def target_probabilities(labels: Tensor) -> Tensor:
    """The probabilities to learn, (N,) → (N, 10): 1 for the label, or 0.1 each for `NO_DIGIT`."""
    exact = F.one_hot(labels.clamp(min=0), CLASSES).float()
    return torch.where((labels == NO_DIGIT)[:, None], 1 / CLASSES, exact)


def prepare_data(
    images: Tensor, labels: Tensor, seed: int, course: Course, hands: tuple[Path, ...] = ()
) -> TrainingData:
    """Split off the validation images, and render pictures of the training images.

    The images are (N, 28, 28) uint8, the labels (N,) int64. Glyphs of real `hands` join both parts.
    Raises `UsageError` if there are none.
    """
    validation = min(VALIDATION_IMAGES, len(images) // 6)
    pixels, answers = images.numpy(), labels.numpy()
    digits = pixels[:-validation], answers[:-validation]
    held_back = pixels[-validation:], answers[-validation:]
    written, sources = [digits], {"MNIST": 1.0}
    if hands:
        glyphs, shares = draw_glyphs(hands, len(digits[0]) // MNIST_PER_GLYPH, seed, False)
        others, _ = draw_glyphs(hands, validation // MNIST_PER_GLYPH, seed, True)
        written.append(glyphs)
        learned, unseen = normalise_glyphs(*glyphs), normalise_glyphs(*others)
        cut, counts = cut_set(hands, seed, False)
        more_unseen, _ = cut_set(hands, seed, True)
        counts += Counter({name: len(learned[0]) * share for name, share in shares.items()})
        counts["MNIST"] = len(digits[0])
        sources = {name: count / counts.total() for name, count in counts.items()}
        digits = join([digits, learned, cut])
        held_back = join([held_back, unseen, more_unseen])
    pictures = pixels[:0], answers[:0]
    if course.copies:
        rendered = [
            (images[:: course.rendered_step], labels[:: course.rendered_step])
            for images, labels in written
        ]
        count = course.copies * sum(len(images) for images, _ in rendered)
        print(f"drawing {count:,} pictures to learn from …", file=sys.stderr)
        pictures = join([render_set(*part, seed, course.copies) for part in rendered])
    return TrainingData(digits, pictures, held_back, validation, sources)


def draw_glyphs(
    hands: tuple[Path, ...], count: int, seed: int, held_back: bool
) -> tuple[Labelled, dict[str, float]]:
    """Glyphs of writers that are held back, or of all others, and the share of each source."""
    sources = load_glyphs(hands, held_back)
    if not sources:
        raise UsageError(f"{', '.join(map(str, hands))}: there are no glyphs/*.npz of ten writers")
    images, labels, shares = choose_glyphs(sources, count, np.random.default_rng(seed))
    return (images, labels), shares


def train_network(
    data: TrainingData, seed: int, course: Course, begin_with: Network | None = None
) -> Network:
    """Train a network, or train on one; gives it as it ships.

    On the same machine the same seed gives the same weights, since each network has one thread and
    one generator.
    """
    torch.manual_seed(seed)
    teachers = train_teachers(data, seed, course) if course.teachers else []
    if begin_with:
        teacher = load_model(course.teacher).network if course.teacher else begin_with
        teachers = [copy_network(teacher)]
    return course.recipe.finish(train_stages(data, course, teachers, begin_with=begin_with))


def train_teachers(data: TrainingData, seed: int, course: Course) -> list[Network]:
    """Train each teacher from a seed of its own, as many at a time as there are cores."""
    shorter = replace(course.recipe, epochs=max(1, course.recipe.epochs // 2))
    train = partial(train_teacher, data, replace(course, recipe=shorter))
    print(f"training {plural(course.teachers, 'teacher')} …", file=sys.stderr)
    with start_processes() as pool:
        return list(pool.map(train, range(seed + 1, seed + 1 + course.teachers)))


def train_teacher(data: TrainingData, course: Course, seed: int) -> Network:
    """Train a teacher in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return train_stages(data, course, label=f"teacher {seed}: ")


def train_stages(
    data: TrainingData,
    course: Course,
    teachers: Sequence[Network] = (),
    label: str = "",
    begin_with: Network | None = None,
) -> Network:
    """Train a network, or train on one, and fine-tune it if the course says so."""
    recipe, (known, validation) = course.recipe, data.name_targets()
    temperature = course.distillation_temperature if teachers else 1.0

    def train_stage(network: Network, recipe: DigitRecipe, label: str) -> Network:
        optimisers = [recipe.make_optimiser(network)]
        learner = Learner(network, partial(measure_loss, recipe, temperature), recipe, optimisers)
        draw = partial(draw_batches, known, recipe, Augmenter(recipe.distortion))
        lessons = partial(draw_lessons, course, teachers, draw) if teachers else draw
        return train_best(learner, lessons, validation, recipe, label)

    network = copy_network(begin_with) if begin_with else init_network(recipe)
    network = train_stage(network, recipe, label)
    if isinstance(network, NormalisedCnn):
        network = network.fold()
    if course.fine_tuning:
        tuning = replace(course.fine_tuning, epochs=max(1, recipe.epochs // 3))
        network = train_stage(network, tuning, f"{label}fine-tuning, ")
    return network


def train_best(
    learner: Learner,
    draw: Callable[[int], Batches],
    validation: list[Tensor],
    recipe: DigitRecipe,
    label: str,
) -> Network:
    """Train all epochs; gives what was learned in the best of the last ones."""
    epochs, started = recipe.epochs, time.monotonic()
    best, best_accuracy = copy.deepcopy(learner.learned), -1.0
    images, labels = validation
    for epoch in range(epochs):
        losses = learner.show(draw(epoch), epoch)
        accuracy, _ = measure(classify(learner.learned, images), labels)
        if accuracy >= best_accuracy and epoch >= epochs - max(1, epochs // LAST_PART):
            best, best_accuracy = copy.deepcopy(learner.learned), accuracy
        text = f"{label}loss {losses}  validation {accuracy:.2%}"
        report_epoch(epoch, epochs, text, started)
    network: Network = best
    return network


def draw_lessons(
    course: Course, teachers: Sequence[Network], draw: Callable[[int], Batches], epoch: int
) -> Batches:
    """The batches of an epoch with the teachers' answers, shown as often as the course says.

    To ask the teachers takes longer than to learn, if the network is smaller than they are.
    """
    ask = partial(ask_teachers, course, teachers)
    batches = ((shown, ask(batch)) for shown, batch in draw(epoch))
    if course.shows == 1:
        yield from batches
        return
    lessons = [*batches]
    for turn in range(course.shows):
        for place, number in enumerate(torch.randperm(len(lessons)).tolist()):
            yield (turn + place / len(lessons)) / course.shows, lessons[number][1]


def ask_teachers(course: Course, teachers: Sequence[Network], batch: DigitBatch) -> DigitBatch:
    """The mean of the teachers' answers for (N, 784) pixels, in place of the label.

    If the course corrects them, the label is learned where the mean is wrong. The mean is taken at
    a temperature that shows which wrong answers are nearly right, and which images are hard
    (G. Hinton et al., "Distilling the knowledge in a neural network", 2015).
    """
    (pixels, labels), temperature = batch, course.distillation_temperature
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
        answers = [softmax(each.logits(pixels).float() / temperature) for each in teachers]
    targets = torch.stack(answers).mean(0)
    if course.corrects_teachers:
        is_right = labels.gather(1, targets.argmax(1, keepdim=True)) == 1
        targets = torch.where(is_right, targets, labels)
    return pixels, targets


def train_model(
    name: str,
    seed: int,
    epochs: int | None,
    out: Path,
    limit_images: int | None,
    fine_tune: bool = False,
    hands: tuple[Path, ...] = (),
    blend: float = 1.0,
) -> Card:
    """Train, measure the test images once, and write `out/NAME.safetensors` and its card.

    With `fine_tune`, the weights get the share `blend` of the new ones, and keep the rest of those
    in use.
    """
    torch.set_num_threads(1)
    course = (TUNING_COURSES if fine_tune else COURSES)[name]
    recipe = course.recipe if epochs is None else replace(course.recipe, epochs=epochs)
    begin_with = load_model(name).network if fine_tune else None
    images, labels = (tensor[:limit_images] for tensor in load_mnist("train"))
    data = prepare_data(images, labels, seed, course, hands)
    network = train_network(data, seed, replace(course, recipe=recipe), begin_with)
    if begin_with:
        blend_weights(network, begin_with, blend)
    print("calibrating and testing …", file=sys.stderr)
    images, labels = (torch.from_numpy(array) for array in data.validation)
    network.temperature = choose_temperature(network, images, labels)
    validation = classify(network, images)
    test_images, test_labels = load_mnist("test")
    test_accuracy, test_error = measure(classify(network, test_images), test_labels)
    card = Card(
        name=name,
        architecture=network.architecture,
        mean=recipe.mean,
        std=recipe.std,
        seed=seed,
        command=describe_command(
            *(name, seed, recipe.epochs, limit_images, fine_tune, hands), blend=blend
        ),
        sources={source: round(share, 3) for source, share in data.sources.items()},
        validation_accuracy=measure(validation, labels)[0],
        test_accuracy=test_accuracy,
        test_calibration_error=test_error,
        temperature=network.temperature,
        # Real hands would lower the threshold, so that more wrong answers were not marked
        review_below=choose_digit_threshold(validation[: data.mnist_rows]),
    )
    return write_model(out, card, network.state_dict())
