"""What each rule of normalisation is worth: the answers with all rules, and without each.

`python -m benchmarks.steps [LABELS.csv]` takes a table with the columns `path` (from the table's
folder), `label` and `kind`. Without a table, it renders pictures around the MNIST test images: the
kinds that the networks learn from, and one kind for the purpose of each rule (`step_kinds.py`).

Three figures for each network and kind of picture, in %:
- right: the share of right answers;
- review: the share that a worker marks for review;
- missed: the share of wrong answers that a worker does not mark. A picture of two digits, or of
  none, has no right answer, so this is what the rules that only mark are for.

A rule is run again only on the pictures where it did something: while all rules are on, each
function that a rule belongs to is also called without the rule, and the two outcomes are compared.
"""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import cv2
import numpy as np
import torch

from benchmarks import step_kinds
from training.synthetic.scenes import PICTURE_KINDS, draw_shape, enlarge, warp
from worker.classify import TTA_BELOW, combine_views
from worker.dataset import load_mnist
from worker.models.model import load_model
from worker.sight.decoding import any_file
from worker.sight.decoding.pillow import prepare_libraries
from worker.sight.normalisation import (
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
from worker.sight.types import Grey, ImageError, Picture

COMPARED = ("cnn", "mlp")
NO_ANSWER = -1  # the label of a picture of two digits, or of none
MODULES = (
    background, colours, doubts, line_finding, lines, measuring, panels, placing, shapes, steps,
    views,
)  # fmt: skip
Sample = tuple[Picture, int, str]  # an image, its digit, its kind
Answer = tuple[int, bool]  # the digit that is answered, and whether it is marked for review


Change = tuple[ModuleType, str, object]  # another value of a name


class Rule(NamedTuple):
    """A rule, and how to switch it off: by other values of some names of modules."""

    name: str
    owner: Callable[..., Any]  # the function whose outcome is another without the rule
    changes: tuple[Change, ...]
    simpler: Callable[..., Any] | None = None  # what takes the whole function's place


def without(name: str, owner: Callable[..., Any], simpler: Callable[..., Any]) -> Rule:
    """A rule that is a whole function; `simpler` takes its place in each module that uses it."""
    uses = [
        (module, key, simpler)
        for module in MODULES
        for key, value in vars(module).items()
        if value is owner
    ]
    return Rule(name, owner, (*uses, *exchange(owner, simpler)), simpler)


def exchange(owner: Callable[..., Any], other: Callable[..., Any]) -> Iterator[Change]:
    """The changes that put another function in the place of a step, if it is one."""
    if owner in steps.STEPS:
        yield steps, "STEPS", tuple(other if step is owner else step for step in steps.STEPS)


def is_mostly_dark(grey: Grey) -> bool:
    return bool(grey.mean() < 128)


def even_background(grey: Grey) -> Grey:
    return np.full_like(grey, np.median(measuring.border(grey)))


def luma(image: np.ndarray) -> Grey:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def weigh_alike(height: int, width: int) -> np.ndarray:
    return np.full((height, width), 1 / (height * width))


def first(value: Any, *_: object) -> Any:
    return value


def second(_: object, value: Any, *__: object) -> Any:
    return value


def each_by_itself(inked: np.ndarray, shape: np.ndarray, count: int) -> np.ndarray:
    return np.arange(count - 1)


def no(*_: object) -> bool:
    return False


def yes(*_: object) -> bool:
    return True


def none(*_: object) -> None:
    return None


def no_shape(boxes: shapes.Rects, *_: object) -> np.ndarray:
    return np.zeros(len(boxes[0]), np.bool_)


def no_mask(first: np.ndarray, *_: object) -> np.ndarray:
    return np.zeros_like(first)


def changed(name: str, owner: Callable[..., Any], module: ModuleType, **values: object) -> Rule:
    """A rule that is a part of a function: other values of names of a module switch it off."""
    return Rule(name, owner, tuple((module, key, value) for key, value in values.items()))


def cut_box(picture: Picture, corners: np.ndarray) -> Picture:
    left, top, width, height = cv2.boundingRect(corners)
    return picture[max(0, top) : top + height, max(0, left) : left + width].copy()


def on_rim_if_many(boxes: Any, shape: tuple[int, ...]) -> Any:
    return False if isinstance(boxes, tuple) else ARE_ON_RIM(boxes, shape)


ARE_ON_RIM = lines.are_on_rim
INFINITE = float("inf")
dark, ink = background.is_background_dark, background.extract_ink
bright = background.estimate_background
straight, grid, digit = lines.remove_straight_lines, line_finding.find_lines, shapes.select_digit
under, plate, dropped = shapes.find_underlines, panels.find_plate, doubts.is_digit_dropped
ROWS = [
    without("colours by their own line", colours.project_colours, luma),
    without("which is background", dark, is_mostly_dark),
    changed("background: width", dark, background, WIDTH_WEIGHT=0.0),
    changed("background: contrast", dark, background, CONTRAST_WEIGHT=0.0),
    changed("background: a photo's light", dark, background, MIN_LIGHT_VARIANCE=INFINITE),
    without("background: rings and corners", background.background_weights, weigh_alike),
    changed("background: evenly black", background.is_photo, background, has_drawn_background=no),
    changed("background: paper is light", dark, background, LIGHT_PAPER_BIAS=0.0),
    without("uneven light", bright, even_background),
    without("light: smooth", background.fit_light, none),
    without("light: at the edges", background.darken_edges, first),
    changed("light: even", bright, background, MIN_EVENNESS=INFINITE),
    changed("ink: noise", ink, background, MAX_NOISE=0),
    changed("ink: paler than lines", ink, background, spans_image=no),
    without("ink: shade", background.exclude_shade, second),
    changed("ink: shade beside lines", background.exclude_shade, background, is_form=no),
    changed("ink: paler shade", background.exclude_shade, background, SHADE_RADIUS=(1e9, 0)),
    without("remove_lines", lines.remove_lines, first),
    without("lines: frame", lines.is_frame, no),
    without("lines: framed digit", lines.is_framed, yes),
    without("lines: sides of a cell", line_finding.find_sides, no_mask),
    without("lines: confirmed", line_finding.confirm_lines, first),
    changed("lines: tilted", grid, line_finding, LINE_SLOPES=(0.0,)),
    changed("lines: broken", grid, line_finding, GAP_DIVISOR=10_000),
    changed("lines: with strokes along", grid, line_finding, MAX_LINE_GAPS=1.0),
    changed("lines: thick", grid, line_finding, MAX_JOINED_THICKNESS=line_finding.MAX_THICKNESS),
    changed("lines: empty cell", straight, lines, are_on_rim=on_rim_if_many),
    changed("lines: many", straight, lines, MANY_LINES=1000),
    without("lines: bars of the digit", lines.are_bars, no),
    without("lines: thick bars", lines.is_bar, no),
    without("lines: bridged strokes", lines.bridge, no_mask),
    without("lines: scraps", lines.remove_scraps, first),
    changed("lines: scraps near the digit", lines.remove_scraps, lines, MAX_PART_DISTANCE=0.0),
    without("lines: pale digit", lines.strengthen, first),
    without("fill_outline", shapes.fill_outline, first),
    changed("fill_outline: no ring", shapes.fill_outline, shapes, MIN_RING_FILL=INFINITE),
    without("select_digit", digit, first),
    without("shapes: circles", shapes.find_surrounds, no_shape),
    without("shapes: lines under the digit", under, no_shape),
    changed("shapes: buttons", under, shapes, MAX_BUTTON_ASPECT=0.0),
    changed("shapes: two lines", under, shapes, MAX_PAIR_ASPECT=0.0),
    changed("shapes: no base of a 2", under, shapes, MAX_BASE_WIDTH=INFINITE),
    without("shapes: print", shapes.find_print, no_shape),
    changed("shapes: print is thinner", shapes.find_print, shapes, MAX_PRINT_STROKE=INFINITE),
    without("shapes: punched holes", shapes.find_punched, no_shape),
    without("shapes: pieces", shapes.group_pieces, each_by_itself),
    changed("shapes: shadows", digit, shapes, MAX_EDGE_FILL=2.0),
    changed("shapes: rim", digit, shapes, IMAGE_RIM=0.0),
    without("panels", panels.find_panel, none),
    without("panels: plates", plate, none),
    changed("panels: rectangles", plate, panels, is_rectangle=no),
    without("panels: discs", panels.is_disc, no),
    changed("panels: convex", plate, panels, is_digit_hole=no),
    changed("panels: a thick 0 is none", plate, panels, is_zero_hole=no),
    without("panels: beside a desk", panels.find_page, none),
    without("panels: sheets", panels.find_sheet, none),
    changed("panels: sheets aslant", steps.cut, steps, rectify=cut_box),
    without("dilate_thin_strokes", placing.dilate_thin_strokes, first),
    without("passed unchanged", placing.is_normalised, no),
    without("looked at alone", panels.surroundings, lambda ink: (0.0, 1.0, 0.0, 0.9999)),
    without("review: solid", doubts.is_solid, no),
    without("review: another digit", dropped, no),
    changed(
        "review: another at an edge",
        dropped,
        doubts,
        MIN_EDGE_WIDTH=INFINITE,
        MIN_EDGE_HEIGHT=INFINITE,
        is_upright_1=no,
    ),
    changed("review: a frame is no digit", dropped, doubts, is_box=no),
    changed("review: a line is no digit", dropped, doubts, MAX_LINE_ASPECT=0.0),
    without("review: one above", doubts.is_digit_above, no),
    without("review: one within", doubts.is_digit_within, no),
]
VIEW_GROUPS = {
    "all": {*views.VIEWS},
    "parts": {*views.PARTS},
    **{view: {view} for view in views.VIEWS},
}


@contextmanager
def switched_off(rule: Rule) -> Iterator[None]:
    """A rule left out, or done as the simplest programs do it."""
    with ExitStack() as stack:
        for change in rule.changes:
            stack.enter_context(patch.object(*change))
        yield


@contextmanager
def watched(rules: list[Rule], used: set[str]) -> Iterator[None]:
    """Puts into `used` the names of those rules that change what their functions give."""
    with ExitStack() as stack:
        comparing: list[bool] = []
        for owner in {id(rule.owner): rule.owner for rule in rules}.values():
            own = [rule for rule in rules if rule.owner is owner]
            for change in without("", owner, spy(owner, own, used, comparing)).changes:
                stack.enter_context(patch.object(*change))
        yield


def spy(
    function: Callable[..., Any], own: list[Rule], used: set[str], comparing: list[bool]
) -> Callable[..., Any]:
    """The function, which on the way puts into `used` what rules of its own matter."""

    @wraps(function)
    def both(*args: Any, **kwargs: Any) -> Any:
        outcome = function(*args, **kwargs)
        if not comparing:  # else it is called within a comparison
            comparing.append(True)
            used.update(
                rule.name
                for rule in own
                if rule.name not in used and differs(outcome, rule, function, args, kwargs)
            )
            comparing.clear()
        return outcome

    return both


def differs(outcome: Any, rule: Rule, function: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    """Whether a function gives another outcome without a rule."""
    try:
        with switched_off(rule):
            other = (rule.simpler or function)(*args, **kwargs)
    except ImageError:
        return True
    return not same(other, outcome)


def same(first: Any, second: Any) -> bool:
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return np.array_equal(first, second)


def read_samples(table: Path) -> Iterator[Sample]:
    """The images that a table lists."""
    with open(table, newline="") as file:
        for row in csv.DictReader(file):
            content = (table.parent / row["path"]).read_bytes()
            yield any_file.read_picture(content, steps.FINE[0]), int(row["label"]), row["kind"]


def render_samples(count: int, chosen: list[str] | None) -> Iterator[Sample]:
    """Pictures of the first test images of MNIST, so many of each kind."""
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


@cache
def combine(network: str, first: bytes, seen: tuple[tuple[str, bytes], ...]) -> np.ndarray:
    others = {name: np.frombuffer(pixels, np.uint8).reshape(28, 28) for name, pixels in seen}
    return combine_views(load_model(network), classify(network, first), others)


class Reading(NamedTuple):
    """What a worker reads of a picture; without a digit where it sees none."""

    digit: bytes = b""
    is_sure: bool = False
    views: tuple[tuple[str, bytes], ...] = ()


def read(picture: Picture) -> Reading:
    try:
        *_, last = steps.trace_steps(lambda side: picture)
    except ImageError:
        return Reading()
    digit, others = last.image.tobytes(), {}
    if any(classify(network, digit).max() < TTA_BELOW for network in COMPARED):
        *_, others = steps.trace_views(lambda side: picture)
    seen = tuple((name, view.tobytes()) for name, view in others.items())
    return Reading(digit, not last.review_reason, seen)


def answer(reading: Reading, network: str, left_out: set[str]) -> Answer:
    """What a worker answers, as `worker/classify.py` finds it."""
    if not reading.digit:
        return NO_ANSWER, True
    below = load_model(network).card.review_below
    probabilities = classify(network, reading.digit)
    is_sure = reading.is_sure and probabilities.max() >= below
    if probabilities.max() < TTA_BELOW:
        seen = tuple(view for view in reading.views if view[0] not in left_out)
        probabilities = combine(network, reading.digit, seen)
    return int(probabilities.argmax()), bool(not is_sure or probabilities.max() < below)


def measure(
    readings: list[Reading], labels: np.ndarray, kinds: np.ndarray, left_out: set[str]
) -> dict[str, np.ndarray]:
    """For each kind, and all of one digit, (networks, 3): % right, to review, and missed."""
    shares = []
    for network in COMPARED:
        answers = [answer(reading, network, left_out) for reading in readings]
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
    parser.add_argument("table", type=Path, nargs="?")
    parser.add_argument("--rendered", type=int, default=200, help="pictures of each kind")
    parser.add_argument("--kind", action="append", help="only this kind of rendered pictures")
    parser.add_argument("--rule", action="append", help="only this rule, or these")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prepare_libraries()
    table = arguments.table
    samples = list(
        read_samples(table) if table else render_samples(arguments.rendered, arguments.kind)
    )
    labels = np.array([label for _, label, _ in samples])
    kinds = np.array([kind for _, _, kind in samples])
    rules = [rule for rule in ROWS if not arguments.rule or rule.name in arguments.rule]
    readings, used_by = [], []
    used: set[str] = set()
    with watched(rules, used):
        for picture, _, _ in samples:
            used.clear()
            readings.append(read(picture))
            used_by.append(frozenset(used))
    print(f"{'right review missed, %':36} {'kind':20}", *(f"{n:>22}" for n in COMPARED))
    whole = measure(readings, labels, kinds, set())
    counts = Counter(kinds.tolist())
    for kind, figures in whole.items():
        count = counts.get(kind, int((labels != NO_ANSWER).sum()))
        print_row("nothing left out", f"{kind} ({count})", figures)
    for rule in rules:
        changed = list(readings)
        rows = [row for row, used in enumerate(used_by) if rule.name in used]
        with switched_off(rule):
            for row in rows:
                changed[row] = read(samples[row][0])
        print_changes(rule.name, whole, measure(changed, labels, kinds, set()), len(rows))
    for name, left_out in VIEW_GROUPS.items():
        if not arguments.rule:
            print_changes(f"view: {name}", whole, measure(readings, labels, kinds, left_out), 0)


def print_changes(
    name: str, whole: dict[str, np.ndarray], part: dict[str, np.ndarray], used: int
) -> None:
    """What the figures lose or gain without a rule, where they do."""
    changes = {kind: part[kind] - whole[kind] for kind in whole}
    print(f"{name} (used in {used})")
    for kind, change in changes.items():
        if np.abs(change).max() > 1e-9:
            print_row("", kind, change, "+")
    sys.stdout.flush()


def print_row(name: str, kind: str, figures: np.ndarray, sign: str = "") -> None:
    cells = ["".join(f"{value:{sign}7.1f}" for value in row) for row in figures]
    print(f"{name:36} {kind:20}", *(f"{cell:>22}" for cell in cells))


if __name__ == "__main__":
    main()
