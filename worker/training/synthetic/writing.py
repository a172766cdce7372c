"""Writes a number as one person does: with one pen, one slant, and one form for each digit."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.training.synthetic.handwriting import GLYPHS, LETTERS, Points, Shape, smooth
from worker.training.synthetic.scenes import DEFAULT_DRAWN_SHARE, DRAWN_SHARES, crop, resize

Rng = np.random.Generator
Images = NDArray[np.uint8]  # (N, 28, 28)
Labels = NDArray[np.int64]  # (N,)

DRAWN_HEIGHT = 64  # px, of the digit while its strokes are drawn
ROOM = 28  # px, free on each side of it, for strokes that reach out
FIELD_SIDE = 84  # px, of the square in which an MNIST digit's strokes are found: three times 28
MNIST_HEIGHT = 60  # px, of a digit in that square
# An MNIST digit's mean shift to the right per px of height; a 1, which is one stroke, leans 0.26.
MEAN_LEANS = np.array([0.23, 0.26, 0.13, 0.085, 0.07, 0.24, 0.04, 0.04, 0.19, 0.0]) - 0.2

# More glyphs, as in `handwriting.GLYPH_TABLE`: of old registers, of forms with guides for angular
# digits, and of writers who do not lift the pen. `handwriting`'s own list trains other networks.
MORE_GLYPHS_TABLE = """\
0  50,0 5,40 20,95 70,95 95,50 70,5 45,0 / 95,-5 0,105
0  50,0 5,45 35,100 90,70 80,10 45,2 60,15 110,5
0  5,0 95,0 95,0 95,100 95,100 5,100 5,100 5,0
1  50,0 50,100
1  60,0 40,100
1  45,0 55,100
1  95,0 95,100
1  70,0 30,100 / 10,100 60,98
2  0,0 95,0 95,0 95,50 95,50 5,50 5,50 5,100 5,100 95,100
2  10,30 30,0 80,10 70,50 20,90 5,80 30,75 60,98 105,85
2  5,15 50,0 85,20 50,70 5,100 5,100 100,100
3  0,0 90,0 90,0 90,100 90,100 0,100 / 20,50 90,50
3  15,15 55,0 75,25 35,42 35,42 85,55 80,90 30,105 5,85
3  5,0 90,0 90,0 40,35 40,35 95,60 70,100 5,95
4  5,0 5,50 5,50 95,50 / 95,0 95,100
4  65,0 5,70 5,70 100,65 / 75,40 70,100
4  25,0 5,50 5,50 90,45 / 85,15 60,120
5  95,0 5,0 5,0 5,50 5,50 95,50 95,50 95,100 95,100 5,100
5  30,0 20,45 60,40 85,70 45,105 0,90 / 30,0 100,-5
5  85,0 25,5 25,5 15,45 60,42 75,75 35,100 0,92
6  90,0 5,0 5,0 5,100 5,100 95,100 95,100 95,50 95,50 5,50
6  80,-10 30,30 10,75 45,100 80,75 50,55 15,75
7  0,0 95,0 95,0 95,100
7  0,10 0,0 0,0 95,0 95,0 40,100
7  0,5 90,0 90,0 30,60 15,115
8  5,0 95,0 95,0 95,100 95,100 5,100 5,100 5,0 / 5,50 95,50
8  75,15 40,0 20,20 75,70 50,100 15,80 80,25 70,5 50,0
9  95,50 5,50 5,50 5,0 5,0 95,0 95,0 95,100 95,100 5,100
9  85,25 45,0 10,25 40,50 80,25 85,20 70,80 30,120
9  80,5 30,0 10,30 45,45 80,10 80,10 75,100
"""
# What is written near digits and is passed over: strokes, as above. Boxes of different heights.
MARK_TABLE = """\
comma  60,0 60,40 10,100
point  40,40 60,60
apostrophe  70,0 30,100
dash  0,50 100,45
slash  100,0 0,100
equals  0,15 100,10 / 0,90 100,85
star  50,0 50,100 / 5,25 95,75 / 95,25 5,75
dollar  90,15 40,5 15,30 85,65 60,95 5,85 / 55,-15 45,115
euro  95,10 45,0 15,50 45,100 95,90 / -5,40 70,38 / -5,60 65,58
pound  95,15 60,0 40,40 30,90 0,100 0,100 95,98 / 10,55 75,53
hash  35,0 20,100 / 75,0 60,100 / 5,35 100,30 / 0,70 95,65
colon  45,15 55,25 / 45,80 55,90
open  80,0 20,30 20,70 80,100
close  20,0 80,30 80,70 20,100
percent  90,0 10,100 / 20,0 5,15 20,30 30,15 20,0 / 80,70 70,85 80,100 95,85 80,70
tick  0,60 30,100 30,100 110,0
cross  0,0 100,100 / 100,0 0,100
wave  0,60 25,30 50,60 75,70 100,40
"""


def _parse(table: str, sign: str) -> list[str]:
    rows = [line.split("  ") for line in table.splitlines()]
    return [strokes for name, strokes in rows if name == sign]


DIGIT_GLYPHS = [GLYPHS[digit] + _parse(MORE_GLYPHS_TABLE, str(digit)) for digit in range(10)]
MARKS = {line.split("  ")[0]: line.split("  ")[1] for line in MARK_TABLE.splitlines()}


@dataclass(frozen=True)
class Hand:
    """How one person writes; lengths are shares of a digit's height."""

    slant: float  # shift to the right at the top, per height
    pen: float  # the width of a stroke
    aspect: float  # factor of all widths
    loose: float  # the noise of a glyph's points
    jitter: float  # the noise of heights and of the distance to the baseline
    natural: bool  # MNIST's digits keep the width of their strokes
    heights: NDArray[np.float64]  # (10,) of each digit
    drops: NDArray[np.float64]  # (10,) how far each digit reaches below the baseline
    glyphs: list[str]  # of the ten digits
    examples: list[Images]  # of the ten digits: a few of MNIST's, or none if the glyph is drawn


@dataclass(frozen=True)
class Sign:
    """A written digit or mark, and where it is: px from the left end of the baseline."""

    mask: Shape
    left: int
    top: int
    digit: int | None = None  # None for a mark
    ends: tuple[Points, Points] | None = None  # where a drawn glyph begins and ends, in the mask

    @property
    def right(self) -> int:
        return self.left + self.mask.shape[1]

    @property
    def bottom(self) -> int:
        return self.top + self.mask.shape[0]


def choose_hand(shapes: Images, labels: Labels, rng: Rng) -> Hand:
    """Draw a writer at random; most write with MNIST's digits, others with drawn ones."""
    factor = rng.choice([0.0, 1.0, 1.0, 3.0])  # of the shares of drawn digits: none, some, all
    picks = rng.integers(len(labels), size=160)
    found = labels[picks]
    glyphs, examples = [], []
    for digit, forms in enumerate(DIGIT_GLYPHS):
        glyphs.append(forms[rng.integers(len(forms))])
        drawn = rng.random() < factor * DRAWN_SHARES.get(digit, DEFAULT_DRAWN_SHARE)
        examples.append(shapes[picks[found == digit][: 0 if drawn else rng.integers(1, 4)]])
    if rng.random() < 0.1:  # a 1 as a bare stroke
        glyphs[1], examples[1] = "50,0 50,100", shapes[:0]
    return Hand(
        slant=rng.normal(0.12, 0.18),
        pen=float(np.exp(rng.uniform(np.log(0.05), np.log(0.17)))),
        aspect=float(np.exp(rng.normal(0, 0.15))),
        loose=rng.uniform(0.005, 0.035),
        jitter=rng.uniform(0.01, 0.08),
        natural=rng.random() < 0.3,
        heights=np.exp(rng.normal(0, 0.07, 10)) * (0.75 if rng.random() < 0.05 else 1),
        drops=np.maximum(0, rng.normal(-0.05, 0.12, 10)),
        glyphs=glyphs,
        examples=examples,
    )


@cache
def glyph_basis(glyph: str) -> tuple[Points, list[Points]]:
    """A glyph's separate points, (N, 2), and for each stroke the curve's weights of them.

    A curve is linear in its points as long as those that are given twice stay together.
    """
    points: list[list[float]] = []
    places: list[list[int]] = []
    for stroke in glyph.split("/"):
        pairs = [[float(v) / 100 for v in point.split(",")] for point in stroke.split()]
        places.append([])
        for before, pair in zip([None, *pairs], pairs, strict=False):
            if pair != before:
                points.append(pair)
            places[-1].append(len(points) - 1)
    return np.array(points), [smooth(np.eye(len(points))[place]) for place in places]


def draw(glyph: str, width: float, hand: Hand, rng: Rng) -> tuple[Shape, Points, Points]:
    """Draw a glyph with the writer's pen and slant, cropped; and where it begins and ends."""
    points, weights = glyph_basis(glyph)
    moved = points + rng.normal(0, hand.loose, points.shape)
    x = (moved[:, 0] - 0.5) * width * hand.aspect - hand.slant * (moved[:, 1] - 0.5)
    moved = np.column_stack([x, moved[:, 1]]) * DRAWN_HEIGHT
    lowest = moved.min(axis=0) - ROOM
    moved -= lowest
    size = np.ceil(moved.max(axis=0)).astype(int) + ROOM
    mask = np.zeros((size[1], size[0]), np.uint8)
    thickness = max(2, round(hand.pen * DRAWN_HEIGHT))
    curves = [np.round(weight @ moved * 16).astype(np.int32) for weight in weights]
    cv2.polylines(mask, curves, False, 255, thickness, cv2.LINE_AA, 4)
    left, top, *_ = cv2.boundingRect((mask > 64).astype(np.uint8))
    corner = np.array([left, top])
    return crop(mask), curves[0][0] / 16 - corner, curves[-1][-1] / 16 - corner


def trace(example: NDArray[np.uint8], digit: int, hand: Hand, rng: Rng) -> Shape:
    """An MNIST digit with the writer's pen and slant: (28, 28) → cropped to its ink."""
    large = cv2.resize(example, (FIELD_SIDE, FIELD_SIDE), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(large, (0, 0), 1.6)
    if hand.natural:
        field = np.clip((soft.astype(np.float32) - 90) * 4, 0, 255)
    else:
        depth = cv2.distanceTransform((soft > 110).astype(np.uint8), cv2.DIST_L2, 3)
        ridge = cv2.dilate(depth, np.ones((9, 9), np.uint8))
        off = ((depth < 0.75 * ridge) | (depth == 0)).astype(np.uint8)
        distance = cv2.distanceTransform(off, cv2.DIST_L2, 3)
        radius = max(1.0, hand.pen * MNIST_HEIGHT / 2)
        field = np.clip((radius + 0.5 - distance) * 255, 0, 255)
    moments = cv2.moments(example)
    lean = -moments["mu11"] / max(1.0, moments["mu02"])
    shear = hand.slant + MEAN_LEANS[digit] - lean + rng.normal(0, 0.03)
    aspect = hand.aspect * np.exp(rng.normal(0, 0.05))
    middle, side = FIELD_SIDE / 2, 2 * FIELD_SIDE
    shift = side / 2 - (aspect - shear) * middle
    matrix = np.array([[aspect, -shear, shift], [0, 1, 6]])
    return crop(cv2.warpAffine(field.astype(np.uint8), matrix, (side, FIELD_SIDE + 12)))


def write_digit(digit: int, height: float, hand: Hand, rng: Rng) -> Sign:
    """Write a digit; its left is 0, its top is as the writer puts it on the baseline."""
    ends = None
    examples = hand.examples[digit]
    if len(examples):
        mask = trace(examples[rng.integers(len(examples))], digit, hand, rng)
    else:
        width = 0.45 if digit == 1 else 0.68
        mask, start, end = draw(hand.glyphs[digit], width, hand, rng)
        ends = (start, end)
    tall = height * hand.heights[digit] * (1 + rng.normal(0, hand.jitter))
    if ends:
        scale = tall / mask.shape[0]
        ends = (ends[0] * scale, ends[1] * scale)
    mask = resize(mask, tall)
    foot = (hand.drops[digit] + rng.normal(0, hand.jitter)) * height
    return Sign(mask, 0, round(foot) - mask.shape[0], digit, ends)


MARK_SIZES = {  # height, width and the bottom's distance below the baseline
    "comma": (0.25, 0.12, 0.15),
    "point": (0.08, 0.08, 0.0),
    "apostrophe": (0.25, 0.1, -0.75),
    "dash": (0.08, 0.5, -0.4),
    "slash": (1.1, 0.4, 0.1),
    "equals": (0.25, 0.6, -0.3),
    "star": (0.5, 0.45, -0.3),
    "colon": (0.45, 0.08, -0.1),
    "wave": (0.15, 0.6, -0.4),
    "tick": (0.8, 0.7, 0.0),
    "cross": (0.8, 0.7, 0.0),
}


def write_mark(name: str, height: float, hand: Hand, rng: Rng) -> Sign:
    """Write one of `MARKS`; its left is 0."""
    tall, wide, foot = MARK_SIZES.get(name, (1.1, 0.6, 0.1))
    size = np.exp(rng.normal(0, 0.2))
    points, weights = glyph_basis(MARKS[name])
    moved = points + rng.normal(0, hand.loose, points.shape)
    x = moved[:, 0] * wide - hand.slant * (moved[:, 1] - 0.5) * tall
    moved = np.column_stack([x, moved[:, 1] * tall]) * height * size
    pen = max(1.0, hand.pen * height)
    moved += pen + 2 - moved.min(axis=0)
    wide_px, tall_px = np.ceil(moved.max(axis=0) + pen + 2).astype(int)
    mask = np.zeros((tall_px, wide_px), np.uint8)
    curves = [np.round(weight @ moved * 16).astype(np.int32) for weight in weights]
    cv2.polylines(mask, curves, False, 255, max(1, round(pen)), cv2.LINE_AA, 4)
    mask = crop(mask)
    return Sign(mask, 0, round((foot + rng.normal(0, 0.05)) * height) - mask.shape[0])


def write_letter(height: float, hand: Hand, rng: Rng) -> Sign:
    """Write a letter that looks like no digit; its left is 0."""
    mask, *_ = draw(LETTERS[rng.integers(len(LETTERS))], 0.75, hand, rng)
    mask = resize(mask, height * np.exp(rng.normal(0, 0.1)))
    return Sign(mask, 0, -mask.shape[0])
