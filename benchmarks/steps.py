"""What each step from an image to 28×28 is worth: accuracy with all of them, and without each.

`python benchmarks/steps.py [LABELS.csv]`: a table with columns `path` (from the table's folder),
`label` and `kind`; without one, pictures rendered around the MNIST test images.
"""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np

from worker.classify import TTA_BELOW, combine_views
from worker.dataset import load_mnist
from worker.decoding import opening
from worker.models.model import load_model
from worker.normalisation import background, colours, measuring, steps
from worker.pictures import Grey, ImageError, Picture
from worker.training.synthetic.scenes import PICTURE_KINDS, draw_shape, enlarge, warp

Sample = tuple[Picture, int, str]  # an image, its digit, its kind


def read_samples(table: Path) -> Iterator[Sample]:
    """The images that a table lists."""
    with open(table, newline="") as file:
        for row in csv.DictReader(file):
            content = (table.parent / row["path"]).read_bytes()
            yield opening.read_picture(content, steps.FINE[0]), int(row["label"]), row["kind"]


def render_samples(count: int) -> Iterator[Sample]:
    """Pictures of the first test images of MNIST, so many of each kind."""
    digits, labels = (tensor.numpy() for tensor in load_mnist("test"))
    rng = np.random.default_rng(0)
    for kind, render in PICTURE_KINDS.items():
        for number in range(count):
            label = int(labels[number])
            other = warp(enlarge(digits[-1 - number], rng), rng)
            picture = render(draw_shape(digits[number], label, rng), other, rng)
            yield picture, label, kind


def is_mostly_dark(grey: Grey) -> bool:
    return bool(grey.mean() < 128)


def even_ground(grey: Grey) -> Grey:
    return np.full_like(grey, np.median(measuring.border(grey)))


def luma(image: np.ndarray) -> Grey:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


@contextmanager
def leave_out(name: str) -> Iterator[None]:
    """One step left out, or done as the simplest programs do it."""
    simpler = {
        "colours by their own line": (colours, "project_colours", luma),
        "which is ground": (background, "is_ground_dark", is_mostly_dark),
        "uneven light": (background, "estimate_ground", even_ground),
        "other views": (steps, "VIEWS", ()),
    }
    with ExitStack() as stack:
        if name in simpler:
            stack.enter_context(patch.object(*simpler[name]))
        else:
            kept = tuple(step for step in steps.STEPS if step.__name__ != name)
            stack.enter_context(patch.object(steps, "STEPS", kept))
        yield


STEPS = [
    "nothing",
    "colours by their own line",
    "which is ground",
    "uneven light",
    "remove_lines",
    "fill_outline",
    "select_digit",
    "dilate_thin_strokes",
    "other views",
]


def answer(pictures: list[Picture], name: str) -> np.ndarray:
    """What a network says of each image, as a worker asks it, (N,); of a blank one, anything."""
    model, labels = load_model(name), np.zeros(len(pictures), int)
    for row, picture in enumerate(pictures):
        try:
            digit = steps.normalise(picture)
        except ImageError:
            continue
        probabilities = model.classify(digit.reshape(1, -1))[0]
        if probabilities.max() < TTA_BELOW:
            *_, views = steps.trace_views(lambda side: picture)  # noqa: B023
            probabilities = combine_views(model, probabilities, views)
        labels[row] = probabilities.argmax()
    return labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, nargs="?")
    parser.add_argument("--rendered", type=int, default=500, help="pictures of each kind")
    arguments = parser.parse_args()
    table = arguments.table
    samples = list(read_samples(table) if table else render_samples(arguments.rendered))
    pictures = [picture for picture, _, _ in samples]
    labels = np.array([label for _, label, _ in samples])
    kinds = np.array([kind for _, _, kind in samples])
    counts = Counter(kinds)
    print(
        f"{'% right, cnn / mlp, without':28}",
        *(f"{f'{k} ({n})':>16}" for k, n in counts.items()),
    )
    for name in STEPS:
        with leave_out(name):
            rights = [answer(pictures, model) == labels for model in ("cnn", "mlp")]
        cells = []
        for kind in counts:
            shares = " / ".join(f"{100 * right[kinds == kind].mean():.1f}" for right in rights)
            cells.append(f"{shares:>16}")
        print(f"{name:28}", *cells)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
