"""Renders whole handwritten numbers as they are found on forms, cheques, registers and photos.

The shares were chosen by eye, so that the pictures cover more than what real ones look like.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.models.number_networks import OTHER
from digitq.worker.picture import Grey, Picture
from digitq.worker.sight.numbers.line_strip import Boxes
from training.chance import Rng, pick, pick_by_weight
from training.synthetic import strays
from training.synthetic.arranging import MAX_WIDTH, Line, bounds_of, hull_of, write_number
from training.synthetic.cameras import take
from training.synthetic.glyphs import UNCLEAR
from training.synthetic.handwriting import Points, Shape
from training.synthetic.printed_forms import FORMS, print_labels, print_shapes, print_small_lines
from training.synthetic.scenes import (
    put,
)
from training.synthetic.sheets import OUTWARD, Bounds, Sheet, corners_of, move
from training.synthetic.writing import Hand, Scripts, Sign, choose_hand

MAX_AREA = 256 * 256  # px, of a picture with much around the number
PAPER_SHARE = 0.15  # this share of the numbers is on a picture of paper, if there are any
SMALL_SIGNS = ".,-"  # they may be lost in a coarse or a noisy picture
NEAR_RING = 3  # px: such a sign is compared with a ring around it that is so wide
NOISE = 4  # grey values: a visible sign differs from its ring by more
MAX_PERSPECTIVE = 0.15  # the depth changes by this over the longer side of the number
# The corners of a picture are at most this deep; the middle of the number has depth 1. A picture
# that reached to the horizon would need an endless sheet
MAX_DEPTH = 2
Matrix = NDArray[np.float64]  # (3, 3), of a line's px to the picture's
DOUBT_SHARES = {  # why a person should look at the number, and the share of each
    "several lines": 0.03,
    "several numbers": 0.03,
    "letters": 0.08,
    "crossed out": 0.08,
    "no number": 0.05,
    "": 0.73,
}


@dataclass(frozen=True)
class NumberScene:
    """A picture, and what is to be read from it."""

    picture: Picture
    digits: list[int]  # in reading order; none if the picture has no number
    boxes: Boxes  # where the ink of each digit is
    text: str  # the digits with the signs between and beside them, as it is to be read
    text_boxes: Boxes  # where the ink of each of these is
    knows_signs: bool  # else there are signs that can't be seen or named, and the text has none
    doubt: str  # one of `DOUBT_SHARES`; "" if the number is clear
    other_signs: list[int]  # digits of another number; `OTHER` if a letter, or crossed out
    other_boxes: Boxes


def render_number(
    scripts: Scripts, rng: Rng, form: str | None = None, papers: Sequence[Grey] = ()
) -> NumberScene:
    """Render a number of 1 to 20 digits, on one of `FORMS`, by default any.

    Some are written on one of the `papers`.
    """
    drawn = pick_by_weight({name: share for name, (_, share) in FORMS.items()}, rng)
    form = form or drawn
    doubt = pick_by_weight(DOUBT_SHARES, rng)
    hand = choose_hand(scripts, rng, angular=form == "cells" and rng.random() < 0.08)
    line, height = write_number(form == "cells", hand, rng)
    write = strays.WRITE_OTHERS.get(doubt)
    is_mixed = doubt == "letters" and not line.cells and rng.random() < 0.5
    others = [write(line, height, hand, rng)] if write and not is_mixed else []
    if is_mixed:
        line = strays.mix_in_letters(line, height, hand, rng)
    if doubt == "crossed out":
        line = strays.cross_out(line, rng)
    everything = [*line.signs, *(sign for other in others for sign in other.signs)]
    # A tall mark that is cut may look like a digit, and so may a slash without its dash
    has_tall = any(sign.digit is None and len(sign.mask) > height / 2 for sign in line.signs)
    is_whole = doubt or has_tall or rng.random() < 0.7
    central = bounds_of(everything if is_whole else line.digits)
    turn = _choose_view(central, rng)
    corners = move(corners_of(central), turn)
    wide, tall = np.ptp(corners, axis=0).tolist()
    scale = min(1, 1.5 * MAX_WIDTH / max(wide, tall), math.sqrt(1.4 * MAX_AREA / (wide * tall)))
    if scale < 1:  # turned, or with a word or another number, it is too large
        turn, corners = np.diag([scale, scale, 1]) @ turn, corners * scale
    size, view = choose_canvas(turn, corners, scale * height, rng)
    sheet = _open_sheet(view, size, height, hand, line)
    FORMS[form][0](sheet, rng)
    if doubt == "no number":
        line = replace(line, signs=[], strokes=[])
        others = strays.write_instead(sheet, hand, rng)
    _add_strays(sheet, form, hand, rng)
    for part in (line, *others):
        for sign in part.signs:
            sheet.put(sheet.ink, sign.mask, sign.left, sign.top)
        sheet.pen_in(part.strokes)
    clear = [sign for sign in line.digits if sign.digit != OTHER]
    rest = [sign for sign in line.digits if sign.digit == OTHER]
    rest += [sign for other in others for sign in other.digits]
    seen, boxes = _find(clear, sheet)
    written, text_boxes = _find([sign for sign in line.signs if sign.text], sheet)
    others_seen, other_boxes = _find(rest, sheet)
    paper = pick(papers, rng) if papers and rng.random() < PAPER_SHARE else None
    picture = take(*_show(sheet, rng), scale * height, rng, paper)
    text = "".join(sign.text for sign in written)
    digits, other_signs = ([sign.digit or 0 for sign in part] for part in (seen, others_seen))
    knows_signs = UNCLEAR not in text and all(
        is_visible(picture, box)
        for sign, box in zip(text, text_boxes, strict=True)
        if sign in SMALL_SIGNS
    )
    if not knows_signs:
        text, text_boxes = "".join(map(str, digits)), boxes
    return NumberScene(
        *(picture, digits, boxes, text, text_boxes, knows_signs, doubt),
        *(other_signs, other_boxes),
    )


def is_visible(picture: Picture, box: NDArray[np.float32]) -> bool:
    """Whether the inside of a box is darker or brighter than the ring around it, by more than the
    ring itself varies."""
    left, top = np.maximum(np.floor(box[:2]), 0).astype(int).tolist()
    right, bottom = np.ceil(box[2:]).astype(int).tolist()
    around = np.ones(picture.shape[:2], bool)
    around[top:bottom, left:right] = False
    near = np.s_[
        max(0, top - NEAR_RING) : bottom + NEAR_RING, max(0, left - NEAR_RING) : right + NEAR_RING
    ]
    ring = picture[near][around[near]].astype(float)
    middle = np.median(ring)
    spread = 1.5 * np.median(np.abs(ring - middle)) + NOISE
    return bool(abs(picture[top:bottom, left:right].mean() - middle) > spread)


def _choose_view(bounds: Bounds, rng: Rng) -> Matrix:
    """A turn, a stretch, a slight perspective about the middle of the number; often nothing."""
    if rng.random() < 0.35:
        return np.eye(3)
    kind = rng.random()
    degrees = rng.normal(0, 2) if kind < 0.8 else rng.uniform(-15, 15)
    if kind > 0.97:
        degrees = rng.uniform(-35, 35)
    angle, middle = np.radians(degrees), (bounds[:2] + bounds[2:]) / 2
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    if rng.random() < 0.12:  # a picture that was stretched
        turn[:2, 0] *= np.exp(rng.uniform(-0.4, 0.4))
    if rng.random() < 0.4:
        depths = rng.uniform(-MAX_PERSPECTIVE, MAX_PERSPECTIVE, 2)
        turn[2, :2] = depths / max(bounds[2:] - bounds[:2])
    return _shift(middle) @ turn @ _shift(-middle)


def _shift(by: NDArray[Any]) -> Matrix:
    """A shift by px to the right and down."""
    matrix = np.eye(3)
    matrix[:2, 2] = by
    return matrix


def choose_canvas(
    turn: Matrix, number: Points, height: float, rng: Rng
) -> tuple[list[int], Matrix]:
    """The picture's width and height, and the view of it: the turn, and a shift into the picture.

    `number` is the corners of the number once it is turned.
    """
    while True:
        size, shift = _choose_margins(number.min(axis=0), number.max(axis=0), height, rng)
        view = shift @ turn
        corners = np.column_stack([corners_of(np.array([0, 0, *size])), np.ones(4)])
        inverse_depths = corners @ np.linalg.inv(view)[2]
        if inverse_depths.min() > 1 / MAX_DEPTH:
            return size, view


def _choose_margins(low: Points, high: Points, height: float, rng: Rng) -> tuple[list[int], Matrix]:
    """The picture's width and height, and the shift of the number into it."""
    kind = rng.random()
    most = 0.25 if kind < 0.42 else 1.5 if kind < 0.82 else 5.0
    margins = rng.uniform(-0.05, most, 4) * height  # left, top, right, bottom
    if rng.random() < 0.04:  # a digit is cut
        margins[pick((0, 2), rng)] = -rng.uniform(0.05, 0.35) * height
    wide, tall = high - low
    free = max(0.0, MAX_AREA - wide * tall)
    grown = (wide + margins[0] + margins[2]) * (tall + margins[1] + margins[3]) - wide * tall
    if grown > free:
        margins *= free / grown
    size = np.round((wide, tall) + margins[:2] + margins[2:]).astype(int)
    return np.maximum(size, 8).tolist(), _shift(margins[:2] - low)


def _open_sheet(view: Matrix, size: list[int], height: float, hand: Hand, line: Line) -> Sheet:
    """Empty layers that cover what the picture shows."""
    seen = move(corners_of(np.array([0, 0, *size])), np.asarray(np.linalg.inv(view), np.float64))
    low = np.floor(seen.min(axis=0)).astype(int)
    width, tall = np.ceil(seen.max(axis=0)).astype(int) - low
    edges = np.sort(seen, axis=0)  # two of each side
    edges = np.concatenate([edges[:2].mean(axis=0), edges[2:].mean(axis=0)])
    ink, form = np.zeros((2, tall, width), np.uint8)
    pen, bounds = max(1, round(hand.pen * height)), bounds_of(line.signs)
    return Sheet(ink, form, low, height, pen, bounds, line.cells, edges, view, size)


def _add_strays(sheet: Sheet, form: str, hand: Hand, rng: Rng) -> None:
    """Add what is near many numbers and is passed over."""
    if rng.random() < {"table": 0.6, "cells": 0.25}.get(form, 0.1):
        strays.add_cut_neighbours(sheet, hand, rng)
    for add, share in (
        (strays.underline, 0.1),
        (strays.add_objects, 0.06),
        (strays.spill, 0.08),
        (print_labels, 0.1 if form == "plain" else 0.25),
        (print_shapes, 0.07),
        (print_small_lines, 0.08),
    ):
        if rng.random() < share:
            add(sheet, rng)


def _show(sheet: Sheet, rng: Rng) -> tuple[Shape, Shape, Shape | None]:
    """Ink, form and what is outside of the paper, as the picture shows them."""
    layers = [sheet.ink, sheet.form]
    if rng.random() < 0.1:
        outside = np.full_like(sheet.ink, 255)
        inner = sheet.bounds + np.maximum(sheet.room * rng.uniform(0.3, 1.3, 4), 0) * OUTWARD
        corners = np.round((corners_of(inner) - sheet.origin) * 16).astype(np.int32)
        cv2.fillConvexPoly(outside, corners, 0, cv2.LINE_AA, 4)
        layers.append(outside)
    matrix, size = sheet.view @ _shift(sheet.origin), sheet.size
    if np.allclose(matrix[:2, :2], np.eye(2)):  # shifted only: the ink stays sharp
        seen = np.zeros((size[1], size[0], len(layers)), np.uint8)
        left, top = np.round(matrix[:2, 2]).astype(int).tolist()
        put(seen, cv2.merge(layers), top, left)
    else:
        seen = cv2.warpPerspective(cv2.merge(layers), matrix, size)
    ink, form, *others = cv2.split(seen)
    return ink, form, others[0] if others else None


def _find(signs: list[Sign], sheet: Sheet) -> tuple[list[Sign], Boxes]:
    """The signs that are mostly inside of the picture, and the box of each there."""
    places = [move(hull_of(sign), sheet.view) for sign in signs]
    boxes = np.array([[*m.min(axis=0), *m.max(axis=0)] for m in places], np.float32).reshape(-1, 4)
    seen = np.clip(boxes, 0, np.array([*sheet.size, *sheet.size], np.float32))
    shares = [(sides[:, 2:] - sides[:, :2]).prod(1) for sides in (seen, boxes)]
    is_seen = shares[0] >= shares[1] / 2
    return [sign for sign, is_kept in zip(signs, is_seen, strict=True) if is_kept], seen[is_seen]
