"""What each rule of normalisation is worth: the answers with all rules, and without each.

`python -m training.steps` renders pictures around the MNIST test images: the kinds that the
networks learn from, and kinds for the purpose of single rules (`step_kinds.py`). It prints three
figures for each network and kind of picture, in %, and how they change without each rule:
- right: the share of right answers;
- review: the share that a worker marks for review;
- missed: the share of wrong answers that a worker does not mark. A picture of two digits has no
  right answer, so this is what the rules that only mark are for.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

import cv2
import numpy as np
import torch

from digitq.worker.classify import TTA_BELOW, combine_views
from digitq.worker.dataset import load_mnist
from digitq.worker.models.model import load_model
from digitq.worker.picture import Grey, ImageError, Picture
from digitq.worker.sight.decoding.pillow import prepare_libraries
from digitq.worker.sight.normalisation import (
    background,
    colours,
    doubts,
    line_finding,
    lines,
    measuring,
    panels,
    placing,
    shapes,
    steps,
    views,
)
from training import step_kinds
from training.synthetic.scenes import PICTURE_KINDS, draw_shape, enlarge, warp

COMPARED = ("cnn", "mlp")
NO_ANSWER = -1  # the label of a picture of two digits
STEP_MODULES = (
    background, colours, doubts, line_finding, lines, measuring, panels, placing, shapes, steps,
    views,
)  # fmt: skip
LabelledPicture = tuple[Picture, int, str]  # an image, its digit, its kind


def is_mostly_dark(grey: Grey) -> bool:
    return bool(grey.mean() < 128)


def even_background(grey: Grey) -> Grey:
    return np.full_like(grey, np.median(measuring.border(grey)))


def luma(image: np.ndarray) -> Grey:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def first(value: Any, *_: object) -> Any:
    return value


def second(_: object, value: Any, *__: object) -> Any:
    return value


def no(*_: object) -> bool:
    return False


def none(*_: object) -> None:
    return None


def no_shape(boxes: shapes.Rects, *_: object) -> np.ndarray:
    return np.zeros(len(boxes[0]), np.bool_)


def no_mask(first: np.ndarray, *_: object) -> np.ndarray:
    return np.zeros_like(first)


Function = Callable[..., Any]
STEP_RULES: dict[str, tuple[Function, Function]] = {  # each rule, and what takes its place
    "colours by their own line": (colours.project_colours, luma),
    "which is background": (background.is_background_dark, is_mostly_dark),
    "uneven light": (background.estimate_background, even_background),
    "shade": (background.exclude_shade, second),
    "remove_lines": (lines.remove_lines, first),
    "sides of a cell": (line_finding.find_sides, no_mask),
    "pale digit": (lines.strengthen, first),
    "fill_outline": (shapes.fill_outline, first),
    "select_digit": (shapes.select_digit, first),
    "circles": (shapes.find_surrounds, no_shape),
    "underlines": (shapes.find_underlines, no_shape),
    "print": (shapes.find_print, no_shape),
    "punched holes": (shapes.find_punched, no_shape),
    "panels": (panels.find_panel, none),
    "plates": (panels.find_plate, none),
    "page beside a desk": (panels.find_page, none),
    "sheets": (panels.find_sheet, none),
    "dilate_thin_strokes": (placing.dilate_thin_strokes, first),
    "passed unchanged": (placing.is_normalised, no),
    "review: too solid": (doubts.is_solid, no),
    "review: another digit": (doubts.is_digit_dropped, no),
    "review: one above": (doubts.is_digit_above, no),
    "review: one within": (doubts.is_digit_within, no),
}


@contextmanager
def without(rule: str) -> Iterator[None]:
    """A rule is done as the simplest programs do it, in each module that uses it."""
    function, simpler = STEP_RULES[rule]
    with ExitStack() as stack:
        for module in STEP_MODULES:
            for name, value in [*vars(module).items()]:
                if value is function:
                    stack.enter_context(patch.object(module, name, simpler))
        changed = tuple(simpler if step is function else step for step in steps.STEPS)
        stack.enter_context(patch.object(steps, "STEPS", changed))
        yield


def render_samples(count: int, chosen: list[str] | None) -> Iterator[LabelledPicture]:
    """`count` pictures of each kind, of the first test images of MNIST."""
    digits, labels = (tensor.numpy() for tensor in load_mnist("test"))
    kinds = [*PICTURE_KINDS.values(), *step_kinds.ONE_DIGIT, *step_kinds.UNANSWERABLE]
    for place, render in enumerate(kinds):
        if chosen and render.__name__ not in chosen:
            continue
        rng = np.random.default_rng(place)
        for number in range(count):
            label = int(labels[number])
            other = warp(enlarge(digits[-1 - number], rng), rng)
            picture = render(draw_shape(digits[number], label, rng), other, rng)
            yield (
                picture,
                NO_ANSWER if render in step_kinds.UNANSWERABLE else label,
                render.__name__,
            )


@cache
def classify(network: str, digit: bytes) -> np.ndarray:
    pixels = np.frombuffer(digit, np.uint8)[None].copy()
    return np.asarray(load_model(network).classify_together(pixels)[0])


class SeenPicture(NamedTuple):
    """What a worker reads of a picture; without a digit where it sees none."""

    digit: bytes = b""
    is_sure: bool = False
    views: dict[str, Grey] = {}


def read(picture: Picture) -> SeenPicture:
    try:
        *_, last = steps.trace_steps(lambda side: picture)
    except ImageError:
        return SeenPicture()
    digit, others = last.image.tobytes(), {}
    if any(classify(network, digit).max() < TTA_BELOW for network in COMPARED):
        *_, others = steps.trace_views(lambda side: picture)
    return SeenPicture(digit, not last.review_reason, others)


def answer(reading: SeenPicture, network: str, has_views: bool) -> tuple[int, bool]:
    """A worker's answer, and whether it marks it, as `worker/classify.py` finds them."""
    if not reading.digit:
        return NO_ANSWER, True
    model = load_model(network)
    probabilities = classify(network, reading.digit)
    is_sure = reading.is_sure and probabilities.max() >= model.card.review_below
    if probabilities.max() < TTA_BELOW and has_views:
        probabilities = combine_views(model, probabilities, reading.views)
    is_marked = not is_sure or probabilities.max() < model.card.review_below
    return int(probabilities.argmax()), bool(is_marked)


def measure(
    readings: list[SeenPicture], samples: list[LabelledPicture], has_views: bool = True
) -> dict[str, np.ndarray]:
    """For each kind, and all of one digit, (networks, 3): % right, to review, and missed."""
    labels = np.array([label for _, label, _ in samples])
    kinds = np.array([kind for _, _, kind in samples])
    shares = []
    for network in COMPARED:
        answers = [answer(reading, network, has_views) for reading in readings]
        digits, marked = (np.array(part) for part in zip(*answers, strict=True))
        right = (digits == labels) & (labels != NO_ANSWER)
        shares.append(np.stack([right, marked, ~right & ~marked]))
    each = 100 * np.array(shares, float)
    found = {kind: each[:, :, kinds == kind].mean(axis=2) for kind in dict.fromkeys(kinds.tolist())}
    if (labels != NO_ANSWER).any():
        found["all of one digit"] = each[:, :, labels != NO_ANSWER].mean(axis=2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rendered", type=int, default=200, help="pictures of each kind")
    parser.add_argument("--kind", action="append", help="only this kind of pictures")
    parser.add_argument("--rule", action="append", choices=[*STEP_RULES], help="only this rule")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prepare_libraries()
    samples = [*render_samples(arguments.rendered, arguments.kind)]
    readings = [read(picture) for picture, _, _ in samples]
    print(f"{'right review missed, %':26} {'kind':20}", *(f"{n:>22}" for n in COMPARED))
    whole = measure(readings, samples)
    for kind, figures in whole.items():
        print_row("nothing left out", kind, figures)
    for rule in arguments.rule or STEP_RULES:
        with without(rule):
            changed = [read(picture) for picture, _, _ in samples]
        print_changes(rule, whole, measure(changed, samples))
    print_changes("all other views", whole, measure(readings, samples, has_views=False))


def print_changes(name: str, whole: dict[str, np.ndarray], part: dict[str, np.ndarray]) -> None:
    """What the figures lose or gain without a rule, where they do."""
    for kind, figures in whole.items():
        if np.abs(part[kind] - figures).max() > 1e-9:
            print_row(name, kind, part[kind] - figures, "+")
    sys.stdout.flush()


def print_row(name: str, kind: str, figures: np.ndarray, sign: str = "") -> None:
    cells = ["".join(f"{value:{sign}7.1f}" for value in row) for row in figures]
    print(f"{name:26} {kind:20}", *(f"{cell:>22}" for cell in cells))


if __name__ == "__main__":
    main()
