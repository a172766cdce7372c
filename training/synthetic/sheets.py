"""A sheet to write and print on, and what is printed on it: lines and text."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.chance import Rng, pick
from training.synthetic.handwriting import Points, Shape
from training.synthetic.scenes import (
    put,
    resize,
)

TEXT_HEIGHT = 40  # px, of a line of print before it is resized
FONTS = (None, cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_PLAIN)
Bounds = NDArray[np.float64]  # (4,): left, top, right and bottom
Cells = list[tuple[float, float]]  # left and right of each printed cell; none without a form
OUTWARD = np.array([-1, -1, 1, 1])  # times px, it makes a rectangle larger
LABELS_IN_PRINT = (
    *("No.", "No:", "Nr.", "N°", "#", "$", "US$", "Rs.", "Rs", "€", "£", "S/.", "Bs.", "kr", ":"),
    *("Total", "Amount", "Sum", "Code", "Date", "Roll No.", "Student ID", "Name", "Age", "Page"),
    *("VALID VOTES", "Votos", "Suma", "Jumlah", "Monto", "Cheque", "Account", "Nummer", "Zahl"),
    *("pay to the order of", "for office use only", "in figures", "Signature", "Class", "Marks"),
    *("temperature", "Datum", "Summe", "m", "kg", "cm", "%", "-", "(a)", "1.", "2.", "3)", "A"),
)


def corners_of(bounds: Bounds) -> Points:
    """The four corners of a rectangle."""
    left, top, right, bottom = bounds
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def move(points: Points, matrix: NDArray[np.float64]) -> Points:
    """Points, (N, 2), through a perspective, (3, 3)."""
    across = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(across[:, :2] / across[:, 2:])


@dataclass(frozen=True)
class Sheet:
    """Two empty layers, ink and form; places are in px from the left end of the baseline."""

    ink: Shape
    form: Shape
    origin: NDArray[np.int64]  # (2,): where the layers' left top corner is
    height: float  # the height of a digit
    pen: int  # px, the width of the writer's strokes
    bounds: Bounds  # the bounds of the number
    cells: Cells
    edges: Bounds  # the edges of the picture
    view: NDArray[np.float64]  # (3, 3), of these px to the picture's
    size: list[int]  # width and height of the picture

    @property
    def room(self) -> Bounds:
        """How many px are free between the number and each edge of the picture."""
        return (self.edges - self.bounds) * OUTWARD

    def random_place(self, rng: Rng) -> Points:
        """A place anywhere in the picture, (2,)."""
        return rng.uniform(self.edges[:2], self.edges[2:])

    def rule(self, strokes: list[Points], strength: float, thickness: int) -> None:
        """Print straight or curved lines, whose ink has a strength of 0..1."""
        self._draw(self.form, strokes, round(255 * strength), thickness)

    def pen_in(self, strokes: list[Points]) -> None:
        """Draw strokes with the writer's pen."""
        self._draw(self.ink, strokes, 255, self.pen)

    def _draw(self, layer: Shape, strokes: list[Points], value: int, thickness: int) -> None:
        fine = [np.round((stroke - self.origin) * 16).astype(np.int32) for stroke in strokes]
        cv2.polylines(layer, fine, False, value, max(1, thickness), cv2.LINE_AA, 4)

    def put(self, layer: Shape, mask: Shape, left: float, top: float) -> None:
        """Draw a shape on one of the layers."""
        put(layer, mask, round(top - self.origin[1]), round(left - self.origin[0]))

    def part(self, bounds: Bounds) -> tuple[slice, slice]:
        """The rows and columns of a layer that a rectangle covers."""
        x1, y1, x2, y2 = np.maximum(0, np.round(bounds - np.tile(self.origin, 2))).astype(int)
        return slice(y1, y2), slice(x1, x2)

    def shown(self, bounds: Bounds) -> float:
        """The share of a rectangle that is inside of the picture."""
        seen = move(corners_of(bounds), self.view)
        low, high = seen.min(axis=0), seen.max(axis=0)
        inside = np.clip(high, 0, self.size) - np.clip(low, 0, self.size)
        return float(np.prod(inside) / np.prod(high - low))


@cache
def print_sign(sign: str, font: int) -> Shape:
    """Print a letter of one of `FONTS`: (40, width)."""
    face = FONTS[font]
    if face is None:
        typeface = ImageFont.load_default(0.75 * TEXT_HEIGHT)
        image = Image.new("L", (max(4, round(typeface.getlength(sign))), TEXT_HEIGHT))
        ImageDraw.Draw(image).text((0, 0), sign, 255, typeface)
        return np.asarray(image)
    plain = sign if sign.isascii() else "E"
    (width, _), _ = cv2.getTextSize(plain, face, 1, 2)
    mask = np.zeros((TEXT_HEIGHT, max(4, width)), np.uint8)
    cv2.putText(mask, plain, (0, 30), face, 1, 255, 2, cv2.LINE_AA)
    return mask


def print_text(text: str, height: float, rng: Rng) -> Shape:
    """Print a line of text."""
    font = int(rng.integers(len(FONTS)))
    return resize(np.hstack([print_sign(sign, font) for sign in text]), height)


def choose_text(rng: Rng) -> str:
    """Draw a label, a line of small words, or a printed number."""
    if rng.random() < 0.7:
        return " ".join(pick(LABELS_IN_PRINT, rng) for _ in range(rng.integers(1, 4)))
    return str(rng.integers(0, 10 ** rng.integers(1, 9)))


def rectangle(bounds: Bounds) -> Points:
    """The four corners, and the first again."""
    return corners_of(bounds)[[0, 1, 2, 3, 0]]


def dashes(start: Points, end: Points, pitch: float, share: float) -> list[Points]:
    """The dashes of a line; of each `pitch` px the share is inked."""
    step = (end - start) / max(1, np.hypot(*(end - start)) / pitch)
    count = min(120, int(np.hypot(*(end - start)) / pitch) + 1)
    return [np.array([start + n * step, start + (n + share) * step]) for n in range(count)]


def draw_outline(sheet: Sheet, corners: Points, kind: str, strength: float, thick: int) -> None:
    """Print a polygon with solid, dashed or dotted sides."""
    if kind == "solid":
        sheet.rule([corners], strength, thick)
        return
    pitch = (0.12 if kind == "dotted" else 0.3) * sheet.height + 2 * thick
    share = 0.05 if kind == "dotted" else 0.55
    sides = [dashes(*pair, pitch, share) for pair in zip(corners, corners[1:], strict=False)]
    sheet.rule([dash for side in sides for dash in side], strength, thick)
