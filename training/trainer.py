"""Trains the networks of single digits: `python -m training cnn --out DIR`.

The training set is MNIST, rendered pictures of its digits and of drawn ones, and shapes that are
no digit. All are distorted anew in each epoch.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from protocol.chunk import CLASSES
from protocol.text import plural
from training.normalised_cnn import NormalisedCnn
from training.recipes import COURSES, Course, init_network
from training.synthetic.rendering import NO_DIGIT, Labelled, render_set, start_processes
from worker.dataset import load_mnist
from worker.learning.calibration import (
    calibrate,
    classify,
    measure_accuracy,
    measure_calibration_error,
)
from worker.learning.recipes import StageRecipe
from worker.learning.stages import (
    VALIDATION_IMAGES,
    StageData,
    has_bfloat16,
    make_writable,
    measure_loss,
    train_stage,
    write_model,
)
from worker.models.card import Card
from worker.models.network import Network, softmax


class TrainingData(NamedTuple):
    """Images and labels to learn from, and those that choose the epoch that is kept.

    Arrays travel to the processes of teachers: tensors would take too much shared memory.
    """

    digits: Labelled
    pictures: Labelled
    validation: Labelled

    def name_targets(self) -> StageData:
        """The same as tensors, with the probabilities to learn in place of labels."""
        (images, labels), (pictures, more_labels), validation = (
            [torch.from_numpy(array) for array in part] for part in self
        )
        targets = target_probabilities(labels), target_probabilities(more_labels)
        return StageData(images, targets[0], pictures, targets[1], *validation)


def target_probabilities(labels: Tensor) -> Tensor:
    """The probabilities to learn, (N,) → (N, 10): 1 for the label, or 0.1 each for `NO_DIGIT`."""
    exact = F.one_hot(labels.clamp(min=0), CLASSES).float()
    return torch.where((labels == NO_DIGIT)[:, None], 1 / CLASSES, exact)


def prepare_data(images: Tensor, labels: Tensor, seed: int, copies: int) -> TrainingData:
    """Split off the validation images, and render `copies` pictures of each training image.

    The images are (N, 28, 28) uint8, the labels (N,) int64.
    """
    validation = min(VALIDATION_IMAGES, len(images) // 6)
    pixels, answers = images.numpy(), labels.numpy()
    digits = pixels[:-validation], answers[:-validation]
    pictures = pixels[:0], answers[:0]
    if copies:
        print(f"drawing {copies * len(digits[0]):,} pictures to learn from …", file=sys.stderr)
        pictures = render_set(*digits, seed, copies)
    return TrainingData(digits, pictures, (pixels[-validation:], answers[-validation:]))


def train_network(data: TrainingData, seed: int, course: Course) -> Network:
    """Train a network; gives it as it ships.

    On the same machine the same seed gives the same weights, since each network has one thread and
    one generator.
    """
    torch.manual_seed(seed)
    teachers = train_teachers(data, seed, course) if course.teachers else []
    return course.recipe.finish(train_stages(data, course, teachers))


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
    data: TrainingData, course: Course, teachers: Sequence[Network] = (), label: str = ""
) -> Network:
    """Train a network from the start, and fine-tune it if the course says so."""
    recipe, known = course.recipe, data.name_targets()
    measure = partial(measure_distillation, course, teachers) if teachers else measure_loss
    network = train_stage(init_network(recipe), known, recipe, label, measure)
    if isinstance(network, NormalisedCnn):
        network = network.fold()
    if course.fine_tuning:
        tuning = replace(course.fine_tuning, epochs=max(1, recipe.epochs // 3))
        network = train_stage(network, known, tuning, f"{label}fine-tuning, ", measure)
    return network


def measure_distillation(
    course: Course,
    teachers: Sequence[Network],
    network: Network,
    pixels: Tensor,
    targets: Tensor,
    recipe: StageRecipe,
) -> Tensor:
    """The loss if the mean of the teachers' answers for (N, 784) pixels is learned.

    It is taken at a temperature that shows which wrong answers are nearly right, and which images
    are hard (G. Hinton et al., "Distilling the knowledge in a neural network", 2015).
    """
    temperature = course.distillation_temperature
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16 and has_bfloat16()):
        logits = network.logits(pixels).float() / temperature
        with torch.no_grad():
            answers = [softmax(each.logits(pixels).float() / temperature) for each in teachers]
        targets = torch.stack(answers).mean(0)
    return F.cross_entropy(logits, targets) * temperature**2


def train_model(
    name: str, seed: int, epochs: int | None, out: Path, limit_images: int | None
) -> Card:
    """Train, measure the test images once, and write `out/NAME.safetensors` and its card."""
    torch.set_num_threads(1)
    course = COURSES[name]
    recipe = replace(course.recipe, epochs=epochs or course.recipe.epochs)
    make_writable(out, name)
    images, labels = (tensor[:limit_images] for tensor in load_mnist("train"))
    data = prepare_data(images, labels, seed, course.copies)
    network = train_network(data, seed, replace(course, recipe=recipe))
    print("calibrating and testing …", file=sys.stderr)
    images, labels = (torch.from_numpy(array) for array in data.validation)
    network.temperature, review_below = calibrate(network, images, labels)
    test_images, test_labels = load_mnist("test")
    answers = classify(network, test_images)
    command = f"python -m training {name} --seed {seed} --epochs {recipe.epochs}"
    command += "" if limit_images is None else f" --limit-images {limit_images}"
    card = Card(
        name=name,
        architecture=network.architecture,
        mean=recipe.mean,
        std=recipe.std,
        seed=seed,
        command=f"{command} --out DIR",
        validation_accuracy=round(measure_accuracy(classify(network, images), labels), 6),
        test_accuracy=round(measure_accuracy(answers, test_labels), 6),
        test_calibration_error=round(measure_calibration_error(answers, test_labels), 6),
        temperature=network.temperature,
        review_below=review_below,
    )
    return write_model(out, card, network.state_dict())
