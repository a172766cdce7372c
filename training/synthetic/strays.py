"""Writes what is near a number and is no part of it, or makes it doubtful."""

from dataclasses import replace

import cv2
import numpy as np

from digitq.worker.models.number_networks import OTHER
from training.chance import Rng, pick
from training.synthetic.arranging import (
    Line,
    append,
    bounds_of,
    choose_digits,
    thicken,
    write_line,
)
from training.synthetic.handwriting import Points, smooth
from training.synthetic.scenes import (
    crop,
)
from training.synthetic.sheets import OUTWARD, Sheet, corners_of, print_text
from training.synthetic.writing import Hand, Sign, write_digit, write_letter

MAX_VISIBLE = 0.45  # the share of a neighbour's width or height inside of the picture
MAX_SHOWN_SHARE = 0.55  # the share of its area inside of the picture, if that is turned
CLEAR_LETTERS = "ACEFHKLMNPRTUVWXYadefhkmnprtuwxy"  # they look like no digit in print


def underline(sheet: Sheet, rng: Rng) -> None:
    """Draw one or two lines below the number, or a curve or a box around it."""
    tall, (x1, y1, x2, y2) = sheet.height, sheet.bounds
    kind = rng.random()
    if kind < 0.15:
        wide = rng.uniform(0.1, 0.5, 4) * tall
        corners = corners_of(sheet.bounds + OUTWARD * wide) + rng.normal(0, 0.08 * tall, (4, 2))
        strokes = [np.concatenate([corners, corners[:1]])]
    elif kind < 0.3:
        angles = np.linspace(0, 2 * np.pi, 14) + rng.uniform(0, 6)
        reach = np.array([(x2 - x1) * 0.6 + 0.4 * tall, (y2 - y1) * 0.6 + 0.3 * tall])
        circle = np.column_stack([np.cos(angles), np.sin(angles)]) * reach
        circle += ((x1 + x2) / 2, (y1 + y2) / 2) + rng.normal(0, 0.05 * tall, circle.shape)
        strokes = [smooth(circle)]
    else:
        y = y2 + rng.uniform(0.05, 0.4) * tall
        line, strokes = np.array([(x1, y), ((x1 + x2) / 2, y), (x2, y)]), []
        for down in np.arange(rng.integers(1, 3)) * 0.2 * tall:
            strokes.append(smooth(line + (rng.normal(0, 0.06 * tall, line.shape) + (0, down))))
    sheet.pen_in(strokes)


def spill(sheet: Sheet, rng: Rng) -> None:
    """Draw stray dots and short strokes anywhere, but for the number's place."""
    x1, y1, x2, y2 = sheet.bounds
    strokes: list[Points] = []
    for _ in range(rng.integers(1, 9)):
        place = sheet.random_place(rng)
        short = rng.normal(0, 0.12 * sheet.height * (rng.random() < 0.5), 2)
        if not (x1 < place[0] < x2 and y1 < place[1] < y2) or not short.any():
            strokes.append(np.array([place, place + short]))
    sheet.pen_in(strokes)


def add_objects(sheet: Sheet, rng: Rng) -> None:
    """Fill large polygons around the number, as of things on a table."""
    part = sheet.part(sheet.bounds + OUTWARD * rng.uniform(0.2, 1) * sheet.height)
    kept = sheet.form[part].copy()
    for _ in range(rng.integers(1, 6)):
        middle = sheet.random_place(rng) - sheet.origin
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        reach = rng.uniform(0.4, 1.5, (len(angles), 1)) * sheet.height * rng.uniform(0.3, 3, 2)
        corners = middle + reach * np.column_stack([np.cos(angles), np.sin(angles)])
        shade = int(rng.integers(40, 256))
        cv2.fillPoly(sheet.form, [corners.astype(np.int32)], shade, cv2.LINE_AA)
    sheet.form[part] = kept


def add_cut_neighbours(sheet: Sheet, hand: Hand, rng: Rng) -> None:
    """Write digits and letters that reach in at the picture's edges, less than half visible."""
    left, top, right, bottom = sheet.edges
    for side, room in enumerate(sheet.room):
        if room < 2 or rng.random() < 0.4:
            continue
        for _ in range(1 if side % 2 == 0 else rng.integers(1, 5)):
            sign = write_digit(int(rng.integers(10)), sheet.height, hand, rng)
            if rng.random() < 0.3:
                sign = choose_letter(sheet.height, hand, rng)
            tall, wide = sign.mask.shape
            seen = rng.uniform(0.05, MAX_VISIBLE) * (tall if side % 2 else wide)
            seen = max(1.0, min(seen, room - 1))
            x, y = rng.uniform(left - wide / 2, right - wide / 2), float(sign.top)
            if side % 2 == 0:
                x = left - wide + seen if side == 0 else right - seen
            else:
                y = top - tall + seen if side == 1 else bottom - seen
            if sheet.shown(np.array([x, y, x + wide, y + tall])) < MAX_SHOWN_SHARE:
                sheet.put(sheet.ink, sign.mask, x, y)


def scribble(sheet: Sheet, rng: Rng) -> None:
    """Draw a scribble or a signature where the number would be."""
    for _ in range(rng.integers(1, 4)):
        points = rng.uniform(sheet.bounds[:2], sheet.bounds[2:], (rng.integers(3, 12), 2))
        if rng.random() < 0.5:
            points = points[np.argsort(points[:, 0])]
        sheet.pen_in([smooth(points)])


def print_barcode(sheet: Sheet, rng: Rng) -> None:
    """Print bars where the number would be."""
    x, top, right, bottom = sheet.bounds
    while x < right:
        wide = rng.integers(1, 5)
        bar = np.full((round(bottom - top), wide), 255, np.uint8)
        sheet.put(sheet.form, bar, x, top)
        x += wide + rng.integers(1, 5)


def choose_letter(height: float, hand: Hand, rng: Rng) -> Sign:
    """Write a letter by hand or as in print; its left is 0."""
    if rng.random() < 0.5:
        return write_letter(height, hand, rng)
    mask = print_text(pick(CLEAR_LETTERS, rng), height * rng.uniform(1.1, 1.6), rng)
    mask = crop(thicken(mask, hand.pen * height, rng))
    drop = rng.uniform(0, 0.25) * mask.shape[0] if rng.random() < 0.2 else 0
    return Sign(mask, 0, round(drop) - mask.shape[0], OTHER)


def write_word(height: float, hand: Hand, rng: Rng) -> Line:
    """Write two to six letters."""
    signs: list[Sign] = []
    for _ in range(rng.integers(2, 7)):
        append(signs, choose_letter(height, hand, rng), height, rng.uniform(0.02, 0.25))
    return Line(signs, [], [])


def write_instead(sheet: Sheet, hand: Hand, rng: Rng) -> list[Line]:
    """A word, a scribble or a barcode instead of a number; often nothing."""
    kind = rng.random()
    if kind < 0.3:
        return [write_word(sheet.height, hand, rng)]
    if kind < 0.65:
        (scribble if kind < 0.55 else print_barcode)(sheet, rng)
    return []


def write_other_line(line: Line, height: float, hand: Hand, rng: Rng) -> Line:
    """Another number above or below the line, no larger than it."""
    smaller = height * rng.uniform(0.5, 0.85)
    count = rng.integers(1, 1 + len(line.digits))
    other = write_line(choose_digits(rng)[:count], smaller, hand, rng)
    x1, y1, x2, y2 = bounds_of(line.signs)
    left, top, right, bottom = bounds_of(other.signs)
    gap = rng.uniform(0.25, 0.9) * height
    down = y2 + gap - top if rng.random() < 0.5 else y1 - gap - bottom
    return other.moved(rng.uniform(x1, max(x1, x2 - (right - left))), down)


def write_other_number(line: Line, height: float, hand: Hand, rng: Rng) -> Line:
    """Another number far to the left or right of the line, no larger than it."""
    count = rng.integers(1, 1 + len(line.digits))
    other = write_line(choose_digits(rng)[:count], height * rng.uniform(0.55, 0.85), hand, rng)
    return _put_beside(line, other, rng.uniform(2, 4) * height, rng)


def write_word_near(line: Line, height: float, hand: Hand, rng: Rng) -> Line:
    """A word or a single letter before or after the number."""
    if rng.random() < 0.4:
        word = Line([choose_letter(height, hand, rng)], [], [])
        return _put_beside(line, word, rng.uniform(0.02, 0.5) * height, rng)
    word = write_word(height * rng.uniform(0.5, 1), hand, rng)
    return _put_beside(line, word, rng.uniform(0.1, 1.5) * height, rng)


def _put_beside(line: Line, other: Line, gap: float, rng: Rng) -> Line:
    """The other line before or after the first, `gap` px away."""
    x1, _, x2, _ = bounds_of(line.signs)
    left, _, right, _ = bounds_of(other.signs)
    return other.moved(x2 + gap - left if rng.random() < 0.5 else x1 - gap - right, 0)


# What is written as large as the number and makes it doubtful, by the reason for the doubt
WRITE_OTHERS = {
    "several lines": write_other_line,
    "several numbers": write_other_number,
    "letters": write_word_near,
}


def cross_out(line: Line, rng: Rng) -> Line:
    """Cross out one digit, two neighbours, or all: they are digits no more."""
    numbers = [number for number, sign in enumerate(line.signs) if sign.digit is not None]
    if rng.random() >= 0.3:
        first = int(rng.integers(len(numbers)))
        numbers = numbers[first : first + rng.integers(1, 3)]
    low, high = np.split(bounds_of([line.signs[number] for number in numbers]), 2)
    steep = high[0] - low[0] > 0.5 * (high[1] - low[1]) and rng.random() < 0.5
    strokes = [*line.strokes]
    for _ in range(pick((1, 1, 2, 3), rng)):
        turns = 2 if steep or rng.random() < 0.7 else int(rng.integers(3, 9))
        beyond = rng.uniform(0.1, 0.3)
        x = np.linspace(-beyond, 1 + beyond, turns)
        y = rng.uniform(0.3, 0.7) + rng.normal(0, 0.1 if turns == 2 else 0.35, turns)
        if steep:  # from corner to corner
            y += (x - 0.5) * pick((-1.0, 1.0), rng)
        strokes.append(low + np.column_stack([x, y]) * (high - low))
    signs = [*line.signs]
    for number in numbers:
        signs[number] = replace(signs[number], digit=OTHER, text="")
    return replace(line, signs=signs, strokes=strokes)


def mix_in_letters(line: Line, height: float, hand: Hand, rng: Rng) -> Line:
    """Write a letter in the place of a digit or two."""
    numbers = [number for number, sign in enumerate(line.signs) if sign.digit is not None]
    signs = [*line.signs]
    for number in rng.choice(numbers, min(len(numbers), int(rng.integers(1, 3))), False).tolist():
        old, new = signs[number], choose_letter(height, hand, rng)
        middle = old.left + (old.mask.shape[1] - new.mask.shape[1]) // 2
        signs[number] = replace(new, left=middle)
    return replace(line, signs=signs)
