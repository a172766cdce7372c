"""Prints a form around a written number: cells, lines, a table, a frame, and text."""

from collections.abc import Callable

import cv2
import numpy as np

from training.chance import Rng, pick
from training.synthetic.glyphs import ANGULAR_DIGITS, glyph_basis
from training.synthetic.scenes import (
    put,
    resize,
)
from training.synthetic.sheets import (
    OUTWARD,
    Bounds,
    Sheet,
    choose_text,
    draw_outline,
    print_sign,
    print_text,
    rectangle,
)

Form = Callable[[Sheet, Rng], None]


def print_cells(sheet: Sheet, rng: Rng) -> None:
    """Print a cell for each digit: frames, double frames or a comb, with guides or shaded."""
    tall = sheet.height
    top, bottom = -(1 + rng.uniform(-0.1, 0.6)) * tall, rng.uniform(-0.08, 0.5) * tall
    cells = [np.array([left, top, right, bottom]) for left, right in sheet.cells]
    strength, thick = rng.uniform(0.25, 1), round(rng.uniform(0.01, 0.08) * tall)
    kind = pick(("solid", "solid", "solid", "solid", "dashed", "dotted"), rng)
    if rng.random() < 0.15:
        _shade_cells(sheet, cells, rng)
    if rng.random() < 0.65:
        _print_guides(sheet, cells, rng)
    if rng.random() < 0.1:  # a comb: a baseline with ticks
        tip = bottom - rng.uniform(0.15, 0.7) * tall
        ticks = [np.array([(x, bottom), (x, tip)]) for cell in sheet.cells for x in cell]
        base = np.array([(cells[0][0], bottom), (cells[-1][2], bottom)])
        sheet.rule([*ticks, base], strength, thick)
    else:
        pitch = bottom - top + rng.uniform(0, 1) * tall
        for down in (-pitch, 0.0, pitch) if rng.random() < 0.25 else (0.0,):  # rows of the form
            for cell in cells:
                draw_outline(sheet, rectangle(cell + (0, down, 0, down)), kind, strength, thick)
    _frame_cells(sheet, cells, strength, thick, rng)
    if rng.random() < 0.08:
        _print_bubbles(sheet, bottom, rng)
    if rng.random() < 0.08:  # a printed point or comma between two cells
        sign = print_text(pick(".,-/:", rng), tall, rng)
        x = pick(cells, rng)[2] - sign.shape[1] / 2
        sheet.put(sheet.form, sign, x, bottom - 0.8 * tall)


def _shade_cells(sheet: Sheet, cells: list[Bounds], rng: Rng) -> None:
    """Shade the cells, or all but the cells."""
    shade, is_inside = int(rng.integers(20, 90)), rng.random() < 0.5
    sheet.form[:] = 0 if is_inside else shade
    for cell in cells:
        sheet.form[sheet.part(cell)] = shade if is_inside else 0


def _frame_cells(sheet: Sheet, cells: list[Bounds], strength: float, thick: int, rng: Rng) -> None:
    """Print a second frame around each cell, or a frame around all; neither around most."""
    gap = cells[1][0] - cells[0][2] if len(cells) > 1 else 0.6 * sheet.height
    outer = rng.uniform(0.08, 0.45) * gap
    if rng.random() < 0.25 and outer > 2 + thick:
        for cell in cells:
            draw_outline(sheet, rectangle(cell + OUTWARD * outer), "solid", strength, thick)
    if rng.random() < 0.2:
        whole = np.array([*cells[0][:2], *cells[-1][2:]])
        frame = rectangle(whole + OUTWARD * rng.uniform(0.1, 0.6) * sheet.height)
        draw_outline(sheet, frame, "solid", rng.uniform(strength, 1), thick + 1)


def _print_guides(sheet: Sheet, cells: list[Bounds], rng: Rng) -> None:
    """Print into each cell what tells people how to write: an 8 of bars, dots, a cross, a digit."""
    kind, strength = int(rng.integers(7)), rng.uniform(*pick(((0.12, 0.7), (0.3, 0.7)), rng))
    thick = max(1, round(rng.uniform(0.01, 0.07) * sheet.height))
    size = np.array([rng.uniform(0.35, 0.6), rng.uniform(0.7, 1.0)]) * sheet.height
    sign = pick("880DMY", rng)
    points, weights = glyph_basis(ANGULAR_DIGITS[8][0])
    for left, top, right, bottom in cells:
        middle = np.array([(left + right) / 2, -0.5 * sheet.height])
        if kind <= 3:
            sheet.rule([w @ (points - 0.5) * size + middle for w in weights], strength, thick)
        elif kind == 4:
            places = np.array([(x, y) for x in (0.2, 0.8) for y in (0.0, 0.5, 1.0)]) - 0.5
            sheet.rule([np.array([p, p]) for p in places * size + middle], strength, 2)
        elif kind == 5:
            halves = np.array([(right - left) / 2, 0]), np.array([0, (bottom - top) / 2])
            sheet.rule([np.array([middle - h, middle + h]) for h in halves], 0.6 * strength, 1)
        else:
            mask = (print_sign(sign, 0) * np.float32(0.5 * strength)).astype(np.uint8)
            mask = resize(mask, 1.2 * size[1])
            sheet.put(sheet.form, mask, middle[0] - mask.shape[1] / 2, middle[1] - size[1] * 0.6)


def _print_bubbles(sheet: Sheet, bottom: float, rng: Rng) -> None:
    """Print columns of small rings with digits below the cells, to be filled; some are."""
    cells = sheet.cells
    side = max(6, round(min(cells[0][1] - cells[0][0], sheet.height) * rng.uniform(0.4, 0.8)))
    strength, first = int(rng.integers(60, 220)), int(rng.integers(2))
    for row in range(rng.integers(1, 6)):
        ring = np.zeros((side, side), np.uint8)
        cv2.circle(ring, (side // 2, side // 2), side // 2 - 1, strength, 1, cv2.LINE_AA)
        sign = resize(print_sign(str(first + row), 0), 0.7 * side)
        put(ring, (sign * np.float32(strength / 255)).astype(np.uint8), side // 5, side // 3)
        for left, right in cells:
            top = bottom + (0.3 + 1.2 * row) * side
            place = (left + right - side) / 2
            sheet.put(sheet.form, ring, place, top)
            if rng.random() < 0.1:
                middle = np.array([(place + side / 2, top + side / 2)] * 2)
                sheet.rule([middle], 1, side)


def print_rules(sheet: Sheet, rng: Rng) -> None:
    """Print a line or dots to write on, ruled or squared paper, or a line through the digits."""
    left, top, right, bottom = sheet.edges
    tall, strength = sheet.height, rng.uniform(0.15, 1)
    thick = round(rng.uniform(0.01, 0.06) * tall)
    kind = rng.random()
    if kind < 0.5:
        y = rng.uniform(-0.05, 0.3) * tall if kind < 0.42 else rng.uniform(-0.7, -0.2) * tall
        if kind < 0.2:
            left, right = sheet.bounds[[0, 2]] + rng.normal(0, 0.8 * tall, 2)
        style = pick(("solid", "solid", "dashed", "dotted"), rng)
        draw_outline(sheet, np.array([(left, y), (right, y)]), style, strength, thick)
        return
    squared = kind > 0.75
    pitch = max(4.0, rng.uniform(*((0.25, 1.2) if squared else (1.2, 2.5))) * tall)
    start = rng.uniform(0, 0.3) * tall
    ys = np.arange(start - np.ceil((start - top) / pitch) * pitch, bottom + pitch, pitch)
    xs = np.zeros(0)
    if squared:
        xs = np.arange(left - rng.uniform(0, pitch), right + pitch, pitch)
    elif rng.random() < 0.3:  # a margin
        xs = np.array([rng.uniform(left, right)])
    lines = [np.array([(left - pitch, y), (right + pitch, y)]) for y in ys]
    lines += [np.array([(x, top - pitch), (x, bottom + pitch)]) for x in xs]
    sheet.rule(lines, 0.7 * strength, min(thick, 2))


def print_table(sheet: Sheet, rng: Rng) -> None:
    """Print the lines of a table around the number, out to the picture's edges."""
    tall, strength = sheet.height, rng.uniform(0.3, 1)
    thick = round(rng.uniform(0.01, 0.09) * tall)
    x1, y1, x2, y2 = sheet.bounds + OUTWARD * rng.uniform(-0.05, 0.6, 4) * tall
    left, top, right, bottom = sheet.edges + OUTWARD * 20
    xs, ys = [x1, x2], [y1, y2]
    if rng.random() < 0.5:
        wide, high = (x2 - x1) * rng.uniform(0.5, 2), (y2 - y1) * rng.uniform(0.8, 1.2)
        xs, ys = [x1 - wide, *xs, x2 + wide], [y1 - high, *ys, y2 + high]
    lines = [np.array([(x, top), (x, bottom)]) for x in xs if rng.random() < 0.8]
    lines += [np.array([(left, y), (right, y)]) for y in ys if rng.random() < 0.8]
    sheet.rule(lines, strength, thick)


def print_frame(sheet: Sheet, rng: Rng) -> None:
    """Print a field around the number, as on a cheque."""
    frame = rectangle(sheet.bounds + OUTWARD * rng.uniform(0, 1, 4) * sheet.height)
    kind = pick(("solid", "solid", "solid", "dashed", "dotted"), rng)
    thick = round(rng.uniform(0.01, 0.1 if rng.random() < 0.8 else 0.4) * sheet.height)
    draw_outline(sheet, frame, kind, rng.uniform(0.3, 1), thick)


def print_labels(sheet: Sheet, rng: Rng) -> None:
    """Print text beside, above or below the number."""
    tall, (x1, y1, x2, y2) = sheet.height, sheet.bounds
    for _ in range(rng.integers(1, 4)):
        mask = print_text(choose_text(rng), max(5, tall * rng.uniform(0.25, 0.9)), rng)
        mask = (mask * np.float32(rng.uniform(0.5, 1))).astype(np.uint8)
        if rng.random() < 0.1:  # light on dark
            mask = 255 - mask
        side, gap = rng.integers(4), rng.uniform(0.15, 0.8) * tall
        if side < 2:  # left or right
            left = x1 - gap - mask.shape[1] if side == 0 else x2 + gap
            top = rng.uniform(y1, y2) - mask.shape[0] / 2
        else:
            left = rng.uniform(x1 - mask.shape[1] / 2, x2)
            top = y1 - gap - mask.shape[0] if side == 2 else y2 + gap
        sheet.put(sheet.form, mask, left, top)


def print_shapes(sheet: Sheet, rng: Rng) -> None:
    """Print bars, discs, rings and check boxes beside the number: what scanners look for."""
    x1, y1, x2, y2 = sheet.bounds
    side = int(max(3, sheet.height * rng.uniform(0.15, 0.8)))
    kind, strength = rng.integers(4), int(rng.integers(90, 256))
    if kind < 2:
        mask = np.full((side, int(side * (1 if kind else rng.uniform(0.2, 4)))), strength, np.uint8)
    else:
        mask = np.zeros((side, side), np.uint8)
        middle, thick = (side // 2, side // 2), -1 if kind == 2 else max(1, side // 10)
        cv2.circle(mask, middle, max(1, side // 2 - 1), strength, thick, cv2.LINE_AA)
    if kind == 1 and side > 6 and rng.random() < 0.6:
        mask[1:-1, 1:-1] = 0
    step = side * rng.uniform(1.3, 4)
    x, y = sheet.random_place(rng)
    for number in range(rng.integers(1, 6)):
        place = x + number * step * (rng.random() < 0.7)
        if place > x2 or place + mask.shape[1] < x1 or y > y2 or y + side < y1:
            sheet.put(sheet.form, mask, place, y)


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
    "plain": (lambda sheet, rng: None, 0.27),
    "cells": (print_cells, 0.28),
    "rules": (print_rules, 0.16),
    "table": (print_table, 0.17),
    "frame": (print_frame, 0.12),
}
