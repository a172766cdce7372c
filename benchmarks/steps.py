"""What each rule of normalisation is worth: the answers with all rules, and without each.

`python benchmarks/steps.py [LABELS.csv]` takes a table with the columns `path` (from the table's
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
import step_kinds
import torch

from worker.classify import TTA_BELOW, combine_views
from worker.dataset import load_mnist
from worker.decoding import opening
from worker.models.model import load_model
from worker.normalisation import (
    background,
    colours,
    doubts,
    frames,
    line_finding,
    lines,
    measuring,
    outlines,
    panels,
    placing,
    shapes,
    steps,
    views,
)
from worker.pictures import Grey, ImageError, Picture
from worker.training.synthetic.scenes import KINDS, draw_shape, enlarge, warp

NETWORKS = ("cnn", "mlp")
NO_ANSWER = -1  # the label of a picture of two digits, or of none
MODULES = (
    background, colours, doubts, frames, line_finding, lines, measuring, outlines, panels,
    placing, shapes, steps, views,
)  # fmt: skip
Sample = tuple[Picture, int, str]  # an image, its digit, its kind
Answer = tuple[int, bool]  # the digit that is answered, and whether it is marked for review


Change = tuple[ModuleType, str, object]  # another value of a name


class Rule(NamedTuple):
    """A rule, and how to switch it off: by other values of some names of modules."""

    name: str
    owner: Callable[..., Any]  # the function whose outcome is another without the rule
    changes: tuple[Change, ...] = ()


def without(name: str, owner: Callable[..., Any], simpler: Callable[..., Any]) -> Rule:
    """A rule that is a whole function; `simpler` takes its place in each module that uses it."""
    uses = [
        (module, key, simpler)
        for module in MODULES
        for key, value in vars(module).items()
        if value is owner
    ]
    return Rule(name, owner, (*uses, *exchange(owner, simpler)))


def exchange(owner: Callable[..., Any], other: Callable[..., Any]) -> Iterator[Change]:
    """The changes that put another function in the place of a step, if it is one."""
    for name in ("STEPS", "DOUBTED"):
        of = getattr(steps, name)
        if owner in of:
            yield steps, name, tuple(other if step is owner else step for step in of)


def is_mostly_dark(grey: Grey) -> bool:
    return bool(grey.mean() < 128)


def even_ground(grey: Grey) -> Grey:
    return np.full_like(grey, np.median(measuring.border(grey)))


def luma(image: np.ndarray) -> Grey:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def unchanged(ink: Any, *_: object) -> Any:
    return ink


def no(*_: object) -> bool:
    return False


def yes(*_: object) -> bool:
    return True


def none(*_: object) -> None:
    return None


def no_shape(boxes: shapes.Boxes, *_: object) -> np.ndarray:
    return np.zeros(len(boxes[0]), np.bool_)


def no_mask(first: np.ndarray, *_: object) -> np.ndarray:
    return np.zeros_like(first)


INFINITE = float("inf")
RULES = [
    without("colours by their own line", colours.project_colours, luma),
    without("which is ground", background.is_ground_dark, is_mostly_dark),
    Rule("ground: width vote", background.is_ground_dark, ((background, "WIDTH_VOTE", 0.0),)),
    Rule("ground: strays vote", background.is_ground_dark, ((background, "STRAYS_VOTE", 0.0),)),
    Rule("ground: levelled vote", background.is_ground_dark, ((background, "LIT", INFINITE),)),
    Rule(
        "ground: paper is light", background.is_ground_dark, ((background, "PAPER_IS_LIGHT", 0.0),)
    ),
    Rule(
        "ground: obvious photo excepted", background.is_ground_dark, ((background, "is_photo", no),)
    ),
    Rule(
        "ground: rings and corners",
        background.is_ground_dark,
        ((background, "weigh_ground", lambda h, w: np.full((h, w), 1 / (h * w))),),
    ),
    Rule("ground: drawn ground", background.is_photo, ((background, "has_drawn_ground", no),)),
    Rule(
        "ink: drawn ground is even", background.extract_ink, ((background, "has_drawn_ground", no),)
    ),
    Rule("ink: noise", background.extract_ink, ((background, "MAX_NOISE", 0),)),
    Rule("ink: paler than lines", background.extract_ink, ((background, "goes_across", no),)),
    without(
        "ink: leave_out_shade",
        background.leave_out_shade,
        lambda ink, faintest, threshold: faintest,
    ),
    Rule("ink: is_form", background.leave_out_shade, ((background, "is_form", no),)),
    Rule("ink: paler shade", background.leave_out_shade, ((background, "WIDER", (1e9, 0)),)),
    without("uneven light", background.estimate_ground, even_ground),
    without("light: fit_light", background.fit_light, none),
    without("light: darken_edges", background.darken_edges, unchanged),
    Rule("light: even light", background.estimate_ground, ((background, "EVEN", 2.0),)),
    without("remove_lines", lines.remove_lines, unchanged),
    without("lines: leave_inside", frames.leave_inside, unchanged),
    without("lines: is_frame", frames.is_frame, no),
    without("lines: is_framed", frames.is_framed, yes),
    without("lines: find_sides", line_finding.find_sides, no_mask),
    without("lines: confirm", line_finding.confirm, unchanged),
    Rule(
        "lines: lone one in steps",
        line_finding.find_grid,
        ((line_finding, "count_lines", lambda rows: 2),),
    ),
    Rule(
        "lines: steps",
        line_finding.trace_lines,
        ((line_finding, "are_lines", line_finding.are_lines),),
    ),
    Rule("lines: tilts", line_finding.trace_lines, ((line_finding, "SLOPES", (0.0,)),)),
    Rule("lines: gaps", line_finding.trace_lines, ((line_finding, "GAP", 10000),)),
    Rule("lines: ends", line_finding.trace_lines, ((line_finding, "AT_ENDS", -1),)),
    Rule("lines: free thickness", line_finding.trace_lines, ((line_finding, "FREE", 1.0),)),
    Rule("lines: thick one", line_finding.trace_lines, ((line_finding, "THICK", 0.14),)),
    without("lines: strengthen", lines.strengthen, unchanged),
    without("lines: leave_out_scraps", lines.leave_out_scraps, unchanged),
    Rule("lines: scraps near the digit", lines.leave_out_scraps, ((lines, "NEAR", 0.0),)),
    Rule(
        "lines: empty cell",
        lines.remove_straight_lines,
        (
            (
                lines,
                "are_on_rim",
                lambda boxes, shape, real=lines.are_on_rim: (
                    False if isinstance(boxes, tuple) else real(boxes, shape)
                ),
            ),
        ),
    ),
    without("lines: are_bars", lines.are_bars, no),
    without("lines: is_bar", lines.is_bar, no),
    without("lines: bridge", lines.bridge, no_mask),
    Rule("lines: many", lines.remove_straight_lines, ((lines, "MANY", 1000),)),
    without("fill_outline", outlines.fill_outline, unchanged),
    Rule("fill_outline: round", outlines.fill_outline, ((outlines, "CONVEX", INFINITE),)),
    without("select_digit", shapes.select_digit, unchanged),
    without("shapes: surrounds", shapes.find_surrounds, no_shape),
    Rule("shapes: surrounds that are solid", shapes.find_surrounds, ((shapes, "CLOSED", 2.0),)),
    without("shapes: ruled", shapes.find_ruled, no_shape),
    without("shapes: underlines", shapes.find_underlines, no_shape),
    Rule("shapes: buttons", shapes.find_underlines, ((shapes, "BUTTON", 0.0),)),
    Rule("shapes: pair of lines", shapes.find_underlines, ((shapes, "PAIR", 0.0),)),
    Rule("shapes: no base", shapes.find_underlines, ((shapes, "NO_BASE", INFINITE),)),
    Rule("shapes: whole above a line", shapes.find_underlines, ((shapes, "MOST", 0.0),)),
    without("shapes: print", shapes.find_print, no_shape),
    Rule("shapes: thinner print", shapes.find_print, ((shapes, "THINNER", INFINITE),)),
    without("shapes: marks", shapes.find_marks, no_shape),
    Rule("shapes: full stops", shapes.find_marks, ((shapes, "STOP", 0.0),)),
    Rule("shapes: punched holes", shapes.find_marks, ((shapes, "HOLE", 0.0),)),
    without(
        "shapes: pieces", shapes.group_pieces, lambda inked, shape, count: np.arange(count - 1)
    ),
    Rule("shapes: shadows", shapes.select_digit, ((shapes, "SOLID", 2.0),)),
    Rule("shapes: frames", shapes.select_digit, ((shapes, "FRAME", 2.0),)),
    Rule("shapes: rim", shapes.select_digit, ((shapes, "RIM", 0.0),)),
    without("panels", panels.find_panel, none),
    without("panels: bars", panels.between_bars, none),
    without("panels: plates", panels.find_plate, none),
    without("panels: discs", panels.is_disc, no),
    Rule("panels: convex", panels.find_plate, ((panels, "is_digit", no),)),
    Rule("panels: not of a 0", panels.find_plate, ((panels, "is_of_0", no),)),
    Rule("panels: rectangles", panels.find_plate, ((panels, "is_rectangle", no),)),
    without("panels: strips", panels.beside_strips, none),
    without("panels: tilted strip of a 7", panels.measure_strip, panels.measure_strip),
    without("panels: sheets", panels.find_sheet, none),
    Rule(
        "panels: aslant",
        steps.cut,
        (
            (
                steps,
                "rectify",
                lambda p, c: p[
                    max(0, int(c[:, 1].min())) : int(c[:, 1].max()) + 1,
                    max(0, int(c[:, 0].min())) : int(c[:, 0].max()) + 1,
                ].copy(),
            ),
        ),
    ),
    without("dilate_thin_strokes", placing.dilate_thin_strokes, unchanged),
    without("pass: is_normalised", placing.is_normalised, lambda grey: False),
    without("review: is_solid", placing.is_solid, no),
    without("review: is_digit_dropped", doubts.is_digit_dropped, no),
    without("review: is_digit_above", doubts.is_digit_above, no),
    without("review: is_digit_within", doubts.is_digit_within, no),
    Rule("review: frame is no digit", doubts.is_digit_dropped, ((doubts, "is_box", no),)),
    Rule("review: a line is no digit", doubts.is_digit_dropped, ((doubts, "LINE", 0.0),)),
    without("cut-out look", steps.surroundings, lambda ink: (0.0, 1.0, 0.0, 0.9999)),
]
RULES = [r for r in RULES if r.name not in ("lines: steps", "panels: tilted strip of a 7")]
VIEW_GROUPS = {
    "all": {view.__name__ for view in views.VIEWS},
    "parts": {view.__name__ for view in views.PARTS},
    **{view.__name__: {view.__name__} for view in views.VIEWS},
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
    comparing = False

    def spy(function: Callable[..., Any], own: list[Rule]) -> Callable[..., Any]:
        @wraps(function)
        def both(*args: Any, **kwargs: Any) -> Any:
            nonlocal comparing
            outcome = function(*args, **kwargs)
            if not comparing:
                comparing = True
                try:
                    for rule in own:
                        if rule.name not in used and differs(outcome, rule, function, args, kwargs):
                            used.add(rule.name)
                finally:
                    comparing = False
            return outcome

        return both

    with ExitStack() as stack:
        owners = {id(rule.owner): rule.owner for rule in rules}
        for owner in owners.values():
            own = [rule for rule in rules if rule.owner is owner]
            double = spy(owner, own)
            for module in MODULES:
                for key, value in list(vars(module).items()):
                    if value is owner:
                        stack.enter_context(patch.object(module, key, double))
            for change in exchange(owner, double):
                stack.enter_context(patch.object(*change))
        yield


def differs(outcome: Any, rule: Rule, function: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    simpler = [change[2] for change in rule.changes if change[1] == rule.owner.__name__]
    try:
        if simpler:
            other = simpler[0](*args, **kwargs)  # type: ignore[operator]
        else:
            with switched_off(rule):
                other = function(*args, **kwargs)
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
            yield opening.read_picture(content, steps.FINE[0]), int(row["label"]), row["kind"]


def render_samples(count: int, chosen: list[str] | None) -> Iterator[Sample]:
    """Pictures of the first test images of MNIST, so many of each kind."""
    digits, labels = (tensor.numpy() for tensor in load_mnist("test"))
    kinds = [*KINDS.values(), *step_kinds.ONE_DIGIT, *step_kinds.NO_ANSWER]
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
                NO_ANSWER if render in step_kinds.NO_ANSWER else label,
                render.__name__,
            )


@cache
def classify(network: str, digit: bytes) -> np.ndarray:
    return load_model(network).classify_together(np.frombuffer(digit, np.uint8)[None].copy())[0]


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
    if any(classify(network, digit).max() < TTA_BELOW for network in NETWORKS):
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
    for network in NETWORKS:
        answers = [answer(reading, network, left_out) for reading in readings]
        digits, marked = (np.array(part) for part in zip(*answers, strict=True))
        right = (digits == labels) & (labels != NO_ANSWER)
        shares.append(np.stack([right, marked, ~right & ~marked]))
    each = 100 * np.array(shares, float)
    found = {kind: each[:, :, kinds == kind].mean(axis=2) for kind in dict.fromkeys(kinds.tolist())}
    return {**found, "all of one digit": each[:, :, labels != NO_ANSWER].mean(axis=2)}


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
    cv2.setNumThreads(1)
    table = arguments.table
    samples = list(
        read_samples(table) if table else render_samples(arguments.rendered, arguments.kind)
    )
    labels = np.array([label for _, label, _ in samples])
    kinds = np.array([kind for _, _, kind in samples])
    rules = [rule for rule in RULES if not arguments.rule or rule.name in arguments.rule]
    readings, used_by = [], []
    used: set[str] = set()
    with watched(rules, used):
        for picture, _, _ in samples:
            used.clear()
            readings.append(read(picture))
            used_by.append(frozenset(used))
    print(f"{'right review missed, %':36} {'kind':20}", *(f"{n:>22}" for n in NETWORKS))
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
