"""Prints a form around a written number: cells, lines, tables and text."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worker.training.synthetic.glyphs import ANGULAR_DIGITS, glyph_basis
from worker.training.synthetic.handwriting import Points, Shape
from worker.training.synthetic.scenes import Rng, put, resize

TEXT_HEIGHT = 40  # px, of a line of print before it is resized
FONTS = (None, cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_PLAIN)
WORDS = (
    *("No.", "No:", "Nr.", "N°", "#", "$", "US$", "Rs.", "Rs", "€", "£", "S/.", "Bs.", "kr", ":"),
    *("Total", "Amount", "Sum", "Code", "Date", "Roll No.", "Student ID", "Name", "Age", "Page"),
    *("VALID VOTES", "Votos", "Suma", "Jumlah", "Monto", "Cheque", "Account", "Nummer", "Zahl"),
    *("pay to the order of", "for office use only", "in figures", "Signature", "Class", "Marks"),
    *("temperature", "Datum", "Summe", "m", "kg", "cm", "%", "-", "(a)", "1.", "2.", "3)", "A"),
)


@dataclass(frozen=True)
class Sheet:
    """Two empty layers, ink and form; places are in px from the left end of the baseline."""

    ink: Shape
    form: Shape
    origin: NDArray[np.int64]  # (2,): where the layers' left top corner is
    height: float  # of a digit
    pen: int  # px, the width of the writer's strokes
    bounds: NDArray[np.float64]  # left, top, right and bottom of the number
    edges: NDArray[np.float64]  # the same of the picture

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
        put(layer, mask, round(top - self.origin[1]), round(left - self.origin[0]))


Form = Callable[[Sheet, list[tuple[float, float]], Rng], None]  # takes the cells, if there are any


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
    kind = rng.random()
    if kind < 0.7:
        return " ".join(WORDS[rng.integers(len(WORDS))] for _ in range(rng.integers(1, 4)))
    return str(rng.integers(0, 10 ** rng.integers(1, 9)))


def rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])


def dashes(start: Points, end: Points, pitch: float, share: float) -> list[Points]:
    """The dashes of a line; of each `pitch` px the share is inked."""
    step = (end - start) / max(1, np.hypot(*(end - start)) / pitch)
    count = min(120, int(np.hypot(*(end - start)) / pitch) + 1)
    return [np.array([start + n * step, start + (n + share) * step]) for n in range(count)]


def draw_outline(
    sheet: Sheet, corners: Points, kind: str, strength: float, thick: int, rng: Rng
) -> None:
    """Print a polygon with solid, dashed or dotted sides."""
    if kind == "solid":
        sheet.rule([corners], strength, thick)
        return
    pitch = (0.12 if kind == "dotted" else 0.3) * sheet.height + 2 * thick
    share = 0.05 if kind == "dotted" else 0.55
    sides = [dashes(*pair, pitch, share) for pair in zip(corners, corners[1:], strict=False)]
    sheet.rule([dash for side in sides for dash in side], strength, thick)


def print_cells(sheet: Sheet, cells: list[tuple[float, float]], rng: Rng) -> None:
    """Print a cell for each digit: frames, double frames, combs, with guides or shaded."""
    tall = sheet.height
    top, bottom = -(1 + rng.uniform(0, 0.6)) * tall, rng.uniform(-0.03, 0.5) * tall
    strength, thick = rng.uniform(0.25, 1), round(rng.uniform(0.01, 0.08) * tall)
    kind = ("solid", "solid", "solid", "solid", "dashed", "dotted")[rng.integers(6)]
    look = rng.random()
    if look < 0.12:  # shaded
        for left, right in cells:
            shade = np.full((round(bottom - top), round(right - left)), rng.integers(20, 90))
            sheet.put(sheet.form, shade.astype(np.uint8), left, top)
    if rng.random() < 0.35:
        _print_guides(sheet, cells, top, bottom, rng)
    if look < 0.22:  # a comb: a baseline with ticks
        tip = bottom - rng.uniform(0.15, 0.7) * tall
        ticks = [np.array([(x, bottom), (x, tip)]) for cell in cells for x in cell]
        base = np.array([(cells[0][0], bottom), (cells[-1][1], bottom)])
        sheet.rule([*ticks, base], strength, thick)
    else:
        for left, right in cells:
            draw_outline(sheet, rectangle(left, top, right, bottom), kind, strength, thick, rng)
    gap = cells[1][0] - cells[0][1] if len(cells) > 1 else 0.6 * tall
    outer = rng.uniform(0.08, 0.45) * gap
    if rng.random() < 0.25 and outer > 2 + thick:  # double frames
        for left, right in cells:
            frame = rectangle(left - outer, top - outer, right + outer, bottom + outer)
            draw_outline(sheet, frame, "solid", strength, thick, rng)
    if rng.random() < 0.2:
        wide = rng.uniform(0.1, 0.6) * tall
        frame = rectangle(cells[0][0] - wide, top - wide, cells[-1][1] + wide, bottom + wide)
        draw_outline(sheet, frame, "solid", rng.uniform(strength, 1), thick + 1, rng)


def _print_guides(
    sheet: Sheet, cells: list[tuple[float, float]], top: float, bottom: float, rng: Rng
) -> None:
    """Print into each cell what tells people how to write: an 8 of bars, dots, a cross, a digit."""
    kind, strength = int(rng.integers(5)), rng.uniform(0.12, 0.6)
    size = np.array([rng.uniform(0.35, 0.6), rng.uniform(0.7, 1.0)]) * sheet.height
    points, weights = glyph_basis(ANGULAR_DIGITS[8][0])
    for left, right in cells:
        middle = np.array([(left + right) / 2, -0.5 * sheet.height])
        if kind <= 1:
            sheet.rule([w @ (points - 0.5) * size + middle for w in weights], strength, 1)
        elif kind == 2:
            places = np.array([(x, y) for x in (0.2, 0.8) for y in (0.0, 0.5, 1.0)]) - 0.5
            sheet.rule([np.array([p, p]) for p in places * size + middle], strength, 2)
        elif kind == 3:
            halves = np.array([(right - left) / 2, 0]), np.array([0, (bottom - top) / 2])
            sheet.rule([np.array([middle - h, middle + h]) for h in halves], 0.6 * strength, 1)
        else:
            mask = (print_sign("8", 0) * np.float32(0.5 * strength)).astype(np.uint8)
            mask = resize(mask, 1.2 * size[1])
            sheet.put(sheet.form, mask, middle[0] - mask.shape[1] / 2, middle[1] - size[1] * 0.6)


def print_rules(sheet: Sheet, cells: list[tuple[float, float]], rng: Rng) -> None:
    """Print a line or dots to write on, ruled or squared paper, or a line through the digits."""
    left, top, right, bottom = sheet.edges
    tall, strength = sheet.height, rng.uniform(0.15, 1)
    thick = round(rng.uniform(0.01, 0.06) * tall)
    kind = rng.random()
    if kind < 0.5:
        y = rng.uniform(-0.05, 0.3) * tall if kind < 0.42 else rng.uniform(-0.7, -0.2) * tall
        if kind < 0.2:
            left, right = sheet.bounds[[0, 2]] + rng.normal(0, 0.8 * tall, 2)
        style = ("solid", "solid", "dashed", "dotted")[rng.integers(4)]
        line = np.array([(left, y), (right, y)])
        draw_outline(sheet, line, style, strength, thick, rng)
        return
    squared = kind > 0.75
    pitch = max(4.0, rng.uniform(*((0.25, 1.2) if squared else (1.2, 2.5))) * tall)
    start = rng.uniform(0, 0.3) * tall
    ys = np.arange(start - np.ceil((start - top) / pitch) * pitch, bottom + pitch, pitch)
    lines = [np.array([(left - pitch, y), (right + pitch, y)]) for y in ys]
    if squared:
        lines += [
            np.array([(x, top - pitch), (x, bottom + pitch)])
            for x in np.arange(left - rng.uniform(0, pitch), right + pitch, pitch)
        ]
    sheet.rule(lines, 0.7 * strength, min(thick, 2))


def print_table(sheet: Sheet, cells: list[tuple[float, float]], rng: Rng) -> None:
    """Print the lines of a table around the number, out to the picture's edges."""
    tall, strength = sheet.height, rng.uniform(0.3, 1)
    thick = round(rng.uniform(0.01, 0.09) * tall)
    x1, y1, x2, y2 = sheet.bounds + np.array([-1, -1, 1, 1]) * rng.uniform(-0.05, 0.6, 4) * tall
    left, top, right, bottom = sheet.edges + np.array([-1, -1, 1, 1]) * 20
    xs, ys = [x1, x2], [y1, y2]
    if rng.random() < 0.5:
        wide, high = (x2 - x1) * rng.uniform(0.5, 2), (y2 - y1) * rng.uniform(0.8, 1.2)
        xs, ys = [x1 - wide, *xs, x2 + wide], [y1 - high, *ys, y2 + high]
    lines = [np.array([(x, top), (x, bottom)]) for x in xs if rng.random() < 0.8]
    lines += [np.array([(left, y), (right, y)]) for y in ys if rng.random() < 0.8]
    sheet.rule(lines, strength, thick)


def print_frame(sheet: Sheet, cells: list[tuple[float, float]], rng: Rng) -> None:
    """Print a field around the number, as on a cheque."""
    x1, y1, x2, y2 = sheet.bounds + np.array([-1, -1, 1, 1]) * rng.uniform(0, 1, 4) * sheet.height
    kind = ("solid", "solid", "solid", "dashed", "dotted")[rng.integers(5)]
    thick = round(rng.uniform(0.01, 0.1) * sheet.height)
    draw_outline(sheet, rectangle(x1, y1, x2, y2), kind, rng.uniform(0.3, 1), thick, rng)


def print_nothing(sheet: Sheet, cells: list[tuple[float, float]], rng: Rng) -> None:
    """Leave the paper empty."""


def print_labels(sheet: Sheet, rng: Rng) -> None:
    """Print text beside, above or below the number."""
    tall, (x1, y1, x2, y2) = sheet.height, sheet.bounds
    for _ in range(rng.integers(1, 4)):
        mask = print_text(choose_text(rng), max(5, tall * rng.uniform(0.25, 0.9)), rng)
        mask = (mask * np.float32(rng.uniform(0.5, 1))).astype(np.uint8)
        side, gap = rng.integers(4), rng.uniform(0.15, 0.8) * tall
        if side < 2:  # left or right
            left = x1 - gap - mask.shape[1] if side == 0 else x2 + gap
            top = rng.uniform(y1, y2) - mask.shape[0] / 2
        else:
            left = rng.uniform(x1 - mask.shape[1] / 2, x2)
            top = y1 - gap - mask.shape[0] if side == 2 else y2 + gap
        sheet.put(sheet.form, mask, left, top)


def print_small_lines(sheet: Sheet, rng: Rng) -> None:
    """Print some lines of small text above or below the number."""
    tall = max(5, sheet.height * rng.uniform(0.15, 0.4))
    down = rng.random() < 0.5
    y = sheet.bounds[3] + 0.3 * sheet.height if down else sheet.bounds[1] - 0.3 * sheet.height
    for _ in range(rng.integers(1, 5)):
        text = " ".join(choose_text(rng) for _ in range(4))
        mask = print_text(text, tall, rng)
        sheet.put(sheet.form, mask, sheet.edges[0] + 2, y if down else y - tall)
        y += 1.3 * tall if down else -1.3 * tall


FORMS: dict[str, tuple[Form, float]] = {  # with the share of each
    "plain": (print_nothing, 0.27),
    "cells": (print_cells, 0.28),
    "rules": (print_rules, 0.16),
    "table": (print_table, 0.17),
    "frame": (print_frame, 0.12),
}
