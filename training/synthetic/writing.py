"""Writes digits as one person does: with one pen, one slant, and one form for each digit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.models.number_networks import OTHER
from training.chance import Images, Labels, Rng, pick
from training.hands import Writers
from training.synthetic.glyphs import (
    ANGULAR_DIGITS,
    JOINED_HALVES,
    MARK_SIZES,
    MARK_TEXTS,
    MARKS,
    ROUND_DIGITS,
    SLASHED_ZEROS,
    glyph_basis,
)
from training.synthetic.handwriting import LETTERS, Points, Shape
from training.synthetic.scenes import (
    DEFAULT_DRAWN_SHARE,
    DRAWN_SHARES,
    crop,
    put,
    resize,
)
from training.synthetic.tracing import lean_of, trace

DRAWN_HEIGHT = 64  # px, of the digit while its strokes are drawn
# An MNIST digit's mean shift to the right per px of height; a 1, which is one stroke, leans 0.26.
MEAN_LEANS = np.array([0.23, 0.26, 0.13, 0.085, 0.07, 0.24, 0.04, 0.04, 0.19, 0.0]) - 0.2
MIN_PEN_WIDTH = 1.1  # px
REAL_SHARE = 0.6  # this share of the writers is real, if there are real ones
JOINED_SHARE = 0.2  # this share of the halves has joined strokes
FRACTION_DIGITS = {"½": (1, 2), "¼": (1, 4), "¾": (3, 4)}
PICKS = 160  # MNIST digits that are looked at to find some of each value


@dataclass(frozen=True)
class Hand:
    """How one person writes; lengths are shares of a digit's height."""

    slant: float  # shift to the right at the top, per height
    pen: float  # the width of a stroke
    aspect: float  # factor of all widths
    loose: float  # the noise of a glyph's points
    jitter: float  # the noise of heights and of the distance to the baseline
    natural: bool  # MNIST's digits keep the width of their strokes
    nib: Shape | None  # the broad edge of a pen; its strokes are wide in one direction
    heights: NDArray[np.float64]  # (10,) of each digit
    drops: NDArray[np.float64]  # (10,) how far each digit reaches below the baseline
    glyphs: list[str]  # a glyph for each of the ten digits
    examples: list[Images]  # a few of MNIST's for each digit, or none if its glyph is drawn


@dataclass(frozen=True)
class Sign:
    """A written digit or mark, and where it is: px from the left end of the baseline."""

    mask: Shape
    left: int
    top: int
    digit: int | None = None  # None for a mark; `OTHER` for a letter or a crossed-out digit
    text: str = ""  # what is read of it: a digit or a mark; "" for all others
    ends: tuple[Points, Points] | None = None  # where a drawn glyph begins and ends, in the mask

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom."""
        height, width = self.mask.shape
        return self.left, self.top, self.left + width, self.top + height


class Scripts(NamedTuple):
    """The digits to write with: MNIST's, and those of real writers, source by source."""

    shapes: Images
    labels: Labels
    sources: Sequence[Writers] = ()


def choose_hand(scripts: Scripts, rng: Rng, angular: bool = False) -> Hand:
    """Draw a writer at random: a real one, or one who writes with MNIST's and drawn digits.

    Those who write along printed guides have `angular` digits.
    """
    shapes, labels, sources = scripts
    real: list[Images] = []
    if sources and not angular and rng.random() < REAL_SHARE:
        real = pick(sources, rng).choose_digits(rng)
    factor = (
        0.0 if real else pick((0.0, 1.0, 1.0, 3.0), rng)
    )  # the shares of drawn digits are multiplied by it
    picks = rng.integers(len(labels), size=PICKS)
    found = labels[picks]
    glyphs, examples = [], []
    for digit, forms in (ANGULAR_DIGITS if angular else ROUND_DIGITS).items():
        glyphs.append(pick(forms, rng))
        drawn = angular or rng.random() < factor * DRAWN_SHARES.get(digit, DEFAULT_DRAWN_SHARE)
        some = 0 if drawn else int(rng.integers(1, 4))
        if real and len(real[digit]):
            examples.append(real[digit][rng.permutation(len(real[digit]))[:some]])
        else:
            examples.append(shapes[picks[found == digit][:some]])
    habit = rng.random()
    if habit < 0.12 and not angular and not real:  # a 1 as a bare stroke
        glyphs[1], examples[1] = "50,0 50,100", shapes[:0]
    elif habit < 0.17:
        glyphs[0], examples[0] = pick(SLASHED_ZEROS, rng), shapes[:0]
    heights = np.exp(rng.normal(0, 0.07, 10))
    if rng.random() < 0.08:
        heights[0] *= rng.uniform(0.55, 0.85)  # small zeros
    nib = None
    if rng.random() < 0.12:
        nib = draw_edge(rng.uniform(0.04, 0.14) * DRAWN_HEIGHT, rng.uniform(-0.5, 1))
    return Hand(
        slant=rng.normal(0.12, 0.18) * (0.2 if angular else 1),
        pen=float(np.exp(rng.uniform(np.log(0.05), np.log(0.15 if nib is None else 0.08)))),
        aspect=float(np.exp(rng.normal(0, 0.15))),
        loose=rng.uniform(0.005, 0.035),
        jitter=rng.uniform(0.01, 0.08),
        natural=nib is None and rng.random() < 0.3,
        nib=nib,
        heights=heights,
        drops=np.maximum(0, rng.normal(-0.05, 0.12, 10)),
        glyphs=glyphs,
        examples=examples,
    )


def draw_edge(length: float, angle: float) -> Shape:
    """A line of a length in px and an angle in radians, (N, N): what a broad pen leaves."""
    half = int(np.ceil(length / 2))
    reach = np.round(np.array([np.cos(angle), -np.sin(angle)]) * length / 2).astype(int)
    edge = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    first, last = ((half + sign * reach).tolist() for sign in (-1, 1))
    return cv2.line(edge, first, last, 1)


def draw_strokes(
    glyph: str, size: tuple[float, float], thickness: int, hand: Hand, rng: Rng
) -> tuple[Shape, Points, Points]:
    """Draw a glyph of a width and height in px with the writer's slant, cropped to its ink; and
    where it begins and ends."""
    points, weights = glyph_basis(glyph)
    moved = points + rng.normal(0, hand.loose, points.shape)
    moved = moved * size - np.outer(moved[:, 1], (hand.slant * size[1], 0))
    curves = [weight @ moved for weight in weights]
    every = np.concatenate(curves)
    corner = every.min(axis=0) - thickness - 2
    width, height = np.ceil(every.max(axis=0) - corner).astype(int) + thickness + 2
    mask = np.zeros((height, width), np.uint8)
    fine = [np.round((curve - corner) * 16).astype(np.int32) for curve in curves]
    cv2.polylines(mask, fine, False, 255, thickness, cv2.LINE_AA, 4)
    left, top, wide, tall = cv2.boundingRect((mask > 64).astype(np.uint8))
    corner += (left, top)
    ink = mask[top : top + max(1, tall), left : left + max(1, wide)]
    return ink, curves[0][0] - corner, curves[-1][-1] - corner


def write_digit(digit: int, height: float, hand: Hand, rng: Rng) -> Sign:
    """Write a digit; its left is 0, its top is as the writer puts it on the baseline."""
    tall = height * hand.heights[digit] * (1 + rng.normal(0, hand.jitter))
    pen = max(hand.pen, MIN_PEN_WIDTH / height)
    examples, ends = hand.examples[digit], None
    if len(examples):
        example = examples[rng.integers(len(examples))]
        shear = hand.slant + MEAN_LEANS[digit] - lean_of(example) + rng.normal(0, 0.03)
        aspect = hand.aspect * np.exp(rng.normal(0, 0.05))
        mask = trace(example, 0 if hand.natural else pen, shear, aspect)
    if not len(examples) or not mask.any():  # a faint example leaves nothing
        width = (0.45 if digit == 1 else 0.68) * hand.aspect * np.exp(rng.normal(0, 0.05))
        size = (width * DRAWN_HEIGHT, DRAWN_HEIGHT)
        thickness = max(2, round(pen * DRAWN_HEIGHT))
        mask, start, end = draw_strokes(hand.glyphs[digit], size, thickness, hand, rng)
        scale = tall / mask.shape[0]
        ends = (start * scale, end * scale)
    if hand.nib is not None:
        rim = len(hand.nib) // 2
        mask = cv2.dilate(cv2.copyMakeBorder(mask, rim, rim, rim, rim, 0), hand.nib)
    mask = resize(mask, tall)
    foot = (hand.drops[digit] + rng.normal(0, hand.jitter)) * height
    return Sign(mask, 0, round(foot) - mask.shape[0], digit, str(digit), ends)


def write_mark(name: str, height: float, hand: Hand, rng: Rng) -> Sign:
    """Write one of `MARKS`; its left is 0."""
    tall, wide, foot = MARK_SIZES[name]
    size = height * np.exp(rng.normal(0, 0.4 if tall < 0.3 else 0.2))  # some commas are large
    blunt = rng.uniform(1, 2) if name in ("point", "colon") else 1.0  # wider than the pen
    thickness = max(1, round(blunt * hand.pen * height))
    mask, *_ = draw_strokes(MARKS[name], (wide * size, tall * size), thickness, hand, rng)
    if not mask.any():  # a fine point
        mask = np.full((1, 1), 255, np.uint8)
    top = round((foot + rng.normal(0, 0.05)) * height) - mask.shape[0]
    if name == "comma":  # it begins at the baseline, however long it is
        top = round(rng.uniform(-0.2, 0) * height)
    return Sign(mask, 0, top, text=MARK_TEXTS.get(name, ""))


def write_fraction(text: str, height: float, hand: Hand, rng: Rng) -> Sign:
    """Write ½, ¼ or ¾: two digits, and a slash or a bar between them; its left is 0.

    Some halves have joined strokes.
    """
    tall = height * rng.uniform(0.38, 0.95)
    pen = max(1, round(hand.pen * height))
    foot = round((0.1 + rng.normal(0, 0.12)) * height)
    if text == "½" and rng.random() < JOINED_SHARE:
        size = height * rng.uniform(0.6, 1.25)
        canvas, *_ = draw_strokes(
            pick(JOINED_HALVES, rng), (size * rng.uniform(0.6, 1.1), size), pen, hand, rng
        )
        return Sign(canvas, 0, foot - len(canvas), text=text)
    upper, lower = (write_digit(digit, tall, hand, rng).mask for digit in FRACTION_DIGITS[text])
    (deep, wide), (low_deep, low_wide) = upper.shape, lower.shape
    kind = rng.random()
    if kind < 0.35:  # one above the other
        length = max(wide, low_wide) * rng.uniform(0.9, 1.5)
        gap = rng.uniform(0.5, 3) * pen
        first = (length - wide) / 2, 0.0
        second = (length - low_wide) / 2, deep + 2 * gap
        line = np.array([(0, deep + gap), (length, deep + gap * rng.uniform(0.5, 1.3))])
        line = line[:0] if kind < 0.05 else line  # some leave the bar out
    else:
        lean, down = rng.uniform(0.1, 0.6) * tall, rng.uniform(0.1, 0.9) * deep
        across = wide + rng.uniform(-0.05, 0.5) * tall
        first, second = (0.0, 0.0), (across + rng.uniform(-0.3, 0.5) * lean, down)
        lowest = down + low_deep * rng.uniform(0.6, 1.1)
        top = across + lean, rng.uniform(-0.2, 0.3) * tall
        line = np.array([top, (across - lean * rng.uniform(0.2, 1.2), lowest)])
    ends = np.array([*line, first, second, (first[0] + wide, first[1] + deep)])
    ends = np.concatenate([ends, [(second[0] + low_wide, second[1] + low_deep)]])
    corner = ends.min(0) - pen
    canvas = np.zeros(np.ceil(ends.max(0) - corner + pen + 1).astype(int)[::-1], np.uint8)
    for (x, y), mask in ((first, upper), (second, lower)):
        put(canvas, mask, round(y - corner[1]), round(x - corner[0]))
    if len(line):
        fine = np.round((line - corner) * 16).astype(np.int32)
        cv2.polylines(canvas, [fine], False, 255, pen, cv2.LINE_AA, 4)
    canvas = crop(canvas)
    return Sign(canvas, 0, foot - len(canvas), text=text)


def write_letter(height: float, hand: Hand, rng: Rng) -> Sign:
    """Write a letter that looks like no digit; its left is 0."""
    size = height * np.exp(rng.normal(0, 0.1))
    thickness = max(1, round(hand.pen * height))
    mask, *_ = draw_strokes(pick(LETTERS, rng), (0.75 * size, size), thickness, hand, rng)
    return Sign(mask, 0, -mask.shape[0], OTHER)
