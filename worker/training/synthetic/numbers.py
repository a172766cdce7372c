"""Renders whole handwritten numbers as they are found on forms, cheques, registers and photos."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.pictures import Picture
from worker.training.synthetic.arranging import (
    Line,
    choose_digits,
    hull,
    write_in_boxes,
    write_line,
)
from worker.training.synthetic.handwriting import Shape
from worker.training.synthetic.papers import photograph_line
from worker.training.synthetic.scenes import draw_line, put
from worker.training.synthetic.writing import Images, Labels, Rng, choose_hand

MAX_WIDTH = 480  # px, that a number is at most about wide
MAX_AREA = 256 * 256  # px, of a picture with much around the number


@dataclass(frozen=True)
class NumberScene:
    """A picture, and what is to be read from it."""

    picture: Picture
    digits: list[int]  # in reading order; none if the picture has no number
    boxes: NDArray[np.float32]  # (N, 4): left, top, right and bottom of each digit's ink, in px
    doubt: str  # why a person should look at it; "" if it is clear


def render_number(shapes: Images, labels: Labels, rng: Rng) -> NumberScene:
    """Render a number of 1 to 20 digits, written with MNIST's digits and drawn ones."""
    hand = choose_hand(shapes, labels, rng)
    digits = choose_digits(rng)
    boxed = rng.random() < 0.3
    room = 1.6 if boxed else 0.9  # heights a digit takes, about
    tallest = min(60.0, MAX_WIDTH / room / len(digits))
    height = float(np.exp(rng.uniform(np.log(min(14, tallest / 1.5)), np.log(tallest))))
    line = (write_in_boxes if boxed else write_line)(digits, height, hand, rng)
    corners = [hull(sign) for sign in line.signs if sign.digit is not None]
    every = np.concatenate(corners)
    turn = _choose_view(every.min(axis=0), every.max(axis=0), rng)
    bounds = np.concatenate([_move(points, turn) for points in corners])
    size, shift = _choose_canvas(bounds.min(axis=0), bounds.max(axis=0), height, rng)
    view = shift @ turn
    ink, form = _draw(line, view, size, height, hand.pen, rng)
    boxes = np.array(
        [[*moved.min(axis=0), *moved.max(axis=0)] for moved in (_move(c, view) for c in corners)],
        np.float32,
    )
    boxes = np.clip(boxes, 0, np.array([*size, *size], np.float32))
    return NumberScene(photograph_line(ink, form, rng), digits, boxes, "")


def _move(points: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(moved[:, :2] / moved[:, 2:])


def _choose_view(
    low: NDArray[np.float64], high: NDArray[np.float64], rng: Rng
) -> NDArray[np.float64]:
    """A turn and a slight perspective about the middle of the number; often neither."""
    if rng.random() < 0.35:
        return np.eye(3)
    angle = np.radians(rng.normal(0, 2) if rng.random() < 0.8 else rng.uniform(-15, 15))
    middle = (low + high) / 2
    there, back = np.eye(3), np.eye(3)
    there[:2, 2], back[:2, 2] = -middle, middle
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    if rng.random() < 0.4:
        turn[2, :2] = rng.uniform(-0.15, 0.15, 2) / max(high - low)
    return back @ turn @ there


def _choose_canvas(
    low: NDArray[np.float64], high: NDArray[np.float64], height: float, rng: Rng
) -> tuple[tuple[int, int], NDArray[np.float64]]:
    """The picture's width and height, and the shift of the number into it."""
    kind = rng.random()
    most = 0.25 if kind < 0.45 else 1.5 if kind < 0.8 else 5.0
    margins = rng.uniform(-0.05, most, 4) * height  # left, top, right, bottom
    wide, tall = high - low
    free = max(0.0, MAX_AREA - wide * tall)
    grown = (wide + margins[0] + margins[2]) * (tall + margins[1] + margins[3]) - wide * tall
    if grown > free:
        margins *= free / grown
    shift = np.eye(3)
    shift[:2, 2] = margins[:2] - low
    size = (
        max(8, round(wide + margins[0] + margins[2])),
        max(8, round(tall + margins[1] + margins[3])),
    )
    return size, shift


def _draw(
    line: Line,
    view: NDArray[np.float64],
    size: tuple[int, int],
    height: float,
    pen: float,
    rng: Rng,
) -> tuple[Shape, Shape]:
    """Draw the writing and what is printed, and turn both into the view."""
    width, tall = size
    corners = np.array([[0, 0], [width, 0], [width, tall], [0, tall]], np.float64)
    seen = _move(corners, np.asarray(np.linalg.inv(view), np.float64))
    low = np.floor(seen.min(axis=0)).astype(int)
    sheet_width, sheet_height = np.ceil(seen.max(axis=0)).astype(int) - low
    ink = np.zeros((sheet_height, sheet_width), np.uint8)
    form = np.zeros_like(ink)
    for sign in line.signs:
        put(ink, sign.mask, sign.top - low[1], sign.left - low[0])
    if line.ligatures:
        strokes = [np.round((stroke - low) * 16).astype(np.int32) for stroke in line.ligatures]
        cv2.polylines(ink, strokes, False, 255, max(1, round(pen * height)), cv2.LINE_AA, 4)
    thick = max(1, round(rng.uniform(0.02, 0.08) * height))
    top, bottom = -1.0 * height - rng.uniform(0.05, 0.6) * height, rng.uniform(0.05, 0.5) * height
    for left, right in line.boxes:
        lines = [(left, top, right, top), (left, bottom, right, bottom)]
        lines += [(left, top, left, bottom), (right, top, right, bottom)]
        for x1, y1, x2, y2 in lines:
            draw_line(form, (x1 - low[0], y1 - low[1]), (x2 - low[0], y2 - low[1]), 1, thick)
    moved = view.copy()
    back = np.eye(3)
    back[:2, 2] = low
    moved = moved @ back
    if np.allclose(moved[:2, :2], np.eye(2)) and not moved[2, :2].any():
        moved = np.round(moved)
    both = cv2.warpPerspective(np.dstack([ink, form]), moved, size)
    return both[..., 0], both[..., 1]
